"""Bytes of the file that a model takes once it is packed, zeros left out where that pays."""

import math
from typing import Any, ClassVar

from pydantic import Field

from paretobit.formats import Format
from paretobit.passes.analysis.cost import Slots
from paretobit.passes.analysis.layer_bits import owners
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners.base import RUNNERS, Candidate, Runner, RunnerSettings
from paretobit.trials.runners.per_layer import LayerSum, Values
from paretobit.wanted.metric import Metric


class StoredSettings(RunnerSettings):
    """Settings of `stored_bytes`."""

    skip_zeros: bool = Field(True, description="leave out zeros of weights behind a bitmap where that is smaller")


@RUNNERS.register("stored_bytes")
class StoredBytes(Runner):
    """Bytes of the packed model: every tensor in whole bytes, zeros of weights left out where that pays.

    A tensor takes the bits of its elements in their format, with what blocks share and with scales,
    rounded up to whole bytes. A weight of two axes or more may instead be a bitmap of one bit per
    element and the elements that are not zero in the model of the trial: pruned, then in their format.
    What has no format, and running statistics, count 32 bits an element. Names and shapes, which cost
    the same whatever the formats, are left out.
    `model_size` adds up the bits of the elements, zeros as well, without rounding.
    """

    Settings: ClassVar[type[RunnerSettings]] = StoredSettings
    kind = "hardware"
    metrics = (Metric("stored_bytes", "minimize", "bytes", cheap=True),)

    def __init__(self, evidence: Evidence, settings: Any) -> None:
        super().__init__(evidence, settings)
        self._owners = owners(evidence.graph)
        reads = [[p for stored in owner.stored for p in stored.parameters] for owner in self._owners]
        self._sum = LayerSum([owner.path for owner in self._owners], self._bytes, reads, evidence.graph.model)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        weights = candidate.weights if self.settings.skip_zeros else None
        (total,) = self._sum(candidate.delivered, weights)
        return {"stored_bytes": float(total)}

    def _bytes(self, index: int, slots: Slots, values: Values) -> tuple[int]:
        """Of the tensors that count at one layer or function."""
        owner = self._owners[index]
        total = owner.statistics_bits // 8
        for stored in owner.stored:
            parts = stored.parts(slots)
            zeros = [0] * len(parts)
            if self.settings.skip_zeros and any(use.slot == "weight" and len(use.shape) > 1 for use in stored.uses):
                zeros = stored.zeros(slots, values.get(id(stored.parameters[0])))
            total += sum(packed_bytes(f, shape, z) for (f, shape), z in zip(parts, zeros, strict=False))
        return (total,)


def packed_bytes(number_format: Format, shape: tuple[int, ...], zeros: int) -> int:
    """Whole bytes of one tensor with so many zeros; behind a bitmap where that is smaller.

    >>> from paretobit.formats import Integer
    >>> packed_bytes(Integer(4), (10, 10), 0), packed_bytes(Integer(4), (10, 10), 90)
    (50, 18)
    """
    dense = number_format.bits(shape)
    return -(-min(dense, math.prod(shape) + dense - zeros * number_format.element_bits) // 8)
