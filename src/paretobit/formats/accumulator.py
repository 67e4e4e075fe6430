"""The accumulator of a dot product: what integer formats need so that no sum overflows."""

from paretobit.formats.base import FULL, Format
from paretobit.formats.integer import MAX_FRAC_WIDTH, MAX_WIDTH, Integer


def bits_for(low: int, high: int) -> int:
    """Bits of the two's complement code that holds `low` to `high`; unsigned where nothing is below 0.

    >>> bits_for(-128, 127), bits_for(-128, 128), bits_for(0, 255)
    (8, 9, 8)
    """
    if low >= 0:
        return max(high.bit_length(), 1)
    return max((-low - 1).bit_length(), high.bit_length()) + 1


def sum_range(data: Integer, weight: Integer, terms: int) -> tuple[int, int]:
    """The smallest and largest code that a sum of `terms` products can have."""
    products = [d * w for d in data.code_range for w in weight.code_range]
    return terms * min(products), terms * max(products)


def accumulator(data: Format, weight: Format, terms: int) -> Format:
    """The format in which a dot product of `terms` products is exact.

    For integers the one with the fractional bits of a product and the width that the most extreme
    sum needs. Everything else accumulates in float32; so do integers beyond 64 bits.

    >>> accumulator(Integer(8, 4), Integer(8, 6), terms=16)
    Integer(width=20, frac_width=10, signed=True, rounding='nearest')
    """
    if not isinstance(data, Integer) or not isinstance(weight, Integer):
        return FULL
    low, high = sum_range(data, weight, terms)
    width = bits_for(low, high)
    frac_width = (data.frac_width or 0) + (weight.frac_width or 0)
    if width > MAX_WIDTH or abs(frac_width) > MAX_FRAC_WIDTH:
        return FULL
    return Integer(width, frac_width, signed=low < 0)
