"""Logarithmic numbers: powers of two, and zero."""

from dataclasses import dataclass, replace
from typing import ClassVar

from paretobit.formats.base import FORMATS, Description, WidthFormat
from paretobit.formats.checks import check_int
from paretobit.formats.grid import FloatGrid, float_grid
from paretobit.formats.minifloat import FloatingFormat, resolve_bias

MAX_WIDTH = 32


@FORMATS.register("log")
@dataclass(frozen=True)
class Log(WidthFormat, FloatingFormat):
    """Powers of two with a sign; the exponent code 0 is zero.

    Args:
        width: Bits of an element: the sign and the exponent code, 2 … 32.
        exponent_bias: Subtracted from the exponent code; unset: `2^(width-2) - 1`.
    """

    name: ClassVar[str] = "log"
    formula: ClassVar[str] = "±2^(e-bias), e from 1 to 2^(width-1)-1; 0 where e = 0"
    source: ClassVar[str] = "Miyashita et al. 2016, arXiv 1603.01025"
    exponent_bias: int | None = None

    def __post_init__(self) -> None:
        check_int("width", self.width, 2, MAX_WIDTH)
        resolve_bias(self, self.width - 1, (-126, 2**MAX_WIDTH))
        super().__post_init__()

    def describe(self) -> Description:
        """Range as far as float64 reaches, smallest value, and number of values."""
        return replace(super().describe(), codes=2**self.width - 1)

    def _make_grid(self) -> FloatGrid:
        assert self.exponent_bias is not None
        return float_grid(0, 1 - self.exponent_bias, 2 ** (self.width - 1) - 1 - self.exponent_bias)
