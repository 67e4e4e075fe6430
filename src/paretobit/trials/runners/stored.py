"""Bytes of the file that a model takes once it is packed, zeros left out where that pays."""

import math
from typing import Any, ClassVar

from pydantic import Field

from paretobit.formats import Format
from paretobit.nn import Stored
from paretobit.passes.analysis.cost import NO_FORMATS, Slots, zero_fraction
from paretobit.passes.analysis.layer_bits import owners
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners.base import RUNNERS, Candidate, Runner, RunnerSettings
from paretobit.wanted.metric import Metric


class StoredSettings(RunnerSettings):
    """Settings of `stored_bytes`."""

    skip_zeros: bool = Field(True, description="leave out zeros of weights behind a bitmap where that is smaller")


@RUNNERS.register("stored_bytes")
class StoredBytes(Runner):
    """Bytes of the packed model: every tensor in whole bytes, zeros of weights left out where that pays.

    A tensor takes the bits of its elements in their format, with what blocks share and with scales,
    rounded up to whole bytes. A weight of two axes or more may instead be a bitmap of one bit per
    element and the elements that are not zero. What has no format, and running statistics, count 32
    bits an element. Names and shapes, which cost the same whatever the formats, are left out.
    `model_size` adds up the bits of the elements, zeros as well, without rounding.
    """

    Settings: ClassVar[type[RunnerSettings]] = StoredSettings
    kind = "hardware"
    metrics = (Metric("stored_bytes", "minimize", "bytes", cheap=True),)

    def __init__(self, evidence: Evidence, settings: Any) -> None:
        super().__init__(evidence, settings)
        self._owners = owners(evidence.graph)
        self._at: dict[str, list[int]] = {}
        for index, owner in enumerate(self._owners):
            self._at.setdefault(owner.path, []).append(index)
        self._plain = [self._bytes(i, NO_FORMATS, None) for i in range(len(self._owners))]
        self._known: dict[tuple[object, ...], int] = {}

    def measure(self, candidate: Candidate) -> dict[str, float]:
        """Sum over the tensors; zeros that the configuration makes count, or those of the format if more."""
        total = sum(self._plain)
        for path in dict.fromkeys((*candidate.formats, *candidate.sparsity)):
            slots, zeros = candidate.formats.get(path, NO_FORMATS), candidate.sparsity.get(path)
            key = (path, tuple(slots.items()), zeros)
            if key not in self._known:
                self._known[key] = sum(self._bytes(i, slots, zeros) - self._plain[i] for i in self._at.get(path, ()))
            total += self._known[key]
        return {"stored_bytes": float(total)}

    def _bytes(self, index: int, slots: Slots, zeros: float | None) -> int:
        """Of the tensors that count at one layer or function."""
        owner, total = self._owners[index], 0
        for stored in owner.stored:
            share = 0.0
            if any(use.slot == "weight" and len(use.shape) > 1 for use in stored.uses):
                share = self._zeros(stored, slots, zeros)
            total += sum(packed_bytes(f, shape, share) for f, shape in stored.parts(slots))
        return total + owner.statistics_bits // 8

    def _zeros(self, stored: Stored, slots: Slots, made: float | None) -> float:
        if not self.settings.skip_zeros:
            return 0.0
        return max(made or 0.0, zero_fraction(stored.uses[:1], slots) or 0.0)


def packed_bytes(number_format: Format, shape: tuple[int, ...], zeros: float) -> int:
    """Whole bytes of one tensor; behind a bitmap where that is smaller.

    >>> from paretobit.formats import Integer
    >>> packed_bytes(Integer(4), (10, 10), 0.0), packed_bytes(Integer(4), (10, 10), 0.9)
    (50, 18)
    """
    dense = number_format.bits(shape)
    elements = math.prod(shape)
    skipped = round(zeros * elements) * number_format.element_bits
    return -(-min(dense, elements + dense - skipped) // 8)
