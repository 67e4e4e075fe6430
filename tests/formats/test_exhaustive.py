"""Every element format of up to 10 bits against an enumeration of its values from the definition.

Every code, every midpoint between two codes, what lies beyond the largest, and the neighbours of all of
them in the dtype, of both signs, in float32 and float64. A grid may reach beyond the largest number of
float32: there the largest point that the dtype holds saturates, and points beyond do not count.
"""

import math

import numpy as np
import pytest
import torch

from paretobit.errors import BadInput
from paretobit.formats import (
    BF16,
    FP4E2M1,
    FP6E2M3,
    FP6E3M2,
    FP8E4M3,
    FP8E5M2,
    FP16,
    Binary,
    Integer,
    Log,
    MinifloatDenorm,
    MinifloatIEEE,
    ScaledInteger,
    Ternary,
)

BIASES = (None, 0, 3, 7, 15, -5, 100)


def power(exponent):
    return math.ldexp(1.0, exponent)


def integer_values(width, frac_width, signed):
    low, high = (-(2 ** (width - 1)), 2 ** (width - 1)) if signed else (0, 2**width)
    return [code * power(-frac_width) for code in range(low, high)]


def ieee_magnitudes(width, exponent_width, bias):
    """One value a code: exponent code E, mantissa M, in the order of the codes."""
    m = width - 1 - exponent_width
    codes = [(code >> m, code & (2**m - 1)) for code in range(2 ** (width - 1))]
    return [M * power(1 - bias - m) if E == 0 else (2**m + M) * power(E - bias - m) for E, M in codes]


def denorm_magnitudes(width, exponent_width, bias):
    """Several codes can have one value."""
    m = width - 1 - exponent_width
    return sorted({M * power(E - bias - m) for E in range(2**exponent_width) for M in range(2**m)})


def log_magnitudes(width, bias):
    return [0.0] + [power(E - bias) for E in range(1, 2 ** (width - 1))]


def standard_magnitudes(exponent_width, mantissa_width, largest):
    bias = 2 ** (exponent_width - 1) - 1
    width = 1 + exponent_width + mantissa_width
    return [v for v in ieee_magnitudes(width, exponent_width, bias) if v <= largest]


def mirrored(magnitudes):
    return sorted({-v for v in magnitudes} | set(magnitudes))


def build(family, *args):
    """The format, or None where none of its values is a float32 number (refused with a reason)."""
    try:
        return family(*args)
    except BadInput as error:
        if "no value of this format is a float32 number (exponent_bias)" not in str(error):
            raise
        return None


