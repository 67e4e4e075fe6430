"""FLOPs and BitOPs, from the configuration alone."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from paretobit.errors import BadInput
from paretobit.passes.analysis.cost import Convention, Slots, node_cost
from paretobit.search.runners.base import RUNNERS, Candidate, Evidence, Metric, Runner, RunnerSettings
from paretobit.search.runners.per_layer import LayerSum


class ComputationSettings(RunnerSettings):
    """Settings of `basic_computation`."""

    convention: Convention = Field(
        "standard", description="standard (per sample) or lab2 (the second report's, the batch counted)"
    )
    batch_size: int = Field(1, gt=0, description="rows that lab2 counts")


@RUNNERS.register("basic_computation")
class BasicComputation(Runner):
    """Total FLOPs and BitOPs of the forward pass, from the configuration alone."""

    Settings: ClassVar[type[RunnerSettings]] = ComputationSettings
    metrics = (
        Metric("total_flops", "minimize", "operations per sample", cheap=True, short="flops"),
        Metric("total_bitops", "minimize", "bit operations per sample", cheap=True, short="bitops"),
    )

    def __init__(self, evidence: Evidence, settings: Any) -> None:
        super().__init__(evidence, settings)
        graph = evidence.graph
        if graph.batch is None:
            raise BadInput("costs need the shapes of the layers: give example inputs", key="basic_computation")
        # every call of a shared layer costs
        nodes = [(node, graph.module(node)) for node in graph if node.kind == "call_module"]

        def count(index: int, slots: Slots) -> tuple[int, int]:
            node, module = nodes[index]
            row = node_cost(node, module, slots, settings.convention, settings.batch_size)
            return row.forward_flops, row.forward_bitops

        self._sum = LayerSum([node.owner for node, _ in nodes], count)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        """Sum over the layers."""
        flops, bitops = self._sum(candidate.formats)
        return {"total_flops": flops, "total_bitops": bitops}
