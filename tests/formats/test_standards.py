"""The standard formats against `ml_dtypes`, `gfloat`, torch's own casts and the text of the standards.

No disagreement in a value or in the sign of a zero, except where the other side does something else by
design: each of those is a test of its own and names the clause.
"""

import gfloat
import gfloat.formats as reference
import ml_dtypes
import numpy as np
import pytest
import torch

from paretobit.formats import (
    BF16,
    FP4E2M1,
    FP6E2M3,
    FP6E3M2,
    FP8E4M3,
    FP8E5M2,
    FP16,
    MXFP4,
    MXFP6E2M3,
    MXFP6E3M2,
    MXFP8E4M3,
    MXFP8E5M2,
    MXINT8,
    NVFP4,
)

ELEMENTS = [
    (FP8E4M3(), reference.format_info_ocp_e4m3, ml_dtypes.float8_e4m3fn),
    (FP8E5M2(), reference.format_info_ocp_e5m2, ml_dtypes.float8_e5m2),
    (FP6E3M2(), reference.format_info_ocp_e3m2, ml_dtypes.float6_e3m2fn),
    (FP6E2M3(), reference.format_info_ocp_e2m3, ml_dtypes.float6_e2m3fn),
    (FP4E2M1(), reference.format_info_ocp_e2m1, ml_dtypes.float4_e2m1fn),
    (BF16(), reference.format_info_bfloat16, ml_dtypes.bfloat16),
    (FP16(), reference.format_info_binary16, np.float16),
]
BLOCKS = [
    (MXINT8(), reference.format_info_mxint8, 0),
    (MXFP8E4M3(), reference.format_info_mxfp8_e4m3, 8),
    (MXFP8E5M2(), reference.format_info_mxfp8_e5m2, 15),
    (MXFP6E3M2(), reference.format_info_mxfp6_e3m2, 4),
    (MXFP6E2M3(), reference.format_info_mxfp6_e2m3, 2),
    (MXFP4(), reference.format_info_mxfp4_e2m1, 2),
]
IDS = [f.name for f, _, _ in ELEMENTS]
BLOCK_IDS = [f.name for f, _, _ in BLOCKS]


def inputs():
    """Random, heavy-tailed and edge numbers, float32."""
    rng = np.random.default_rng(0)
    edge = [448, 464, 480, 57344, 61440, 65504, 65519, 65520, 7.5, 7.75, 28, 30, 6, 7, 2**-9, 2**-10, 0.25, 0.75]
    edge += [1e-45, 2e-38, 3e38, np.finfo(np.float32).max, np.inf, 0.0]
    heavy = rng.standard_t(1.5, 20000) * 10.0 ** rng.integers(-6, 6, 20000)
    edges = np.array([*edge, *np.negative(edge)])
    x = np.concatenate([rng.standard_normal(20000), heavy, edges]).astype(np.float32)
    bits = rng.integers(0, 2**32, 20000, dtype=np.uint32).view(np.float32)  # every magnitude as often
    return np.concatenate([x, bits[np.isfinite(bits)]])


def ours(f, x):
    return f.quantize(torch.from_numpy(x)).numpy()


def agree(got, expected):
    """Equal values, and zeros of equal sign."""
    same = (got == expected) & (np.signbit(got) == np.signbit(expected))
    return not (~same).any()


@pytest.mark.parametrize(("f", "info", "_"), ELEMENTS, ids=IDS)
def test_elements_are_those_of_gfloat_with_saturation(f, info, _):
    x = inputs()
    expected = gfloat.round_ndarray(info, x.astype(np.float64), gfloat.RoundMode.TiesToEven, sat=True)
    assert agree(ours(f, x), expected.astype(np.float32))
    assert f.describe().maximum == info.max
    assert f.describe().smallest_positive == info.smallest
    assert f.element_bits == info.bits


@pytest.mark.parametrize(("f", "_", "dtype"), ELEMENTS, ids=IDS)
def test_elements_are_those_of_ml_dtypes_up_to_the_largest(f, _, dtype):
    x = inputs()
    x = x[np.abs(x) <= f.describe().maximum]
    assert len(x) > 15000
    assert agree(ours(f, x), x.astype(dtype).astype(np.float32))


