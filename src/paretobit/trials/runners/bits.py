"""Average bit widths and the stored size, from the configuration alone."""

from dataclasses import astuple
from typing import Any

from paretobit.passes.analysis.layer_bits import owners
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners.base import RUNNERS, Candidate, Runner
from paretobit.trials.runners.per_layer import LayerSum
from paretobit.wanted.metric import Metric

_FULL_BITS = 32


@RUNNERS.register("average_bitwidth")
class AverageBitwidth(Runner):
    """Average bits per element of weights, activations and both; unquantised elements count 32.

    Activations are the inputs of every layer that can be quantised, one sample. Memory density is
    the size of the parameters at 32 bits over their stored size.
    """

    kind = "hardware"
    metrics = (
        Metric("average_bitwidth", "minimize", "bits per element", cheap=True),
        Metric("weight_bitwidth", "minimize", "bits per element", cheap=True),
        Metric("activation_bitwidth", "minimize", "bits per element", cheap=True),
        Metric("memory_density", "maximize", "times smaller than 32 bits", cheap=True),
    )

    def __init__(self, evidence: Evidence, settings: Any) -> None:
        super().__init__(evidence, settings)
        self._sum = _sum_of_bits(evidence)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        weights, weight_bits, _, data, data_bits = self._sum(candidate.formats)
        return {
            "average_bitwidth": _ratio(weight_bits + data_bits, weights + data),
            "weight_bitwidth": _ratio(weight_bits, weights),
            "activation_bitwidth": _ratio(data_bits, data),
            "memory_density": _ratio(_FULL_BITS * weights, weight_bits) if weights else 1.0,
        }


@RUNNERS.register("model_size")
class ModelSize(Runner):
    """Bytes that storing parameters and running statistics takes; unquantised elements at 32 bits."""

    kind = "hardware"
    metrics = (Metric("model_size", "minimize", "bytes", cheap=True, short="size"),)

    def __init__(self, evidence: Evidence, settings: Any) -> None:
        super().__init__(evidence, settings)
        self._sum = _sum_of_bits(evidence)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        _, weights, statistics, _, _ = self._sum(candidate.formats)
        return {"model_size": (weights + statistics) / 8}


def _sum_of_bits(evidence: Evidence) -> LayerSum:
    """The numbers of `LayerBits`, in their order, over everything that has bits."""
    found = owners(evidence.graph)
    return LayerSum([owner.path for owner in found], lambda index, slots, _: astuple(found[index].bits(slots)))


def _ratio(bits: float, elements: float) -> float:
    """Average bits; a model without such elements keeps nothing at less than full precision."""
    return bits / elements if elements else float(_FULL_BITS)
