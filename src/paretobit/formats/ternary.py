"""Three values an element: minus one, zero and one, or these times a scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretobit.formats.base import FORMATS, Description, Traits, computed
from paretobit.formats.binary import SCALE_BITS, ScaledPer
from paretobit.formats.checks import check_bool, check_choice, check_int, check_number
from paretobit.formats.grid import SMALLEST, lifted
from paretobit.formats.partition import count, in_slices, join, mean, shared_extents, split
from paretobit.formats.scaled import ScaledFormat

THRESHOLD_OF_MEAN = 0.7  # of the mean magnitude: eq. 6 of Li et al. 2016


class _Scales(NamedTuple):
    threshold: Tensor | float
    scale: Tensor | float


@FORMATS.register("ternary")
@dataclass(frozen=True)
class Ternary(ScaledFormat[_Scales]):
    """-s, 0 and s: zero where |x| is not above a threshold.

    Args:
        threshold: Unset: 0.7 times the mean of |x|.
        scaling: s is the mean of the |x| above the threshold; otherwise 1.
        per: What shares threshold and scale: the `tensor`, or each `channel` (index along `axis`; a
            tensor of fewer than two dimensions is one channel).
        axis: The dimension of the channels.
    """

    name: ClassVar[str] = "ternary"
    formula: ClassVar[str] = "s · sign(x) where |x| > t, else 0"
    source: ClassVar[str] = "Li et al. 2016 (Ternary Weight Networks), arXiv 1605.04711"
    threshold: float | None = None
    scaling: bool = True
    per: ScaledPer = "channel"
    axis: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None:
            check_number("threshold", self.threshold, 0, 2.0**127)
        check_bool("scaling", self.scaling)
        check_choice("per", self.per, ScaledPer)
        check_int("axis", self.axis, -8, 7)

    @property
    def traits(self) -> Traits:
        """The threshold decides, not the nearest value; one of 1 or more would silence an unscaled 1."""
        fixed = self.threshold is not None
        return Traits(
            has_zero=True,
            symmetric=True,
            nearest=False,
            idempotent=self.scaling or self.threshold is None or self.threshold < 1,
            scale="fixed" if fixed and not self.scaling else "mean",
        )

    @property
    def element_bits(self) -> int:
        return 2

    def extents(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The extents of the part of a tensor that shares a scale."""
        return shared_extents(shape, self.per, self.axis)

    def bits(self, shape: Sequence[int]) -> int:
        """Bits of the elements, and of a float32 scale for each part where there is one."""
        return super().bits(shape) + (SCALE_BITS * count(shape, self.extents(shape)) if self.scaling else 0)

    def describe(self) -> Description:
        """In units of the scale."""
        return Description(-1.0, 1.0, 1.0, 1.0, 3)

    def codes(self) -> Tensor:
        """-1, 0 and 1, float64, where there is no scale."""
        return super().codes() if self.scaling else torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)

    def scales(self, x: Tensor) -> _Scales:
        """Threshold and scale of each part, in the shape that broadcasts."""
        blocked, inside = split(computed(x), self.extents(x.shape))
        magnitude = blocked.abs()
        threshold: Tensor | float | None = self.threshold
        if threshold is None:  # below the mean, which a product of subnormal numbers rounds back to
            center = mean(magnitude, inside)
            threshold = torch.minimum(center * THRESHOLD_OF_MEAN, (center - SMALLEST).clamp_(min=0))
        if not self.scaling:
            return _Scales(threshold, 1.0)
        return _Scales(threshold, mean(magnitude, inside, lifted(magnitude - threshold).clamp_(0, 1)))

    def with_scales(self, x: Tensor, scales: _Scales) -> Tensor:
        """Zero up to the threshold, the scale with the sign of `x` above."""
        extents = self.extents(x.shape)
        blocked, _ = split(x, extents)
        above = lifted(blocked.abs().sub_(scales.threshold)).clamp_(0, 1)
        return join(above.copysign_(blocked).mul_(scales.scale), x.shape, extents)

    def _round(self, x: Tensor) -> Tensor:
        return in_slices(super()._round, x, self.extents(x.shape))

    def _inside(self, x: Tensor) -> Tensor:
        extents = self.extents(x.shape)
        reach = torch.as_tensor(self.scales(x).scale).clamp(min=1)
        return join(split(x, extents)[0].abs() <= reach, x.shape, extents)
