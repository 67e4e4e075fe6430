"""Blocks: how a tensor falls into them, what they share, and the values that follow from the definition."""

import math
from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest
import torch

from paretobit.errors import BadInput
from paretobit.formats import (
    MXFP4,
    MXFP6E2M3,
    MXFP6E3M2,
    MXFP8E4M3,
    MXFP8E5M2,
    MXINT8,
    NVFP4,
    BlockFP,
    BlockLog,
    BlockMinifloat,
    make,
    parse,
)

SHAPES = [(), (1,), (7,), (16,), (33,), (3, 21), (5, 16), (2, 3, 10), (2, 3, 4, 9), (2, 2, 3, 3, 6)]
SIZES = [16, "16", [16], "1x16", [1, 16], "4x4", [4, 4], "2x3x4", 1, 4, 1000, "1"]
FAMILIES = [
    BlockFP(6),
    BlockMinifloat(6, 3),
    BlockLog(4),
    MXINT8(),
    MXFP8E4M3(),
    MXFP8E5M2(),
    MXFP6E3M2(),
    MXFP6E2M3(),
    MXFP4(),
    NVFP4(tensor_scale=False),
]


def data(shape, seed=0, spread=6):
    """Numbers whose magnitudes differ from element to element, so that it shows which share a scale."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * 2.0 ** torch.randint(
        -spread, spread + 1, shape, generator=generator
    )


def extents_by_hand(shape, size, axis):
    """The extent of a block along each dimension."""
    parts = size.split("x") if isinstance(size, str) else size if isinstance(size, list) else [size]
    sizes = [int(part) for part in parts]
    if len(sizes) == 1:
        return [sizes[0] if dim == axis % len(shape) else 1 for dim in range(len(shape))] if shape else []
    sizes = [1] * max(len(shape) - len(sizes), 0) + sizes
    return sizes[len(sizes) - len(shape) :]


def cuts(shape, extents):
    """The index of every block, short ones at the ends included."""
    ranges = [
        [slice(start, min(start + extent, size)) for start in range(0, size, extent)]
        for size, extent in zip(shape, extents, strict=True)
    ]
    return list(product(*ranges))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_block_is_quantised_as_if_it_were_alone(size):
    for shape in SHAPES:
        for axis in {-1, 0, *([1, -2] if len(shape) > 1 else [])}:
            f = BlockFP(5, block_size=size, axis=axis)
            x = data(shape)
            alone = BlockFP(5, block_size=10**6)
            expected = torch.empty_like(x)
            for cut in cuts(shape, extents_by_hand(shape, size, axis)):
                expected[cut] = alone.quantize(x[cut].reshape(-1)).reshape(x[cut].shape)
            assert torch.equal(f.quantize(x), expected), (shape, axis)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize(
    ("shape", "size", "axis"), [((5, 21), 8, -1), ((9, 5), 4, 0), ((6, 7), "4x4", -1), ((3, 4, 6), 3, 1)]
)
def test_every_family_falls_into_the_same_blocks(family, shape, size, axis):
    f = replace(family, block_size=size, axis=axis)
    alone = replace(family, block_size=10**6)
    x = data(shape, spread=40 if family.name == "mxfp8_e5m2" else 6 if family.name == "nvfp4" else 20)
    expected = torch.empty_like(x)
    for cut in cuts(shape, extents_by_hand(shape, size, axis)):
        expected[cut] = alone.quantize(x[cut].reshape(-1)).reshape(x[cut].shape)
    assert torch.equal(f.quantize(x), expected)
    assert not torch.equal(f.quantize(x), alone.quantize(x.reshape(-1)).reshape(shape))


@pytest.mark.parametrize("family", [*FAMILIES, NVFP4()], ids=lambda f: str(f))
def test_storage_is_elements_and_what_each_block_shares(family):
    shared = {"block_fp": 8, "block_minifloat": 8, "block_log": 8}.get(family.name, 8)
    for shape, size in product([*SHAPES, (0, 4), (4, 0)], SIZES):
        f = replace(family, block_size=size)
        blocks = len(cuts(shape, extents_by_hand(shape, size, -1)))
        tensor = 32 if f == replace(NVFP4(), block_size=size) else 0
        assert f.bits(shape) == f.element_bits * math.prod(shape) + shared * blocks + tensor


def test_shared_bits_are_those_of_the_parameters():
    assert BlockFP(8, exponent_width=5).bits((2, 33)) == 8 * 66 + 5 * 6
    assert BlockMinifloat(8, 4, exponent_bias_width=3).bits((2, 33)) == 8 * 66 + 3 * 6
    assert BlockLog(4, exponent_bias_width=6, block_size="2x32").bits((2, 33)) == 4 * 66 + 6 * 2
    assert [f.element_bits for f in FAMILIES] == [6, 6, 4, 8, 8, 8, 6, 6, 4, 4]


@pytest.mark.parametrize("spelling", [16, "16", [16], (16,)])
def test_spellings_of_a_number_are_one_format(spelling):
    assert BlockFP(8, block_size=spelling) == BlockFP(8, block_size=16)
    assert make("block_fp", width=8, block_size=spelling).block_size == 16


@pytest.mark.parametrize("spelling", ["1x16", [1, 16], (1, 16)])
def test_spellings_of_several_numbers_are_one_format(spelling):
    f = make("block_fp", width=8, block_size=spelling)
    assert f.block_size == "1x16"
    assert parse(str(f)) == f
    x = data((4, 33))
    assert torch.equal(f.quantize(x), BlockFP(8, block_size=16).quantize(x))


@pytest.mark.parametrize(
    "size", [0, -1, "0", "1x0", "x", "16x", "1 x 16", "", [], [1.0], [1, "16"], 1.5, True, None, [True]]
)
def test_what_is_no_block_size_is_refused(size):
    with pytest.raises(
        BadInput, match=r"not a block size \(block_size\): found .*allowed: a positive integer, or text"
    ):
        BlockFP(8, block_size=size)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("block_fp", {"width": 1}, r"\(width\): found 1; allowed: 2 to 32"),
        ("block_fp", {"width": 33}, r"\(width\): found 33"),
        ("block_fp", {"width": 8, "exponent_width": 0}, r"\(exponent_width\): found 0; allowed: 1 to 8"),
        ("block_fp", {"width": 8, "exponent_width": 9}, r"\(exponent_width\): found 9"),
        ("block_fp", {"width": 8, "exponent_bias": 0.5}, r"\(exponent_bias\): found 0\.5"),
        ("block_fp", {"width": 8, "axis": "last"}, r"axis is not an integer \(axis\): found 'last'"),
        ("block_fp", {"width": 8, "gradient": "none"}, r"unknown gradient.*allowed: pass, mask"),
        ("block_fp", {"width": 8, "bias_width": 8}, r"unknown parameter of format 'block_fp': found 'bias_width'"),
        ("block_minifloat", {"width": 8}, r"needs the parameter 'exponent_width'"),
        ("block_minifloat", {"width": 4, "exponent_width": 4}, r"\(width\): found 4; allowed: 5 to 32"),
        ("block_minifloat", {"width": 8, "exponent_width": 4, "exponent_bias_width": 9}, r"\(exponent_bias_width\)"),
        ("block_log", {"width": 1}, r"\(width\): found 1; allowed: 2 to 32"),
        ("block_log", {"width": 8, "exponent_bias_width": 0}, r"\(exponent_bias_width\): found 0"),
        ("mxfp4", {"width": 4}, r"unknown parameter of format 'mxfp4': found 'width'"),
        ("nvfp4", {"tensor_scale": 1}, r"true or false \(tensor_scale\): found 1"),
    ],
)
def test_bad_parameters_are_refused_with_what_is_allowed(name, parameters, message):
    with pytest.raises(BadInput, match=message):
        make(name, **parameters)


def test_an_axis_that_the_tensor_does_not_have_is_refused():
    with pytest.raises(BadInput, match=r"a tensor of 2 dimensions has no such axis \(axis\): found 2"):
        BlockFP(8, axis=2).quantize(torch.ones(3, 4))
    with pytest.raises(BadInput, match="1 dimensions"):
        BlockFP(8, axis=-2).bits((3,))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_a_block_of_zeros_gives_zeros_and_a_huge_number_stays_in_its_block(family):
    f = replace(family, block_size=8)
    x = data((4, 24))
    x[1, 8:16] = 0
    x[2, :8] = -0.0
    before = f.quantize(x)
    assert (before[1, 8:16] == 0).all()
    assert (before[2, :8] == 0).all()
    x[0, 0], x[3, 20] = 3e38, -3e38
    y = f.quantize(x)
    assert y.isfinite().all()
    assert torch.equal(y[1:3], before[1:3])
    assert torch.equal(y[0, 8:], before[0, 8:])
    assert torch.equal(y[3, :16], before[3, :16])


def nearest(x, values):
    """The nearest of ascending exact values, ties to the even place counted from zero."""
    zero = values.index(0)
    best = min(abs(x - v) for v in values)
    near = [i for i, v in enumerate(values) if abs(x - v) == best]
    return values[near[0] if len(near) == 1 or (near[0] - zero) % 2 == 0 else near[1]]


def mirrored(magnitudes):
    return sorted({-v for v in magnitudes} | set(magnitudes))


def binade(value):
    """floor(log2) of an exact positive number."""
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    return exponent if Fraction(2) ** exponent <= value else exponent - 1


def block_fp_values(largest, width, exponent_width, bias=None):
    bias = 2 ** (exponent_width - 1) - 1 if bias is None else bias
    shared = min(max(binade(largest) + 1, -bias), 2**exponent_width - 1 - bias)
    return mirrored([Fraction(m, 2 ** (width - 1)) * Fraction(2) ** shared for m in range(2 ** (width - 1))])


def block_minifloat_values(largest, width, exponent_width, bias_width):
    offset, m = 2 ** (bias_width - 1) - 1, width - exponent_width - 1
    top = min(max(binade(largest), -offset), 2**bias_width - 1 - offset)
    bias = 2**exponent_width - 1 - top
    magnitudes = [Fraction(2) ** (1 - bias) * Fraction(n, 2**m) for n in range(2**m)]
    for e in range(1, 2**exponent_width):
        magnitudes += [Fraction(2) ** (e - bias) * (1 + Fraction(n, 2**m)) for n in range(2**m)]
    return mirrored(magnitudes)


def block_log_values(largest, width, bias_width):
    offset = 2 ** (bias_width - 1) - 1
    nearest_power = binade(largest * Fraction(4, 3))  # from 1.5 × 2^k on it is 2^(k+1)
    top = min(max(nearest_power, -offset), 2**bias_width - 1 - offset)
    return mirrored([Fraction(0), *(Fraction(2) ** (top - d) for d in range(2 ** (width - 1) - 1))])


DEFINITIONS = [
    (BlockFP(8), block_fp_values, (8, 8)),
    (BlockFP(4), block_fp_values, (4, 8)),
    (BlockFP(2), block_fp_values, (2, 8)),
    (BlockFP(6, exponent_width=3), block_fp_values, (6, 3)),
    (BlockFP(6, exponent_width=3, exponent_bias=0), block_fp_values, (6, 3, 0)),
    (BlockFP(5, exponent_width=1), block_fp_values, (5, 1)),
    (BlockMinifloat(8, 4), block_minifloat_values, (8, 4, 8)),
    (BlockMinifloat(6, 3), block_minifloat_values, (6, 3, 8)),
    (BlockMinifloat(4, 3), block_minifloat_values, (4, 3, 8)),
    (BlockMinifloat(5, 1), block_minifloat_values, (5, 1, 8)),
    (BlockMinifloat(6, 2, exponent_bias_width=3), block_minifloat_values, (6, 2, 3)),
    (BlockLog(4), block_log_values, (4, 8)),
    (BlockLog(6), block_log_values, (6, 8)),
    (BlockLog(2), block_log_values, (2, 8)),
    (BlockLog(4, exponent_bias_width=3), block_log_values, (4, 3)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("f", "values_of", "args"), DEFINITIONS, ids=[str(f) for f, _, _ in DEFINITIONS])
def test_a_block_takes_the_nearest_values_of_the_definition(f, values_of, args, dtype):
    rows = [data((16,), seed) for seed in range(12)]
    rows += [data((16,), 20) * 2.0**k for k in (-100, -30, -7, 7, 30, 90)]
    rows += [torch.tensor([2.0**k, 1.5 * 2.0**k, -1.25 * 2.0**k, 0.75 * 2.0**k, 0.4, 3.0]) for k in range(-4, 5)]
    for row in rows:
        x = row.to(dtype)
        values = values_of(max(Fraction(v) for v in x.abs().tolist()), *args)
        expected = [float(nearest(Fraction(v), values)) for v in x.tolist()]
        assert f.quantize(x).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_block_of_subnormal_numbers_has_the_lowest_scale(dtype):
    x = torch.tensor([1e-45, -3e-41, 7e-39, 0.0, 2.0**-127, -(2.0**-126)], dtype=dtype)
    for f, values_of, args in DEFINITIONS:
        values = values_of(Fraction(2) ** -126, *args)
        expected = torch.tensor([float(nearest(Fraction(v), values)) for v in x.tolist()], dtype=torch.float64)
        assert f.quantize(x).tolist() == expected.to(dtype).tolist(), f


def test_a_narrow_shared_exponent_saturates_above_and_underflows_below():
    f = BlockFP(4, exponent_width=3, block_size=4)  # shared exponents -3 to 4, mantissas up to 7/8
    x = torch.tensor([[1000.0, 20.0, 1.0, -1000.0], [2.0**-9, 2.0**-4, -(2.0**-20), 0.0]])
    assert f.quantize(x).tolist() == [[14.0, 14.0, 0.0, -14.0], [0.0, 2.0**-4, 0.0, 0.0]]
    assert f.describe().maximum == 14.0
    assert f.describe().smallest_positive == 2.0**-6
    assert BlockFP(8, exponent_width=3).quantize(torch.tensor([math.inf, -3e38])).tolist() == [15.875, -15.875]


@pytest.mark.parametrize("family", FAMILIES[:9], ids=lambda f: f.name)
def test_what_infinity_and_nan_share_a_block_with(family):
    x = torch.tensor([1.0, math.nan, -0.5, 0.3])
    y = family.quantize(x)
    kept = family.quantize(x[[0, 2, 3]])
    assert torch.equal(y[[0, 2, 3]], kept)
    assert y[1].isnan()
    huge = family.quantize(torch.tensor([1.0, math.inf]))
    assert huge[0] == 0
    assert 1e38 < huge[1] <= torch.finfo(torch.float32).max


def test_mxint8_reaches_one_code_further_below_zero_but_never_beyond_float32():
    f = MXINT8()
    assert f.quantize(torch.tensor([-1.999, 1.999])).tolist() == [-2.0, 127 / 64]
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor([-3.4e38, 3.4e38, -math.inf], dtype=dtype)
        assert f.quantize(x).tolist() == [-127 * 2.0**121, 127 * 2.0**121, -127 * 2.0**121]
    assert f.describe().minimum == -127 * 2.0**121


def sqnr(f, sigma):
    """Signal to quantisation noise on normal data, in dB."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn((256, 256), generator=generator) * sigma
    noise = (f.quantize(x) - x).double().square().sum()
    return 10 * math.log10(x.double().square().sum() / noise)