def integers():
    for width in range(1, 11):
        for frac_width in (-120, -3, 0, width // 2, width, width + 4, 120):
            for signed in (True, False):
                yield Integer(width, frac_width, signed), integer_values(width, frac_width, signed)


def minifloats():
    for width in range(2, 11):
        for exponent_width in range(1, min(width, 9)):
            for bias in BIASES:
                resolved = 2 ** (exponent_width - 1) - 1 if bias is None else bias
                f = build(MinifloatIEEE, width, exponent_width, bias)
                yield f, f and mirrored(ieee_magnitudes(width, exponent_width, resolved))
                if width - exponent_width > 1:
                    f = build(MinifloatDenorm, width, exponent_width, bias)
                    yield f, f and mirrored(denorm_magnitudes(width, exponent_width, resolved))


def logs():
    for width in range(2, 11):
        for bias in BIASES:
            resolved = 2 ** (width - 2) - 1 if bias is None else bias
            f = build(Log, width, bias)
            yield f, f and mirrored(log_magnitudes(width, resolved))


def standards():
    yield FP8E4M3(), mirrored(standard_magnitudes(4, 3, 448))
    yield FP8E5M2(), mirrored(standard_magnitudes(5, 2, 57344))
    yield FP6E3M2(), mirrored(standard_magnitudes(3, 2, 28))
    yield FP6E2M3(), mirrored(standard_magnitudes(2, 3, 7.5))
    yield FP4E2M1(), mirrored([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    yield Ternary(threshold=0.5, scaling=False), [-1, 0, 1]  # its midpoints are the threshold: 0 at a tie


def scaled_integers():
    """Scales that are powers of two, so that dividing by them rounds nothing."""
    for width in range(2, 11):
        for exponent in (-7, 0, 5):
            s, top = power(exponent), 2 ** (width - 1) - 1
            yield ScaledInteger(width, scale=s), [c * s for c in range(-top, top + 1)]
            yield ScaledInteger(width, signed=False, scale=s), [c * s for c in range(2**width)]
            for signed, low in ((True, -top - 1), (False, 0)):
                for point in (low, low + 2 ** (width - 1), low + 2**width - 1):
                    f = ScaledInteger(width, signed, symmetric=False, scale=s, zero_point=point)
                    yield f, [(c - point) * s for c in range(low, low + 2**width)]


FAMILIES = [integers, minifloats, logs, standards, scaled_integers]


def wanted(x, values):
    """The nearest of some values with zero among them, ties to those at even places counted from zero."""
    zero = int(np.flatnonzero(values == 0)[0])
    inside = np.clip(x, values[0], values[-1])
    above = np.searchsorted(values, inside)
    below = np.maximum(above - 1, 0)
    down, up = inside - values[below], values[above] - inside
    takes_upper = (up < down) | ((up == down) & ((above - zero) % 2 == 0))
    return np.where(takes_upper, values[above], values[below])


def points(values, dtype):
    with np.errstate(over="ignore"):
        middle = values[1:] / 2 + values[:-1] / 2
        x = np.concatenate([values, middle, values[[0, -1]] * 1.25, values[[0, -1]] * 1e9, [np.inf, -np.inf]])
        x = x.astype(dtype)
        x = np.concatenate([x, np.nextafter(x, dtype(np.inf)), np.nextafter(x, dtype(-np.inf))])
    return np.unique(np.concatenate([x, -x]))


def disagreements(f, values):
    """How a format differs from the list of its values."""
    found = []
    values = np.array(values, dtype=np.float64) + 0.0  # -0 + 0 is 0
    assert np.array_equal(f.codes().numpy(), values), f
    for dtype in (np.float32, np.float64):
        held = values[np.abs(values) <= np.finfo(dtype).max]
        x = points(held, dtype)
        expected = wanted(x.astype(np.float64), held).astype(dtype)
        got = f.quantize(torch.from_numpy(x)).numpy()
        wrong = np.flatnonzero(got != expected)
        found += [(str(f), dtype.__name__, float(x[i]), float(expected[i]), float(got[i])) for i in wrong[:3]]
    return found


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_every_code_midpoint_and_neighbour_goes_to_the_nearest_value_with_ties_to_even(family):
    found, tried = [], 0
    for f, values in family():
        if f is not None:
            found += disagreements(f, values)
            tried += 1
    assert found == []
    assert tried >= 6


def test_more_than_three_hundred_combinations_are_checked():
    formats = {str(f) for family in FAMILIES for f, _ in family() if f is not None}
    assert len(formats) >= 300
    assert sum(text.startswith("minifloat_") for text in formats) >= 300
    refused = sum(f is None for family in FAMILIES for f, _ in family())
    assert refused < 60


@pytest.mark.parametrize(
    ("f", "magnitudes"),
    [
        (MinifloatIEEE(12, 5), ieee_magnitudes(12, 5, 15)),
        (MinifloatDenorm(12, 4), denorm_magnitudes(12, 4, 7)),
        (MinifloatDenorm(11, 8, 100), denorm_magnitudes(11, 8, 100)),
        (Log(11), log_magnitudes(11, 511)),
    ],
    ids=str,
)
def test_twelve_bits_are_enumerated_and_exact_too(f, magnitudes):
    assert disagreements(f, mirrored(magnitudes)) == []


@pytest.mark.parametrize(("f", "largest", "m"), [(FP16(), 65504.0, 10), (BF16(), 255 * power(120), 7)], ids=str)
def test_sixteen_bits_are_exact_at_all_their_values_too(f, largest, m):
    exponent_width = 15 - m
    values = np.array(mirrored(standard_magnitudes(exponent_width, m, largest)))
    assert len(values) == f.describe().codes
    assert f.describe().maximum == values[-1]
    for dtype in (np.float32, np.float64):
        x = points(values, dtype)
        got = f.quantize(torch.from_numpy(x)).numpy()
        assert np.array_equal(got, wanted(x.astype(np.float64), values).astype(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sign_is_that_of_the_number_and_zero_counts_as_positive(dtype):
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    x = torch.tensor([-math.inf, -3e38, -1, -tiny, -0.0, 0.0, tiny, 1, 3e38, math.inf], dtype=dtype)
    assert Binary().quantize(x).tolist() == [-1] * 4 + [1] * 6
    assert Binary(bipolar=False).quantize(x).tolist() == [0] * 6 + [1] * 4
    assert Binary().codes().tolist() == [-1, 1]
    assert Binary(bipolar=False).codes().tolist() == [0, 1]


@pytest.mark.parametrize("f", [Integer(13), MinifloatIEEE(13, 5), Log(13), FP16(), BF16(), ScaledInteger(8)], ids=str)
def test_what_is_too_long_or_depends_on_the_data_is_not_enumerated(f):
    with pytest.raises(BadInput, match="cannot be enumerated"):
        f.codes()


@pytest.mark.parametrize(
    ("family", "args"),
    [(MinifloatIEEE, (4, 2, 200)), (MinifloatDenorm, (8, 2, 150)), (Log, (4, 400)), (MinifloatIEEE, (5, 1, -126 - 3))],
)
def test_a_format_without_a_value_that_float32_holds_is_refused(family, args):
    with pytest.raises(BadInput, match=r"\(exponent_bias\)"):
        family(*args)


def test_codes_are_distinct_down_to_the_smallest_number_of_float64():
    codes = Log(11, 1075).codes()
    assert len(codes) == 2**11 - 1
    assert (codes.diff() > 0).all()
    assert codes[codes > 0][0] == 2.0**-1074
    with pytest.raises(BadInput, match="whose values float64 holds"):
        Log(11, 1076).codes()
