"""FLOPs, BitOPs and BOPs, from the configuration alone."""

from typing import Any, ClassVar

from pydantic import Field

from paretobit.errors import BadInput
from paretobit.graph import Node
from paretobit.nn import parameter_uses
from paretobit.passes.analysis.cost import Convention, NodeCost, Slots, node_cost, zero_fraction
from paretobit.passes.layers.selection import path_of
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners.base import RUNNERS, Candidate, Runner, RunnerSettings
from paretobit.trials.runners.per_layer import LayerSum, Values
from paretobit.wanted.metric import Metric


class ComputationSettings(RunnerSettings):
    """Settings of `basic_computation`."""

    convention: Convention = Field(
        "standard", description="standard (per sample), or lab2 or lab3 (the reports', the batch counted)"
    )
    batch_size: int = Field(1, gt=0, description="rows that lab2 and lab3 count")


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
        nodes = operations(evidence, "basic_computation")

        def count(index: int, slots: Slots, _: Values) -> tuple[int, int]:
            row = _cost(evidence, nodes[index], slots, settings.convention, settings.batch_size)
            return row.forward_flops, row.forward_bitops

        self._sum = LayerSum([path_of(node) for node in nodes], count)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        flops, bitops = self._sum(candidate.formats)
        return {"total_flops": flops, "total_bitops": bitops}


class BopsSettings(RunnerSettings):
    """Settings of `bops`."""

    skip_zeros: bool = Field(True, description="leave out weights that are zero, once pruned and in their format")


@RUNNERS.register("bops")
class Bops(Runner):
    """BOPs of Hawks et al. 2021: bit operations with those of additions, without those of zero weights.

    Zero are the weights that are zero in the model of the trial: pruned, then in their format. Zeros in
    data, which pruned inputs have at run time, count like other values.
    """

    Settings: ClassVar[type[RunnerSettings]] = BopsSettings
    kind = "hardware"
    metrics = (Metric("bops", "minimize", "bit operations per sample", cheap=True),)

    def __init__(self, evidence: Evidence, settings: Any) -> None:
        super().__init__(evidence, settings)
        nodes, graph = operations(evidence, "bops"), evidence.graph
        reads = [parameter_uses(graph).at(path_of(node)) for node in nodes]

        def count(index: int, slots: Slots, values: Values) -> tuple[float]:
            zeros = zero_fraction(reads[index], slots, values) if settings.skip_zeros else None
            return (_cost(evidence, nodes[index], slots, zeros=zeros).bops,)

        parameters = [[use.parameter for use in uses] for uses in reads]
        self._sum = LayerSum([path_of(node) for node in nodes], count, parameters, graph.model)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        weights = candidate.weights if self.settings.skip_zeros else None
        (total,) = self._sum(candidate.delivered, weights)
        return {"bops": total}


def operations(evidence: Evidence, runner: str) -> list[Node]:
    """Every call of a layer or function: one of a shared layer costs each time.

    Raises:
        BadInput: The graph has no shapes.
    """
    if evidence.graph.batch is None:
        raise BadInput("costs need the shapes of the layers: give example inputs", key=runner)
    return [n for n in evidence.graph if n.kind in ("call_module", "call_function", "call_method")]


def _cost(
    evidence: Evidence,
    node: Node,
    slots: Slots,
    convention: Convention = "standard",
    batch: int = 1,
    zeros: float | None = None,
) -> NodeCost:
    module = evidence.graph.module(node) if node.kind == "call_module" else None
    return node_cost(node, module, slots, convention, batch, sparsity=zeros)
