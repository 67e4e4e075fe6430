"""One bit an element: a sign, or zero and one; several of them on what is left."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from paretobit.formats.base import FORMATS, Description, LossyFormat, Traits, computed
from paretobit.formats.checks import check_bool, check_choice, check_int
from paretobit.formats.grid import SMALLEST, lifted, limited_
from paretobit.formats.partition import SCALED_REACH, count, in_slices, join, mean, shared_extents, split
from paretobit.formats.scaled import ScaledFormat

MAX_LEVELS = 8
SCALE_BITS = 32
ScaledPer = Literal["tensor", "channel"]


@dataclass(frozen=True)
class BinaryFormat(LossyFormat):
    """What every binary format shares."""

    bipolar: bool = True
    stochastic: bool = False
    binary_training: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("bipolar", "stochastic", "binary_training"):
            check_bool(key, getattr(self, key))

    @property
    def element_bits(self) -> int:
        return 1

    def quantize_latent(self, x: Tensor) -> Tensor:
        """As always, or with `binary_training` off the parameter itself, kept from -1 to 1."""
        return self.quantize(x) if self.binary_training else x.clamp(-1, 1)

    def _inside(self, x: Tensor) -> Tensor:
        return x.abs() <= 1

    def _codes(self, x: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Codes as the values of a scale of 1, -1 or 1, or 0 or 1, as a new tensor; NaN stays NaN."""
        if self.stochastic:
            positive = scale.clamp(min=SMALLEST) if isinstance(scale, Tensor) else scale
            chance = (x / positive).clamp_(-1, 1).add_(1).mul_(0.5)  # hard sigmoid
            x = chance.sub_(torch.rand_like(x))
        codes = lifted(x)
        if self.bipolar:
            codes.add_(-0.5 if self.stochastic else 0.5).mul_(2)  # where zero goes
        return limited_(codes, -1.0 if self.bipolar else 0.0, 1.0)


@FORMATS.register("binary")
@dataclass(frozen=True)
class Binary(BinaryFormat):
    """One bit: the sign, or whether the value is positive.

    Args:
        bipolar: Values -1 and 1 (zero gives 1); otherwise 0 and 1 (1 for what is above zero).
        stochastic: The upper value with probability `clamp((x + 1) / 2, 0, 1)`, from torch's random
            stream; otherwise the threshold is zero.
        binary_training: Parameters are binary while they are trained, too; otherwise they are only
            kept from -1 to 1 then, and binary when evaluated.
    """

    name: ClassVar[str] = "binary"
    formula: ClassVar[str] = "1 where x ≥ 0, else -1; not bipolar: 1 where x > 0, else 0"
    source: ClassVar[str] = "Hubara et al. 2016, arXiv 1602.02830"

    @property
    def traits(self) -> Traits:
        """Only {0, 1} has a zero; it is the threshold, not the nearest value, that decides there."""
        steady = not self.stochastic
        return Traits(
            has_zero=steady and not self.bipolar,
            symmetric=False,  # zero goes up
            deterministic=steady,
            nearest=steady and self.bipolar,
            idempotent=steady or self.bipolar,
        )

    def describe(self) -> Description:
        low = -1.0 if self.bipolar else 0.0
        return Description(low, 1.0, 1.0, 1.0 - low, 2)

    def codes(self) -> Tensor:
        """The two values, float64."""
        return torch.tensor([self.describe().minimum, 1.0], dtype=torch.float64)

    def _round(self, x: Tensor) -> Tensor:
        return self._codes(x)


