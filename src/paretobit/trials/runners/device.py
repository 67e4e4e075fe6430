"""What a configuration would cost on hardware that a file describes, from the configuration alone."""

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from paretobit.errors import BadInput
from paretobit.formats import FULL
from paretobit.passes.analysis.cost import Slots
from paretobit.passes.analysis.cost_table import CostTable, macs_of
from paretobit.passes.analysis.memory import Lifetimes
from paretobit.passes.analysis.roofline import Device, Roofline
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners.base import RUNNERS, Candidate, Runner, RunnerSettings
from paretobit.trials.runners.computation import operations
from paretobit.trials.runners.per_layer import LayerSum, Values
from paretobit.wanted.metric import Metric


def _named(path: Path | None, key: str, allowed: str) -> Path:
    if path is None:
        raise BadInput("no file is named", key=key, allowed=allowed)
    return path


@RUNNERS.register("peak_memory")
class PeakMemory(Runner):
    """Most bytes of activations that are alive at once, each at the widest format it is read in."""

    kind = "hardware"
    metrics = (Metric("peak_memory", "minimize", "bytes of activations per sample", cheap=True),)

    def __init__(self, evidence: Evidence, settings: Any) -> None:
        super().__init__(evidence, settings)
        self._lifetimes = Lifetimes(evidence.graph)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        return {"peak_memory": max(self._lifetimes.alive(candidate.formats), default=0.0)}


class RooflineSettings(RunnerSettings):
    """Settings of `roofline_latency`."""

    device: Path | None = Field(None, description="needed: TOML file with bandwidth, overhead and [peak] of the device")
    batch_size: int = Field(1, gt=0, description="rows that run together")


@RUNNERS.register("roofline_latency")
class RooflineLatency(Runner):
    """Time of a forward pass on a described device: each operation bound by arithmetic or by memory."""

    Settings: ClassVar[type[RunnerSettings]] = RooflineSettings
    kind = "hardware"
    metrics = (Metric("roofline_latency", "minimize", "ms per batch, estimated", cheap=True),)

    def __init__(self, evidence: Evidence, settings: Any) -> None:
        super().__init__(evidence, settings)
        operations(evidence, "roofline_latency")
        self._device = Device.read(_named(settings.device, "roofline_latency.device", "a TOML file"))
        self._roofline = Roofline(evidence.graph, self._device, settings.batch_size)

    @property
    def identity(self) -> dict[str, Any]:
        """The device itself, not the file it came from."""
        settings = self.settings.model_dump(exclude={"device"})
        return {"runner": type(self).__name__, **settings, "device": self._device.model_dump()}

    def measure(self, candidate: Candidate) -> dict[str, float]:
        return {"roofline_latency": 1e3 * self._roofline.seconds(candidate.formats)}


class CostTableSettings(RunnerSettings):
    """Settings of `cost_table`."""

    file: Path | None = Field(
        None, description="needed: CSV with op, data_format, weight_format, and quantities per MAC"
    )


@RUNNERS.register("cost_table")
class TableCosts(Runner):
    """The numeric columns of a table, as metrics: MACs × cost per MAC, summed over the operations."""

    Settings: ClassVar[type[RunnerSettings]] = CostTableSettings
    kind = "hardware"
    metrics_from_settings = True
    metrics: tuple[Metric, ...] = ()  # known from the file

    def __init__(self, evidence: Evidence, settings: Any) -> None:
        super().__init__(evidence, settings)
        operations(evidence, "cost_table")
        self._table = table = CostTable.read(_named(settings.file, "cost_table.file", "a CSV file"))
        self.metrics = tuple(
            Metric(name, "minimize", "per sample, from the cost table", cheap=True) for name in table.quantities
        )
        nodes = macs_of(evidence.graph)
        if not nodes:
            raise BadInput("the model has no operation with MACs", key="cost_table")

        def count(index: int, slots: Slots, values: Values) -> tuple[float, ...]:
            op, _, macs = nodes[index]
            costs = table.per_mac(op, slots.get("data_in", FULL), slots.get("weight", FULL))
            return tuple(macs * costs[name] for name in table.quantities)

        self._sum = LayerSum([site for _, site, _ in nodes], count)

    @property
    def identity(self) -> dict[str, Any]:
        """The table itself, not the file it came from."""
        lines = [[line.op, line.data_format, line.weight_format, dict(line.per_mac)] for line in self._table.lines]
        return {"runner": type(self).__name__, "lines": lines}

    def measure(self, candidate: Candidate) -> dict[str, float]:
        return dict(zip(self._table.quantities, self._sum(candidate.formats), strict=True))