@pytest.mark.parametrize(("f", "_", "dtype"), ELEMENTS, ids=IDS)
def test_every_code_of_ml_dtypes_is_a_value(f, _, dtype):
    codes = np.arange(2**f.element_bits, dtype=np.uint16 if f.element_bits == 16 else np.uint8)
    values = codes.view(dtype).astype(np.float32)
    values = values[np.isfinite(values)]
    assert agree(ours(f, values), values)
    assert len(np.unique(values)) == f.describe().codes


def test_beyond_448_ml_dtypes_has_nan_where_ocp_lets_conversion_saturate():
    """OCP 8-bit FP, table 3: in non-saturating mode overflow of E4M3 is NaN; ours is the saturating mode."""
    x = np.array([465, 480, 1e6, np.inf], dtype=np.float32)
    x = np.concatenate([x, -x])
    assert np.isnan(x.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)).all()
    assert ours(FP8E4M3(), x).tolist() == [448.0] * 4 + [-448.0] * 4
    below_half_a_step_more = np.array([450, 463.9, 464], dtype=np.float32)  # 464 is a tie: 448 is even
    assert (below_half_a_step_more.astype(ml_dtypes.float8_e4m3fn).astype(np.float32) == 448).all()


@pytest.mark.parametrize(
    ("f", "dtype", "first"),
    [
        (FP8E5M2(), ml_dtypes.float8_e5m2, 61440),
        (FP16(), np.float16, 65520),
        (BF16(), ml_dtypes.bfloat16, np.finfo(np.float32).max),
    ],
    ids=["fp8_e5m2", "fp16", "bf16"],
)
def test_where_others_round_to_infinity_ours_saturates(f, dtype, first):
    """IEEE 754-2019, 7.4: round-to-nearest carries overflow to infinity; OCP's saturating mode does not."""
    x = np.array([first, np.inf, -first, -np.inf], dtype=np.float32)
    with np.errstate(over="ignore"):
        assert np.isinf(x.astype(dtype).astype(np.float32)).all()
    largest = f.describe().maximum
    assert ours(f, x).tolist() == [largest, largest, -largest, -largest]


@pytest.mark.parametrize(
    ("f", "dtype"),
    [(FP6E3M2(), ml_dtypes.float6_e3m2fn), (FP6E2M3(), ml_dtypes.float6_e2m3fn), (FP4E2M1(), ml_dtypes.float4_e2m1fn)],
    ids=["fp6_e3m2", "fp6_e2m3", "fp4_e2m1"],
)
def test_formats_without_nan_keep_it_here_where_ml_dtypes_has_a_zero(f, dtype):
    """OCP MX, 5.3.2 and 5.3.3: these have no NaN, so its conversion is implementation-defined."""
    x = np.array([np.nan], dtype=np.float32)
    assert x.astype(dtype).astype(np.float32) == 0
    assert np.isnan(ours(f, x)).all()
    beyond = np.array([1e6, np.inf, -1e6, -np.inf], dtype=np.float32)  # both saturate
    assert agree(ours(f, beyond), beyond.astype(dtype).astype(np.float32))


@pytest.mark.parametrize(("f", "dtype"), [(FP16(), torch.float16), (BF16(), torch.bfloat16)], ids=["fp16", "bf16"])
@pytest.mark.parametrize("source", [torch.float32, torch.float64], ids=str)
def test_sixteen_bits_are_those_of_the_casts_of_torch(f, dtype, source):
    x = torch.from_numpy(inputs()).to(source)
    limit = torch.finfo(dtype).max
    expected = x.clamp(-limit, limit)
    if source == torch.float64 and dtype == torch.bfloat16:
        expected = expected.float()  # how torch gets there; these numbers are float32's
    expected = expected.to(dtype).to(source)
    got = f.quantize(x)
    assert torch.equal(got, expected)
    assert torch.equal(got.signbit(), expected.signbit())