@pytest.mark.parametrize(
    ("f", "least"),
    [
        (BlockFP(8), 35),
        (BlockFP(4), 12),
        (BlockMinifloat(8, 4), 25),
        (BlockMinifloat(6, 2), 20),
        (BlockLog(8), 13),
        (BlockLog(4), 12),
        (MXINT8(), 35),
        (MXFP8E4M3(), 28),
        (MXFP8E5M2(), 20),
        (MXFP6E3M2(), 20),
        (MXFP6E2M3(), 22),
        (MXFP4(), 15),
        (NVFP4(), 17),
    ],
    ids=str,
)
def test_the_noise_does_not_depend_on_the_scale_of_the_data(f, least):
    values = [sqnr(f, 10.0**exponent) for exponent in range(-3, 4)]
    assert max(values) - min(values) <= 1
    assert min(values) > least


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("f", [BlockMinifloat(10, 8, block_size=2), BlockLog(16, block_size=2)], ids=str)
def test_elements_far_below_the_largest_of_their_block_stay(f, dtype):
    for low in (-149, -126, -60, 0, 99):
        x = torch.tensor([2.0**100, -(2.0**low), 1.4 * 2.0**99, 2.0 ** (low + 1)], dtype=dtype)
        y = f.quantize(x)
        assert y[:2].tolist() == x[:2].tolist()
        assert y[3] == x[3]
        assert y.dtype == dtype
