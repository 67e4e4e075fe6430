"""Integer fixed point: `code × 2^-frac_width`, codes in two's complement or unsigned."""

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from paretobit.formats.base import FORMATS, GridFormat, Traits, WidthFormat
from paretobit.formats.checks import check_bool, check_choice, check_int
from paretobit.formats.grid import FixedGrid, Rounding

MAX_WIDTH = 64
MAX_FRAC_WIDTH = 120  # 2^±120 and its products with values below 1 stay within float32


@FORMATS.register("integer")
@dataclass(frozen=True)
class Integer(WidthFormat, GridFormat):
    """Integer fixed point: width bits, frac_width of them behind the binary point.

    Args:
        width: Bits of an element, 1 … 64.
        frac_width: Fractional bits, -120 … 120; unset: `width // 2`. It may exceed `width`
            (all codes below 1) or be negative (steps above 1).
        signed: Two's complement, codes -2^(w-1) … 2^(w-1)-1; otherwise 0 … 2^w-1.
        rounding: `nearest` (ties to even), `floor`, or `stochastic`: up with a probability equal to
            the distance from the value below, from torch's random stream (Gupta et al. 2015).

    A grid wider than the significand of the dtype (24 bits in float32), or reaching above its
    largest number, means those of its points that the dtype holds.
    """

    name: ClassVar[str] = "integer"
    formula: ClassVar[str] = "c · 2^-frac_width, c from -2^(width-1) to 2^(width-1)-1; unsigned: 0 to 2^width-1"
    source: ClassVar[str] = "two's complement fixed point"
    frac_width: int | None = None
    signed: bool = True
    rounding: Rounding = "nearest"
    grid: FixedGrid = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.frac_width is None and type(self.width) is int:
            object.__setattr__(self, "frac_width", self.width // 2)
        check_int("width", self.width, 1, MAX_WIDTH)
        check_int("frac_width", self.frac_width, -MAX_FRAC_WIDTH, MAX_FRAC_WIDTH)
        check_bool("signed", self.signed)
        check_choice("rounding", self.rounding, Rounding)
        super().__post_init__()

    @property
    def traits(self) -> Traits:
        """Zero is a code; two's complement reaches one code further below zero than above."""
        nearest = self.rounding == "nearest"
        return Traits(has_zero=True, symmetric=False, deterministic=self.rounding != "stochastic", nearest=nearest)

    @property
    def step(self) -> float:
        """Distance between neighbouring values: `2^-frac_width`."""
        return 2.0 ** -(self.frac_width or 0)

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code."""
        if self.signed:
            return -(2 ** (self.width - 1)), 2 ** (self.width - 1) - 1
        return 0, 2**self.width - 1

    def _make_grid(self) -> FixedGrid:
        return FixedGrid(*self.code_range, self.step)

    def _round(self, x: Tensor) -> Tensor:
        return self.grid.round(x, self.rounding)