def blocks(size):
    """Ordinary, heavy-tailed, subnormal, near-overflow and special blocks."""
    rng = np.random.default_rng(1)
    x = np.concatenate(
        [
            rng.standard_normal((60, size)),
            rng.standard_t(1.2, (60, size)) * 10.0 ** rng.integers(-30, 30, (60, 1)),
            rng.standard_normal((60, size)) * 2.0 ** rng.integers(-149, -120, (60, 1)),
            rng.standard_normal((20, size)) * 2.0**125,
        ]
    )
    x = np.clip(x, -3.4e38, 3.4e38)
    x[0], x[1], x[2, 0], x[3] = 0, 1e-45, 3e38, 2.0**-127
    x[4, 0], x[5, 0], x[6, 0], x[7] = 1.99, 7.99, -1.9999, -(2.0**-126)
    return x.astype(np.float32)


@pytest.mark.parametrize(("f", "info", "emax"), BLOCKS, ids=BLOCK_IDS)
def test_blocks_are_elements_under_the_scale_of_the_specification(f, info, emax):
    """OCP MX, 6.3: the scale is the largest power of two up to max|block|, over that of the element."""

    def block(v):
        largest = np.abs(v).max()
        exponent = np.frexp(largest)[1] - 1 if largest else -1000
        scale = 2.0 ** float(np.clip(exponent - emax, -127, 127))  # E8M0
        rounded = [gfloat.round_float(info.etype, z / scale, gfloat.RoundMode.TiesToEven, sat=True) for z in v]
        return np.array(rounded) * scale

    x = blocks(32)
    with np.errstate(over="ignore"):
        expected = np.stack([block(row.astype(np.float64)) for row in x]).astype(np.float32)
    saturated = np.nan_to_num(expected, posinf=np.inf, neginf=-127 * 2.0**121)
    assert np.isfinite(saturated).all()
    assert np.array_equal(ours(f, x), saturated)
    if f.name != "mxint8":  # whose -2 times 2^127 is the one value that float32 does not hold
        assert np.isfinite(expected).all()


@pytest.mark.parametrize(("f", "info", "emax"), BLOCKS, ids=BLOCK_IDS)
def test_blocks_are_those_of_gfloat(f, info, emax):
    x = blocks(32)
    x = x[np.abs(x).max(1) >= 2.0 ** (emax - 126)]  # gfloat's scales of smaller blocks are not clamped
    expected = [gfloat.quantize_block(info, row.astype(np.float64), gfloat.compute_scale_amax) for row in x]
    with np.errstate(over="ignore"):
        expected = np.stack(expected).astype(np.float32)
    finite = np.isfinite(expected)
    assert finite.mean() > 0.99
    assert np.array_equal(ours(f, x)[finite], expected[finite])
    assert len(x) > 100


def test_nvfp4_is_elements_under_a_rounded_scale_under_a_scale_of_the_tensor():
    rng = np.random.default_rng(2)
    for spread in (0.0, 1.0, 6.0):
        x = (rng.standard_normal((40, 48)) * 10.0 ** rng.uniform(-spread, 0, (40, 48))).astype(np.float32)
        x[3, :16] = 0
        six, top = np.float32(6), np.float32(6 * 448)
        g = np.abs(x).max() / top
        parts = x.reshape(40, 3, 16)
        wanted = np.abs(parts).max(-1, keepdims=True) / (six * g)
        s = wanted.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            elements = (parts / (s * g)).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
        expected = np.where(s > 0, elements * (s * g), 0).reshape(x.shape)
        assert np.array_equal(ours(NVFP4(), x), expected)
        assert (s > 0).mean() > 0.5


def test_nvfp4_without_a_scale_of_the_tensor_reaches_as_far_as_its_block_scales():
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((40, 48)) * 10.0 ** rng.uniform(-4, 5, (40, 1))).astype(np.float32)
    parts = x.reshape(40, 3, 16)
    wanted = np.minimum(np.abs(parts).max(-1, keepdims=True) / np.float32(6), 448)
    s = wanted.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        elements = (parts / s).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    expected = np.where(s > 0, elements * s, 0).reshape(x.shape)
    f = NVFP4(tensor_scale=False)
    assert np.array_equal(ours(f, x), expected)
    assert ours(f, np.full((1, 16), 1e30, np.float32)).max() == f.describe().maximum == 6 * 448
