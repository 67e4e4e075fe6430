"""Rounding to a grid of numbers: the arithmetic that every format is made of.

A grid works on any scale: an element format uses it as it is, a block format on values divided by
the scale of their block. In-place operations only, and the same operations eager and compiled, so
both give the same bits.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from paretobit.errors import BadInput

Rounding = Literal["nearest", "floor", "stochastic"]


class Layout(NamedTuple):
    """Where things lie in the bits of a floating-point type."""

    bits: torch.dtype
    exponent_mask: int
    fraction_bits: int
    magic_bits: int  # of 1.5 × 2^fraction_bits: its last bit is worth one
    smallest_exponent: int
    largest: float

    @property
    def magic(self) -> float:
        """Adding and subtracting it rounds to integers, ties to even."""
        return 1.5 * 2.0**self.fraction_bits


LAYOUTS = {
    torch.float32: Layout(torch.int32, 0x7F800000, 23, 0x4B400000, -126, torch.finfo(torch.float32).max),
    torch.float64: Layout(
        torch.int64, 0x7FF0000000000000, 52, 0x4338000000000000, -1022, torch.finfo(torch.float64).max
    ),
}


SMALLEST = 2.0**-149
"""The smallest positive number of float32."""


def lifted(x: Tensor) -> Tensor:
    """`x` times so much that all but zero (and NaN) is at least 1 in magnitude, as a new tensor.

    Clamped it is the sign, with NaN where `torch.sign` and comparisons have 0: several times faster
    than masks.
    """
    lift = 2.0 ** -(LAYOUTS[x.dtype].smallest_exponent - 1)
    return x.mul(lift).mul_(lift)  # twice: so the smallest subnormal reaches 1


def limited_(codes: Tensor, low: float, high: float) -> Tensor:
    """`codes` from `low` to `high`, in place where possible; zeros keep their sign.

    Where a bound is zero, a compiled `clamp` gives zeros the sign of the bound, an eager one does not.
    """
    if torch.compiler.is_compiling() and (low == 0 or high == 0):
        codes = torch.where(codes < low, low, codes)
        return torch.where(codes > high, high, codes)
    return codes.clamp_(low, high)


class Grid(Protocol):
    """A set of values around zero."""

    @property
    def minimum(self) -> float:
        """The smallest value."""

    @property
    def maximum(self) -> float:
        """The largest value."""

    @property
    def smallest(self) -> float:
        """The smallest positive value, which is the smallest step."""

    def count(self) -> int:
        """How many values there are."""

    def round_(self, y: Tensor, sign: Tensor) -> Tensor:
        """Round `y` (float32 or float64) in place where possible; `sign` holds the signs of zeros."""

    def values(self) -> Iterator[float]:
        """Every value, ascending."""


@dataclass(frozen=True)
class FixedGrid:
    """Multiples of one step: `code × step` for `low ≤ code ≤ high`.

    A grid wider than the significand of the dtype (24 bits in float32), or reaching above its
    largest number, means those of its points that the dtype holds.
    """

    low: int
    high: int
    step: float

    def __post_init__(self) -> None:
        held = {dtype: (self._held(self.low, dtype), self._held(self.high, dtype)) for dtype in LAYOUTS}
        object.__setattr__(self, "_bounds", held)

    def _held(self, code: int, dtype: torch.dtype) -> float:
        """The outermost code that the dtype holds, both as a code and as a value."""
        layout = LAYOUTS[dtype]
        size = min(abs(code), int(layout.largest / max(self.step, 1.0)))
        excess = max(size.bit_length() - layout.fraction_bits - 1, 0)
        return math.copysign(float(size >> excess << excess), code)

    @property
    def minimum(self) -> float:
        """The smallest value."""
        return self.low * self.step

    @property
    def maximum(self) -> float:
        """The largest value."""
        return self.high * self.step

    @property
    def smallest(self) -> float:
        """The step."""
        return self.step

    def count(self) -> int:
        """How many values there are."""
        return self.high - self.low + 1

    def round(self, x: Tensor, rounding: Rounding = "nearest") -> Tensor:
        """The grid value for each element of `x`, as a new tensor."""
        if rounding == "floor" and self.step > 1:  # first of `x`, so that no small number is lost below zero
            x = x.floor()
        return self._finish_(torch.mul(x, 1.0 / self.step), rounding)

    def round_(self, y: Tensor, sign: Tensor) -> Tensor:
        """Round in place to the nearest."""
        return self._finish_(y.mul_(1.0 / self.step), "nearest")

    def _finish_(self, codes: Tensor, rounding: Rounding) -> Tensor:
        low, high = self._bounds[codes.dtype]  # type: ignore[attr-defined]
        if rounding == "nearest":
            codes.round_()
        elif rounding == "floor":
            codes.floor_()
        else:
            below = codes.floor()
            codes = codes.sub_(below).gt_(torch.rand_like(codes)).add_(below)
        return limited_(codes, low, high).mul_(self.step)

    def values(self) -> Iterator[float]:
        """Every value, ascending."""
        return (code * self.step for code in range(self.low, self.high + 1))


@dataclass(frozen=True)
class FloatGrid:
    """Multiples of a step that doubles with every binade, of either sign.

    Binade k holds the numbers from 2^k to 2^(k+1) and has the step 2^(k - fraction). Below
    2^lowest the step stays what it is there: the subnormals.

    Args:
        fraction: Bits behind the leading one.
        lowest: The lowest binade.
        maximum: The largest value; itself on the grid.
    """

    fraction: int
    lowest: int
    maximum: float

    def __post_init__(self) -> None:
        held = {dtype: self._held(dtype) for dtype in LAYOUTS}
        object.__setattr__(self, "_limits", held)
        # Narrow enough for the arithmetic of float32; lowest < 2^-126 would underflow there.
        narrow = self.fraction <= 21 and self.lowest >= LAYOUTS[torch.float32].smallest_exponent
        object.__setattr__(self, "_narrow", narrow)

    def _held(self, dtype: torch.dtype) -> float:
        """The largest value that the dtype holds."""
        layout = LAYOUTS[dtype]
        mantissa, exponent = math.frexp(min(self.maximum, layout.largest))
        bits = min(self.fraction, layout.fraction_bits) + 1
        return math.ldexp(math.floor(math.ldexp(mantissa, bits)), exponent - bits)

    @property
    def highest(self) -> int:
        """The highest binade."""
        return math.frexp(self.maximum)[1] - 1

    @property
    def minimum(self) -> float:
        """The smallest value."""
        return -self.maximum

    @property
    def smallest(self) -> float:
        """The smallest positive value, as far as float64 reaches."""
        return math.ldexp(1.0, max(self.lowest - self.fraction, -1074))

    def round(self, x: Tensor) -> Tensor:
        """The nearest grid value for each element of `x`, as a new tensor; ties go to the even code."""
        limit = self._limits[x.dtype]  # type: ignore[attr-defined]
        return self._finish_(x.clamp(-limit, limit), x)

    def round_(self, y: Tensor, sign: Tensor) -> Tensor:
        """Round in place (in float64 where float32 is too narrow); zeros keep the sign they have in `sign`."""
        limit = self._limits[y.dtype]  # type: ignore[attr-defined]
        return self._finish_(y.clamp_(-limit, limit), sign)

    def _finish_(self, y: Tensor, sign: Tensor) -> Tensor:
        if self._narrow or y.dtype == torch.float64:  # type: ignore[attr-defined]
            return self._nearest_(y).copysign_(sign)
        return y.copy_(self._nearest_(y.double())).copysign_(sign)

    def _nearest_(self, y: Tensor) -> Tensor:
        layout = LAYOUTS[y.dtype]
        lowest = max(self.lowest, layout.smallest_exponent)
        exponents = y.view(layout.bits).bitwise_and(layout.exponent_mask)
        power = exponents.view(y.dtype).clamp_(min=2.0**lowest)  # 2^k of the binade of each element
        if self.fraction:
            magic: float | Tensor = layout.magic * 2.0**-self.fraction
        else:  # codes are exponents: the number added is odd where the even neighbour is the lower one
            parity = power.view(layout.bits).bitwise_right_shift(layout.fraction_bits).bitwise_and_(1)
            odd_at_lowest = (self.lowest + layout.smallest_exponent + 1) & 1
            magic = parity.bitwise_xor_(layout.magic_bits | odd_at_lowest).view(y.dtype)
        return y.div_(power).add_(magic).sub_(magic).mul_(power)

    def count(self) -> int:
        """How many values there are."""
        per_binade = 2**self.fraction
        in_top_binade = int(math.ldexp(self.maximum, self.fraction - self.highest)) - per_binade + 1
        below = per_binade - 1 + (self.highest - self.lowest) * per_binade
        return int(2 * (below + in_top_binade) + 1)

    def values(self) -> Iterator[float]:
        """Every value, ascending, zero once."""
        positive = list(self._positive())
        yield from (-value for value in reversed(positive))
        yield 0.0
        yield from positive

    def _positive(self) -> Iterator[float]:
        per_binade = 2**self.fraction
        for code in range(1, per_binade):
            yield math.ldexp(code, self.lowest - self.fraction)
        for k in range(self.lowest, self.highest + 1):
            for code in range(per_binade, 2 * per_binade):
                value = math.ldexp(code, k - self.fraction)
                if value > self.maximum:
                    return
                if value:  # a float64 number
                    yield value


def check_reach(lowest: int, highest: int) -> None:
    """Refuse binades of which float32 holds none."""
    if highest < -126 or lowest > 127:
        raise BadInput(
            "no value of this format is a float32 number",
            key="exponent_bias",
            allowed="a bias that leaves values between 2^-126 and 2^127",
        )


def float_grid(fraction: int, lowest: int, highest: int, top_code: int | None = None) -> FloatGrid:
    """The grid of the binades `lowest` to `highest`.

    Args:
        top_code: Largest significand in the highest binade, in steps; unset: the last one.

    Raises:
        BadInput: No dtype holds any of its values.
    """
    top = top_code if top_code is not None else 2 ** (fraction + 1) - 1
    check_reach(lowest, highest)
    largest_exponent = min(highest, 1023)
    return FloatGrid(fraction, lowest, math.ldexp(top, largest_exponent - fraction))
