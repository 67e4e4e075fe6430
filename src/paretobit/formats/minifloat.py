"""Small floating point: a sign, an exponent and a mantissa in a few bits; and the standard ones."""

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


def _standard(
    name: str, exponent_width: int, mantissa_width: int, largest: float, source: str, summary: str
) -> type[StandardFloat]:
    """The class of a standard format, `FP8E4M3` for `fp8_e4m3`."""
    bias, step = default_bias(exponent_width), 2**mantissa_width
    members = {
        "__module__": __name__,
        "__doc__": summary,
        "name": name,
        "formula": f"±2^(e-{bias}) · (1 + m/{step}), subnormals below 2^{1 - bias}; up to {largest:.5g}",
        "source": source,
        "exponent_width": exponent_width,
        "mantissa_width": mantissa_width,
        "largest": largest,
    }
    made: type[StandardFloat] = dataclass(frozen=True)(type(name.replace("_", "").upper(), (StandardFloat,), members))
    FORMATS.register(name)(made)
    return made


_FP8, _MX = "OCP 8-bit Floating Point Specification 1.0", "OCP Microscaling Formats Specification 1.0"
_HALF, _UPPER = "IEEE 754 binary16", "the upper half of IEEE 754 binary32"
FP8E4M3 = _standard("fp8_e4m3", 4, 3, 448.0, _FP8, "8-bit float, 4 exponent bits, largest value 448.")
FP8E5M2 = _standard("fp8_e5m2", 5, 2, 57344.0, _FP8, "8-bit float, 5 exponent bits, largest value 57344.")
FP6E3M2 = _standard("fp6_e3m2", 3, 2, 28.0, _MX, "6-bit float, 3 exponent bits, largest value 28.")
FP6E2M3 = _standard("fp6_e2m3", 2, 3, 7.5, _MX, "6-bit float, 2 exponent bits, largest value 7.5.")
FP4E2M1 = _standard("fp4_e2m1", 2, 1, 6.0, _MX, "4-bit float: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives.")
BF16 = _standard("bf16", 8, 7, 255 * 2.0**120, _UPPER, "bfloat16: float32's exponent, 7 mantissa bits.")
FP16 = _standard("fp16", 5, 10, 65504.0, _HALF, "IEEE half precision, largest value 65504.")
