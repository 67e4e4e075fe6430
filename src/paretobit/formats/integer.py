"""Integer fixed point: `code × 2^-frac_width`, codes in two's complement or unsigned."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from paretobit.errors import BadInput
from paretobit.formats.base import FORMATS, Description, Format, Traits

Rounding = Literal["nearest", "floor"]
MAX_WIDTH = 64
MAX_FRAC_WIDTH = 120  # 2^±120 and its products with values below 1 stay within float32
_ENUMERABLE_WIDTH = 12


@FORMATS.register("integer")
@dataclass(frozen=True)
class Integer(Format):
    """Integer fixed point: width bits, frac_width of them behind the binary point.

    Args:
        width: Bits of an element, 1 … 64.
        frac_width: Fractional bits, -120 … 120; unset: `width // 2`. It may exceed `width`
            (all codes below 1) or be negative (steps above 1).
        signed: Two's complement, codes -2^(w-1) … 2^(w-1)-1; otherwise 0 … 2^w-1.
        rounding: `nearest` (ties to even) or `floor`.

    A grid wider than the significand of the dtype (24 bits in float32), or reaching above its
    largest number, means those of its points that the dtype holds. A number so small that the dtype
    does not hold `x · 2^frac_width` counts as zero.
    """

    name: ClassVar[str] = "integer"
    width: int
    frac_width: int | None = None
    signed: bool = True
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        if self.frac_width is None and type(self.width) is int:
            object.__setattr__(self, "frac_width", self.width // 2)
        _check_int("width", self.width, 1, MAX_WIDTH)
        _check_int("frac_width", self.frac_width, -MAX_FRAC_WIDTH, MAX_FRAC_WIDTH)
        if not isinstance(self.signed, bool):
            raise BadInput("signed is true or false", key="signed", found=self.signed)
        if self.rounding not in get_args(Rounding):
            raise BadInput("unknown rounding", key="rounding", found=self.rounding, allowed=get_args(Rounding))

    @property
    def traits(self) -> Traits:
        """Zero is a code; rounding to the nearest is odd, flooring is not."""
        return Traits(has_zero=True, symmetric=self.signed and self.rounding == "nearest")

    @property
    def element_bits(self) -> int:
        """`width`."""
        return self.width

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

    def describe(self) -> Description:
        """Range, step and number of codes."""
        low, high = self.code_range
        return Description(low * self.step, high * self.step, self.step, self.step, 2**self.width)

    def codes(self) -> Tensor:
        """Every value, ascending, float64; up to 12 bits."""
        if self.width > _ENUMERABLE_WIDTH:
            return super().codes()
        low, high = self.code_range
        return torch.arange(low, high + 1, dtype=torch.float64) * self.step

    def _round(self, x: Tensor) -> Tensor:
        low, high = _bounds(self, x.dtype)
        codes = torch.mul(x, 1.0 / self.step)
        codes = codes.round_() if self.rounding == "nearest" else codes.floor_()
        return codes.clamp_(low, high).mul_(self.step)


@functools.cache
def _bounds(integer: Integer, dtype: torch.dtype) -> tuple[float, float]:
    """The outermost codes that the dtype holds, both as a code and as a value."""
    significand = 24 if dtype == torch.float32 else 53
    largest = int(torch.finfo(dtype).max / integer.step if integer.step > 1 else torch.finfo(dtype).max)

    def held(code: int) -> float:
        size = min(abs(code), largest)
        excess = max(size.bit_length() - significand, 0)
        return float(size >> excess << excess) * (-1 if code < 0 else 1)

    low, high = integer.code_range
    return held(low), held(high)


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        problem = f"{name} is out of range" if type(value) is int else f"{name} is not an integer"
        raise BadInput(problem, key=name, found=value, allowed=f"{low} to {high}")
