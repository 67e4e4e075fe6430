"""Small floating point: a sign, an exponent and a mantissa in a few bits; and the standard ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from paretobit.formats.base import FORMATS, GridFormat, LossyFormat, Traits, WidthFormat
from paretobit.formats.checks import check_int
from paretobit.formats.grid import FloatGrid, float_grid
from paretobit.formats.partition import in_slices

MAX_WIDTH = 32
MAX_EXPONENT_WIDTH = 8
BIAS_RANGE = (-126, 400)


def default_bias(exponent_width: int) -> int:
    """The bias that puts 1 in the middle of the exponents: `2^(exponent_width - 1) - 1`."""
    return int(2 ** (exponent_width - 1)) - 1


def resolve_bias(number_format: LossyFormat, exponent_width: int, allowed: tuple[int, int]) -> None:
    """Give an unset `exponent_bias` its default while a format is made, and check one that is set."""
    if vars(number_format)["exponent_bias"] is None:
        object.__setattr__(number_format, "exponent_bias", default_bias(exponent_width))
    check_int("exponent_bias", vars(number_format)["exponent_bias"], *allowed)


@dataclass(frozen=True)
class FloatingFormat(GridFormat):
    """What every format on a `FloatGrid` shares; zero is one value, whatever codes it has."""

    grid: FloatGrid = field(init=False, repr=False, compare=False)

    @property
    def traits(self) -> Traits:
        """A sign bit makes them odd."""
        return Traits(has_zero=True, symmetric=True)

    def _round(self, x: Tensor) -> Tensor:
        return in_slices(self.grid.round, x, (1,))


@dataclass(frozen=True)
class Minifloat(WidthFormat, FloatingFormat):
    """The parameters of a minifloat.

    Args:
        width: Bits of an element, sign, exponent and mantissa, up to 32.
        exponent_width: Bits of the exponent, 1 … 8.
        exponent_bias: Subtracted from the exponent code; unset: `2^(exponent_width-1) - 1`.
    """

    exponent_width: int
    exponent_bias: int | None = None
    _smallest_mantissa: ClassVar[int]

    def __post_init__(self) -> None:
        check_int("exponent_width", self.exponent_width, 1, MAX_EXPONENT_WIDTH)
        check_int("width", self.width, 1 + self.exponent_width + self._smallest_mantissa, MAX_WIDTH)
        resolve_bias(self, self.exponent_width, BIAS_RANGE)
        super().__post_init__()

    @property
    def mantissa_width(self) -> int:
        """Bits of the mantissa."""
        return self.width - self.exponent_width - 1


@FORMATS.register("minifloat_ieee")
@dataclass(frozen=True)
class MinifloatIEEE(Minifloat):
    """Minifloat with an implicit leading bit and subnormals; every exponent code is a number.

    Args:
        width: Bits of an element: sign, exponent and mantissa, up to 32.
        exponent_width: Bits of the exponent, 1 … 8.
        exponent_bias: Subtracted from the exponent code; unset: `2^(exponent_width-1) - 1`.
    """

    name: ClassVar[str] = "minifloat_ieee"
    formula: ClassVar[str] = "±2^(e-bias) · (1 + m/2^M); ±2^(1-bias) · m/2^M where e = 0"
    source: ClassVar[str] = "IEEE 754 without infinities and NaN"
    _smallest_mantissa: ClassVar[int] = 0

    def _make_grid(self) -> FloatGrid:
        assert self.exponent_bias is not None
        highest = 2**self.exponent_width - 1 - self.exponent_bias
        return float_grid(self.mantissa_width, 1 - self.exponent_bias, highest)


@FORMATS.register("minifloat_denorm")
@dataclass(frozen=True)
class MinifloatDenorm(Minifloat):
    """Minifloat without an implicit leading bit: the mantissa is a fraction below 1.

    Args:
        width: Bits of an element: sign, exponent and mantissa (at least one bit), up to 32.
        exponent_width: Bits of the exponent, 1 … 8.
        exponent_bias: Subtracted from the exponent code; unset: `2^(exponent_width-1) - 1`.
    """

    name: ClassVar[str] = "minifloat_denorm"
    formula: ClassVar[str] = "±2^(e-bias) · m/2^M"
    source: ClassVar[str] = "the reports' minifloat without a leading bit"
    _smallest_mantissa: ClassVar[int] = 1

    def _make_grid(self) -> FloatGrid:
        assert self.exponent_bias is not None
        # Its binades: of exponent code e, the numbers with the first mantissa bit set, 2^(e-bias-1) up.
        highest = 2**self.exponent_width - 2 - self.exponent_bias
        return float_grid(self.mantissa_width - 1, -1 - self.exponent_bias, highest)


@dataclass(frozen=True)
class StandardFloat(FloatingFormat):
    """A floating-point format that a standard fixes; saturating, without its infinities and NaN."""

    exponent_width: ClassVar[int]
    mantissa_width: ClassVar[int]
    largest: ClassVar[float]

    @property
    def element_bits(self) -> int:
        return 1 + self.exponent_width + self.mantissa_width

    def _make_grid(self) -> FloatGrid:
        return FloatGrid(self.mantissa_width, 1 - default_bias(self.exponent_width), self.largest)


@FORMATS.register("fp8_e4m3")
@dataclass(frozen=True)
class FP8E4M3(StandardFloat):
    """8-bit float, 4 exponent bits, largest value 448."""

    name: ClassVar[str] = "fp8_e4m3"
    formula: ClassVar[str] = "±2^(e-7) · (1 + m/8), subnormals below 2^-6; up to 448"
    source: ClassVar[str] = "OCP 8-bit Floating Point Specification 1.0"
    exponent_width, mantissa_width, largest = 4, 3, 448.0


@FORMATS.register("fp8_e5m2")
@dataclass(frozen=True)
class FP8E5M2(StandardFloat):
    """8-bit float, 5 exponent bits, largest value 57344."""

    name: ClassVar[str] = "fp8_e5m2"
    formula: ClassVar[str] = "±2^(e-15) · (1 + m/4), subnormals below 2^-14; up to 57344"
    source: ClassVar[str] = "OCP 8-bit Floating Point Specification 1.0"
    exponent_width, mantissa_width, largest = 5, 2, 57344.0


@FORMATS.register("fp6_e3m2")
@dataclass(frozen=True)
class FP6E3M2(StandardFloat):
    """6-bit float, 3 exponent bits, largest value 28."""

    name: ClassVar[str] = "fp6_e3m2"
    formula: ClassVar[str] = "±2^(e-3) · (1 + m/4), subnormals below 1/4; up to 28"
    source: ClassVar[str] = "OCP Microscaling Formats Specification 1.0"
    exponent_width, mantissa_width, largest = 3, 2, 28.0


@FORMATS.register("fp6_e2m3")
@dataclass(frozen=True)
class FP6E2M3(StandardFloat):
    """6-bit float, 2 exponent bits, largest value 7.5."""

    name: ClassVar[str] = "fp6_e2m3"
    formula: ClassVar[str] = "±2^(e-1) · (1 + m/8), subnormals below 1; up to 7.5"
    source: ClassVar[str] = "OCP Microscaling Formats Specification 1.0"
    exponent_width, mantissa_width, largest = 2, 3, 7.5


@FORMATS.register("fp4_e2m1")
@dataclass(frozen=True)
class FP4E2M1(StandardFloat):
    """4-bit float: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives."""

    name: ClassVar[str] = "fp4_e2m1"
    formula: ClassVar[str] = "±{0, 0.5, 1, 1.5, 2, 3, 4, 6}"
    source: ClassVar[str] = "OCP Microscaling Formats Specification 1.0"
    exponent_width, mantissa_width, largest = 2, 1, 6.0


@FORMATS.register("bf16")
@dataclass(frozen=True)
class BF16(StandardFloat):
    """bfloat16: the exponent of float32 with 7 mantissa bits."""

    name: ClassVar[str] = "bf16"
    formula: ClassVar[str] = "±2^(e-127) · (1 + m/128), subnormals below 2^-126; up to 3.39e38"
    source: ClassVar[str] = "the upper half of IEEE 754 binary32"
    exponent_width, mantissa_width, largest = 8, 7, 255 * 2.0**120


@FORMATS.register("fp16")
@dataclass(frozen=True)
class FP16(StandardFloat):
    """IEEE half precision, largest value 65504."""

    name: ClassVar[str] = "fp16"
    formula: ClassVar[str] = "±2^(e-15) · (1 + m/1024), subnormals below 2^-14; up to 65504"
    source: ClassVar[str] = "IEEE 754 binary16"
    exponent_width, mantissa_width, largest = 5, 10, 65504.0
