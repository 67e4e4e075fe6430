"""Block formats: elements that share a power-of-two scale with the other elements of their block."""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from paretobit.formats.base import FORMATS, Description, LossyFormat, Traits, WidthFormat
from paretobit.formats.checks import check_int
from paretobit.formats.grid import LAYOUTS, FixedGrid, FloatGrid, Grid, check_reach
from paretobit.formats.minifloat import BIAS_RANGE, MAX_EXPONENT_WIDTH, MAX_WIDTH, default_bias, resolve_bias
from paretobit.formats.partition import (
    BlockSize,
    block_extents,
    count,
    in_slices,
    join,
    largest_magnitude,
    parse_block_size,
    split,
)

_SMALLEST_SCALE, _LARGEST_SCALE = -149, 127  # exponents of the powers of two that float32 holds


@dataclass(frozen=True)
class BlockFormat(LossyFormat):
    """Elements that share a scale within blocks.

    Args:
        block_size: Elements of a block along `axis`, or `"1x16"` for blocks over several dimensions.
        axis: The dimension that blocks of one number lie along.
    """

    block_size: BlockSize = field(default=16, kw_only=True)
    axis: int = field(default=-1, kw_only=True)
    elements: Grid = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "block_size", parse_block_size(self.block_size))
        check_int("axis", self.axis, -8, 7)
        object.__setattr__(self, "elements", self._make_elements())

    @property
    @abc.abstractmethod
    def shared_bits(self) -> int:
        """Bits of what a block shares."""

    @abc.abstractmethod
    def _make_elements(self) -> Grid:
        """The values of an element, to be multiplied by the scale of its block."""

    @abc.abstractmethod
    def _scales(self, largest: Tensor) -> Tensor:
        """The scale of each block from its largest magnitude; positive."""

    @property
    def traits(self) -> Traits:
        """The scale follows the largest magnitude."""
        return Traits(has_zero=True, symmetric=True, scale="max")

    def extents(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The extent of a block along each dimension of a tensor of this shape."""
        return block_extents(shape, self.block_size, self.axis)

    def bits(self, shape: Sequence[int]) -> int:
        """Bits of the elements and of what each block, short ones too, shares."""
        return super().bits(shape) + self.shared_bits * count(shape, self.extents(shape))

    def _blocks(self, x: Tensor, extents: Sequence[int]) -> tuple[Tensor, Tensor]:
        """`x` in blocks, and the scale of each block."""
        blocked, inside = split(x, extents)
        return blocked, self._scales(largest_magnitude(blocked, inside))

    def _round(self, x: Tensor) -> Tensor:
        extents = self.extents(x.shape)
        blocked, scales = self._blocks(x, extents)
        if self.elements.smallest < 2.0 ** (LAYOUTS[x.dtype].smallest_exponent + 1):  # halves are subnormal
            scales = scales.double()
        values = self.elements.round_(blocked / scales, blocked).mul_(scales)
        return join(values.to(x.dtype), x.shape, extents)

    def _inside(self, x: Tensor) -> Tensor:
        extents = self.extents(x.shape)
        blocked, scales = self._blocks(x, extents)
        elements, y = self.elements, blocked / scales
        inside = (y >= elements.minimum) & (y <= elements.maximum)
        return join(inside, x.shape, extents)


@dataclass(frozen=True)
class SharedExponentFormat(BlockFormat):
    """Block formats whose scale is a power of two: that of the largest element's binade.

    Elements are expressed with their top binade at 2^0, so that the scale of a block is
    `2^floor(log2 max|x|)`, kept within `exponent_range`.
    """

    @property
    @abc.abstractmethod
    def exponent_range(self) -> tuple[int, int]:
        """The exponents that the top binade of a block can have."""

    def _round(self, x: Tensor) -> Tensor:
        return in_slices(super()._round, x, self.extents(x.shape))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_reach(*self.exponent_range)

    def _scales(self, largest: Tensor) -> Tensor:
        low, high = self._reachable
        # The bits of a subnormal number do not tell its exponent: right where `low` is above it.
        exact = largest if low >= LAYOUTS[largest.dtype].smallest_exponent - 1 else largest.double()
        layout = LAYOUTS[exact.dtype]
        bits = exact.view(layout.bits).bitwise_and(layout.exponent_mask)
        return bits.view(exact.dtype).clamp_(2.0**low, 2.0**high).to(largest.dtype)

    @property
    def _reachable(self) -> tuple[int, int]:
        low, high = self.exponent_range
        return (min(max(low, _SMALLEST_SCALE), _LARGEST_SCALE), max(min(high, _LARGEST_SCALE), _SMALLEST_SCALE))

    def describe(self) -> Description:
        """Over all scales that float32 holds."""
        low, high = self._reachable
        elements = self.elements
        step = max(math.ldexp(elements.smallest, low), 2.0**_SMALLEST_SCALE)
        return Description(
            math.ldexp(elements.minimum, high), math.ldexp(elements.maximum, high), step, step, elements.count()
        )


def shared_range(width: int, bias: int | None = None) -> tuple[int, int]:
    """Exponents that a biased field of `width` bits expresses; no code is special."""
    bias = default_bias(width) if bias is None else bias
    return -bias, 2**width - 1 - bias


@FORMATS.register("block_fp")
@dataclass(frozen=True)
class BlockFP(WidthFormat, SharedExponentFormat):
    """Block floating point: a sign and a mantissa an element, one exponent a block.

    Args:
        width: Bits of an element: the sign and the mantissa, 2 … 32.
        exponent_width: Bits of the shared exponent, 1 … 8.
        exponent_bias: Subtracted from the shared exponent's code; unset: `2^(exponent_width-1) - 1`.
        block_size: Elements of a block along `axis`, or `"1x16"` for blocks over several dimensions.
        axis: The dimension that blocks of one number lie along.
    """

    name: ClassVar[str] = "block_fp"
    formula: ClassVar[str] = "±2^E · m/2^(width-1), E = floor(log2 max|block|) + 1 shared"
    source: ClassVar[str] = "Darvish Rouhani et al. 2020 (MSFP), NeurIPS"
    exponent_width: int = 8
    exponent_bias: int | None = None

    def __post_init__(self) -> None:
        check_int("width", self.width, 2, MAX_WIDTH)
        check_int("exponent_width", self.exponent_width, 1, MAX_EXPONENT_WIDTH)
        resolve_bias(self, self.exponent_width, BIAS_RANGE)
        super().__post_init__()

    @property
    def shared_bits(self) -> int:
        return self.exponent_width

    @property
    def exponent_range(self) -> tuple[int, int]:
        """One below the shared exponent: mantissas are below 1."""
        low, high = shared_range(self.exponent_width, self.exponent_bias)
        return low - 1, high - 1

    def _make_elements(self) -> FixedGrid:
        top = 2 ** (self.width - 1) - 1
        return FixedGrid(-top, top, 2.0 ** (2 - self.width))


class SharedBiasFormat(WidthFormat, SharedExponentFormat):
    """Block formats that share an exponent bias of `exponent_bias_width` bits."""

    exponent_bias_width: int

    @property
    def shared_bits(self) -> int:
        return self.exponent_bias_width

    @property
    def exponent_range(self) -> tuple[int, int]:
        return shared_range(self.exponent_bias_width)


@FORMATS.register("block_minifloat")
@dataclass(frozen=True)
class BlockMinifloat(SharedBiasFormat):
    """Minifloats whose exponent bias is shared by the block, so that its largest element fits.

    Args:
        width: Bits of an element: sign, exponent and mantissa, up to 32.
        exponent_width: Bits of an element's exponent, 1 … 8.
        exponent_bias_width: Bits of the shared bias, 1 … 8. Its code tells the exponent T of the top
            binade, from -(2^(w-1) - 1) to 2^(w-1).
        block_size: Elements of a block along `axis`, or `"1x16"` for blocks over several dimensions.
        axis: The dimension that blocks of one number lie along.
    """

    name: ClassVar[str] = "block_minifloat"
    formula: ClassVar[str] = "minifloat_ieee with bias 2^exponent_width - 1 - T, T = floor(log2 max|block|)"
    source: ClassVar[str] = "Fox et al. 2021, Block Minifloat, ICLR"
    exponent_width: int
    exponent_bias_width: int = 8

    def __post_init__(self) -> None:
        check_int("exponent_width", self.exponent_width, 1, MAX_EXPONENT_WIDTH)
        check_int("width", self.width, 1 + self.exponent_width, MAX_WIDTH)
        check_int("exponent_bias_width", self.exponent_bias_width, 1, MAX_EXPONENT_WIDTH)
        super().__post_init__()

    def _make_elements(self) -> FloatGrid:
        fraction = self.width - self.exponent_width - 1
        return FloatGrid(fraction, 2 - 2**self.exponent_width, 2 - 2.0**-fraction)


@FORMATS.register("block_log")
@dataclass(frozen=True)
class BlockLog(SharedBiasFormat):
    """Powers of two (and zero) whose exponent bias is shared by the block.

    Args:
        width: Bits of an element: the sign and the exponent code, 2 … 32.
        exponent_bias_width: Bits of the shared bias, 1 … 8. Its code tells the exponent T of the
            largest power, from -(2^(w-1) - 1) to 2^(w-1).
        block_size: Elements of a block along `axis`, or `"1x16"` for blocks over several dimensions.
        axis: The dimension that blocks of one number lie along.
    """

    name: ClassVar[str] = "block_log"
    formula: ClassVar[str] = "±2^(T - d), d from 0 to 2^(width-1)-2, or 0; 2^T the power nearest max|block|"
    source: ClassVar[str] = "Miyashita et al. 2016, arXiv 1603.01025, with the bias shared by a block"
    exponent_bias_width: int = 8

    def __post_init__(self) -> None:
        check_int("width", self.width, 2, MAX_WIDTH)
        check_int("exponent_bias_width", self.exponent_bias_width, 1, MAX_EXPONENT_WIDTH)
        super().__post_init__()

    def _make_elements(self) -> FloatGrid:
        return FloatGrid(0, 2 - 2 ** (self.width - 1), 1.0)

    def _scales(self, largest: Tensor) -> Tensor:
        return super()._scales(largest * (4 / 3))