@dataclass(frozen=True)
class ScaledBinary(BinaryFormat, ScaledFormat[tuple[Tensor, ...]]):
    """A sum of binary values, each level times the mean magnitude of what the levels before left."""

    per: ScaledPer = "channel"
    axis: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("per", self.per, ScaledPer)
        check_int("axis", self.axis, -8, 7)

    @property
    def _levels(self) -> int:
        return 1

    @property
    def traits(self) -> Traits:
        """One bipolar level chooses the nearest of its two values; a larger second one turns the order."""
        steady, single = not self.stochastic, self._levels == 1
        return Traits(
            has_zero=steady and not self.bipolar,
            symmetric=False,  # zero goes up
            deterministic=steady,
            nearest=steady and self.bipolar and single,
            idempotent=single and (steady or self.bipolar),
            scale="mean",
            monotone=single or not self.bipolar,
        )

    @property
    def element_bits(self) -> int:
        return self._levels

    def extents(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The extents of the part of a tensor that shares a scale."""
        return shared_extents(shape, self.per, self.axis)

    def bits(self, shape: Sequence[int]) -> int:
        """Bits of the elements and of a float32 scale for each level and part."""
        return super().bits(shape) + SCALE_BITS * self._levels * count(shape, self.extents(shape))

    def describe(self) -> Description:
        """In units of the scale of the first level, as if no level were smaller than the one before."""
        low = -1.0 if self.bipolar else 0.0
        levels = self._levels
        ordered = not (self.bipolar or self.stochastic)  # then no level is 1 above one that is 0
        return Description(low * levels, levels, 1.0, 1.0 - low, levels + 1 if ordered else 2**levels)

    def scales(self, x: Tensor) -> tuple[Tensor, ...]:
        """Of each level, in the shape that broadcasts; where codes are drawn, as if they were not."""
        rest, inside = split(computed(x), self.extents(x.shape))
        scales = []
        largest = torch.tensor(SCALED_REACH / self._levels, dtype=torch.float32).item()  # scales are float32 numbers
        rest = rest.abs() if self.bipolar else rest.clamp(min=0)  # the sign of what is left is no matter
        for level in range(self._levels):
            above = None if self.bipolar else lifted(rest).clamp_(0, 1)
            scales.append(mean(rest, inside, above).clamp_(max=largest))
            if level + 1 < self._levels:
                rest = (rest - scales[-1]).abs_() if self.bipolar else (rest - scales[-1]).clamp_(min=0)
        return tuple(scales)

    def with_scales(self, x: Tensor, scales: tuple[Tensor, ...]) -> Tensor:
        """The sum of the levels."""
        extents = self.extents(x.shape)
        rest, _ = split(x, extents)
        total = last = self._codes(rest, scales[0]).mul_(scales[0])
        for scale in scales[1:]:
            rest = rest - last
            last = self._codes(rest, scale).mul_(scale)
            total.add_(last)
        return join(total, x.shape, extents)

    def _round(self, x: Tensor) -> Tensor:
        return in_slices(super()._round, x, self.extents(x.shape))


@FORMATS.register("binary_scaling")
@dataclass(frozen=True)
class BinaryScaling(ScaledBinary):
    """One bit, times a scale: the mean magnitude of the tensor or of each channel.

    Args:
        bipolar: Values -s and s, s the mean of |x|; otherwise 0 and s, s the mean of what is above
            zero.
        stochastic: The upper value with probability `clamp((x/s + 1) / 2, 0, 1)`, from torch's
            random stream; otherwise the threshold is zero.
        binary_training: Parameters are binary while they are trained, too; otherwise they are only
            kept from -1 to 1 then, and binary when evaluated.
        per: What shares a scale: the `tensor`, or each `channel` (index along `axis`; a tensor of
            fewer than two dimensions is one channel).
        axis: The dimension of the channels.
    """

    name: ClassVar[str] = "binary_scaling"
    formula: ClassVar[str] = "s · binary(x), s = mean|x|"
    source: ClassVar[str] = "Rastegari et al. 2016 (XNOR-Net), arXiv 1603.05279"


@FORMATS.register("binary_residual")
@dataclass(frozen=True)
class BinaryResidual(ScaledBinary):
    """A sum of scaled binary values, each level standing for what the levels before left.

    Args:
        levels: Bits of an element, 1 … 8.
        bipolar: Levels of -s and s; otherwise of 0 and s.
        stochastic: Codes are drawn as in `binary_scaling`; scales are those of codes not drawn.
        binary_training: Parameters are binary while they are trained, too; otherwise they are only
            kept from -1 to 1 then, and binary when evaluated.
        per: What shares the scales: the `tensor`, or each `channel` (index along `axis`; a tensor of
            fewer than two dimensions is one channel).
        axis: The dimension of the channels.
    """

    name: ClassVar[str] = "binary_residual"
    formula: ClassVar[str] = "Σ s_l · binary(r_l), r_1 = x, r_(l+1) = r_l - s_l · binary(r_l), s_l = mean|r_l|"
    source: ClassVar[str] = "Li et al. 2017 (HORQ), arXiv 1708.08687; Ghasemzadeh et al. 2018 (ReBNet)"
    levels: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("levels", self.levels, 1, MAX_LEVELS)

    @property
    def _levels(self) -> int:
        return self.levels
