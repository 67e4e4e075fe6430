"""Scaled integers are ONNX's QuantizeLinear and DequantizeLinear, with scales as they are documented."""

import math

import numpy as np
import pytest
import torch
from many_cases import each

from paretobit.errors import BadInput
from paretobit.formats import ScaledInteger, make, parse

KINDS = [(True, True), (True, False), (False, True), (False, False)]  # signed, symmetric


def code_range(width, signed, symmetric):
    if not signed:
        return 0, 2**width - 1
    top = 2 ** (width - 1) - 1
    return (-top if symmetric else -top - 1), top


def onnx(x, scale, point, low, high):
    """QuantizeLinear, then DequantizeLinear, in float32."""
    scale = max(scale, np.finfo(np.float32).tiny)  # of a part without anything to express
    with np.errstate(over="ignore"):
        codes = np.clip(np.rint(x / scale) + point, low, high)
    return ((codes - point) * scale).astype(np.float32)


def scale_of(part, width, signed, symmetric):
    """Scale and zero point from the largest magnitude, or from both ends with zero among them."""
    low, high = code_range(width, signed, symmetric)
    if symmetric:
        largest = np.abs(part).max() if signed else max(part.max(), 0)
        return np.float32(np.float32(largest) / np.float32(high)), 0
    bottom, top = np.float32(min(part.min(), 0)), np.float32(max(part.max(), 0))
    scale = top / np.float32(high - low) - bottom / np.float32(high - low)
    return scale, np.clip(np.rint(low - bottom / scale), low, high)


def data(shape, seed=0):
    rng = np.random.default_rng(seed)
    spread = 10.0 ** rng.uniform(-2, 2, (shape[0],) + (1,) * (len(shape) - 1))
    return (rng.standard_normal(shape) * spread + 0.3).astype(np.float32)


def quantized(f, x):
    return f.quantize(torch.from_numpy(x)).numpy()


def expected(x, parts, width, signed, symmetric):
    y = np.empty_like(x)
    low, high = code_range(width, signed, symmetric)
    for part in parts:
        y[part] = onnx(x[part], *scale_of(x[part], width, signed, symmetric), low, high)
    return y


@pytest.mark.parametrize(("signed", "symmetric"), KINDS)
@pytest.mark.parametrize("width", [2, 4, 8, 16])
def test_tensors_channels_and_groups_each_have_the_scale_of_their_range(width, signed, symmetric):
    x = data((6, 5, 10))
    args = (width, signed, symmetric)
    tensor = ScaledInteger(*args)
    assert np.array_equal(quantized(tensor, x), expected(x, [...], *args))
    for axis, parts in (
        (0, [np.s_[i] for i in range(6)]),
        (1, [np.s_[:, i] for i in range(5)]),
        (-1, [np.s_[..., i] for i in range(10)]),
    ):
        f = ScaledInteger(*args, per="channel", axis=axis)
        assert np.array_equal(quantized(f, x), expected(x, parts, *args))
    groups = [np.s_[i, j, start : start + 4] for i in range(6) for j in range(5) for start in (0, 4, 8)]
    f = ScaledInteger(*args, per="group", group_size=4)  # the last group of a row has two elements
    assert np.array_equal(quantized(f, x), expected(x, groups, *args))
    groups = [np.s_[start : start + 4, j, k] for j in range(5) for k in range(10) for start in (0, 4)]
    f = ScaledInteger(*args, per="group", group_size=4, axis=0)
    assert np.array_equal(quantized(f, x), expected(x, groups, *args))


def test_channels_are_rows_unless_told_otherwise_and_groups_lie_along_the_last_dimension():
    x = torch.from_numpy(data((6, 10)))
    assert torch.equal(ScaledInteger(4, per="channel").quantize(x), ScaledInteger(4, per="channel", axis=0).quantize(x))
    group, last = (ScaledInteger(4, per="group", group_size=5, axis=axis).quantize(x) for axis in (None, -1))
    assert torch.equal(group, last)
    vector = x[0]
    assert torch.equal(ScaledInteger(4, per="channel").quantize(vector), ScaledInteger(4).quantize(vector))


@pytest.mark.parametrize(("signed", "symmetric"), KINDS)
def test_a_fixed_scale_is_used_as_it_is(signed, symmetric):
    x = data((6, 10))
    low, high = code_range(6, signed, symmetric)
    point = None if symmetric else low + 20
    f = ScaledInteger(6, signed, symmetric, scale=0.1, zero_point=point)
    assert np.array_equal(quantized(f, x), onnx(x, np.float32(0.1), point or 0, low, high))
    assert f.traits.scale == "fixed"
    assert f.codes().tolist() == [(c - (point or 0)) * float(np.float32(0.1)) for c in range(low, high + 1)]


def test_fixed_scales_of_channels_and_groups_are_laid_out_first_dimension_slowest():
    x = data((3, 10))
    scales, points = (0.1, 0.02, 3.0), (5, -8, 0)
    f = ScaledInteger(4, symmetric=False, per="channel", scale=scales, zero_point=points)
    rows = [onnx(x[i], np.float32(scales[i]), points[i], -8, 7) for i in range(3)]
    assert np.array_equal(quantized(f, x), np.stack(rows))
    six = tuple(0.1 * (i + 1) for i in range(6))
    f = ScaledInteger(4, per="group", group_size=5, scale=six)
    parts = [onnx(x[i // 2, 5 * (i % 2) :][:5], np.float32(six[i]), 0, -7, 7) for i in range(6)]
    assert np.array_equal(quantized(f, x), np.concatenate(parts).reshape(3, 10))
    assert parse(str(f)) == f
    with pytest.raises(BadInput, match=r"number of fixed scales.*\(scale\): found 6; allowed: 1 or 9"):
        f.quantize(torch.zeros(3, 15))
    described = ScaledInteger(4, symmetric=False, per="channel", scale=scales, zero_point=points).describe()
    assert (described.minimum, described.maximum) == (-8 * 3.0, 7 * 3.0)
    assert described.smallest_positive == float(np.float32(0.02))


@pytest.mark.parametrize(("signed", "symmetric"), KINDS)
@pytest.mark.parametrize("options", [{}, {"per": "channel"}, {"per": "group", "group_size": 4}], ids=str)
@pytest.mark.parametrize("calibration", ["max", "percentile", "mse"])
def test_calibrated_formats_have_fixed_scales_and_give_the_same_values(signed, symmetric, options, calibration):
    x = torch.from_numpy(data((4, 10)))
    f = ScaledInteger(5, signed, symmetric, calibration=calibration, percentile=90, **options)
    fixed = f.calibrated(x)
    assert fixed.traits.scale == "fixed"
    assert fixed.traits.idempotent
    assert torch.equal(fixed.quantize(x), f.quantize(x))
    assert make(**fixed.to_dict()) == fixed
    assert fixed.bits((4, 10)) == f.bits((4, 10))
    once = fixed.quantize(x * 3)
    assert torch.equal(fixed.quantize(once), once)


@pytest.mark.parametrize("percentile", [60, 90, 99.9, 100])
@pytest.mark.parametrize(("signed", "symmetric"), KINDS)
def test_percentiles_are_values_of_the_data(signed, symmetric, percentile):
    """The smallest value that at least `percentile` percent of the part do not exceed."""
    x = data((3, 50))
    f = ScaledInteger(6, signed, symmetric, per="channel", calibration="percentile", percentile=percentile)
    low, high = code_range(6, signed, symmetric)

    def at(values, percent):
        place = max(math.ceil(len(values) * percent / 100) - 1, 0)
        return np.sort(values)[place]

    for row, y in zip(x, quantized(f, x), strict=True):
        if signed and symmetric:
            ends = np.array([at(np.abs(row), percentile)])
        else:
            ends = np.array([at(row, 100 - percentile), at(row, percentile)])
        assert np.array_equal(y, onnx(row, *scale_of(ends, 6, signed, symmetric), low, high))


@pytest.mark.parametrize(("signed", "symmetric"), KINDS)
@pytest.mark.parametrize("width", [2, 4])
def test_the_clipping_found_has_the_smallest_squared_error_of_a_hundred(width, signed, symmetric):
    x = data((3, 40))
    low, high = code_range(width, signed, symmetric)
    f = ScaledInteger(width, signed, symmetric, per="channel", calibration="mse")

    def error(row, y):
        return np.square((y - row).astype(np.float64)).sum()

    gained = 0.0
    for row, y in zip(x, quantized(f, x), strict=True):
        tried = [row * np.float32(k / 100) for k in range(1, 101)]
        errors = [error(row, onnx(row, *scale_of(t, width, signed, symmetric), low, high)) for t in tried]
        assert error(row, y) == pytest.approx(min(errors), rel=1e-5)
        gained += errors[-1] - error(row, y)
    assert gained > 0


@pytest.mark.parametrize("calibration", ["max", "percentile", "mse"])
@pytest.mark.parametrize(("signed", "symmetric"), KINDS)
def test_nan_does_not_count_and_infinity_saturates(calibration, signed, symmetric):
    f = ScaledInteger(4, signed, symmetric, calibration=calibration)
    x = torch.from_numpy(data((30,)))
    x[7] = math.nan
    y = f.quantize(x)
    kept = torch.arange(30) != 7
    assert y[7].isnan()
    assert torch.equal(y[kept], f.quantize(x[kept]))
    x[3], x[5] = math.inf, -math.inf
    y = f.quantize(x)
    assert y[kept].isfinite().all()
    assert y[3] == y[kept].max()
    assert y[5] == y[kept].min()
    fixed = ScaledInteger(4, signed, symmetric, scale=0.5, zero_point=None if symmetric else 3)
    ends = fixed.quantize(torch.tensor([math.inf, -math.inf])).tolist()
    assert ends == [fixed.describe().maximum, fixed.describe().minimum]


@pytest.mark.parametrize("width", [1, 2, 3, 4, 8, 24])
@pytest.mark.parametrize("calibration", ["max", "percentile", "mse"])
def test_the_largest_numbers_give_finite_values_and_zero_stays(width, calibration):
    largest = torch.finfo(torch.float32).max
    for signed, symmetric in KINDS:
        if width == 1 and signed and symmetric:
            continue
        f = ScaledInteger(width, signed, symmetric, calibration=calibration)
        y = f.quantize(torch.tensor([-largest, 0.0, largest, 3e38, 1.0]))
        assert y.isfinite().all()
        assert y[1] == 0
        assert (f.quantize(torch.zeros(5)) == 0).all()
        assert f.quantize(torch.tensor([1e-45, -1e-45, 0.0])).isfinite().all()


def test_codes_of_one_sign_use_the_whole_range():
    x = torch.tensor([1.0, 2.0, 3.0, 10.0])
    affine = ScaledInteger(8, symmetric=False)
    assert affine.calibrated(x).zero_point == -128
    assert affine.calibrated(-x).zero_point == 127
    assert ScaledInteger(8, signed=False).quantize(-x).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("f", "bits"),
    [
        (ScaledInteger(8), 8 * 330 + 32),
        (ScaledInteger(4, per="channel"), 4 * 330 + 32 * 10),
        (ScaledInteger(4, per="channel", axis=1), 4 * 330 + 32 * 33),
        (ScaledInteger(4, per="group", group_size=16), 4 * 330 + 32 * 30),
        (ScaledInteger(4, per="group", group_size=4, axis=0), 4 * 330 + 32 * 99),
        (ScaledInteger(8, symmetric=False), 8 * 330 + 40),
        (ScaledInteger(4, symmetric=False, per="group", group_size=32), 4 * 330 + 36 * 20),
        (ScaledInteger(8, scale=0.1), 8 * 330 + 32),
    ],
    ids=str,
)
def test_storage_counts_every_scale_and_zero_point(f, bits):
    assert f.bits((10, 33)) == bits


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, r"needs the parameter 'width'"),
        ({"width": 0}, r"width is out of range \(width\): found 0; allowed: 2 to 24"),
        ({"width": 1}, r"\(width\): found 1; allowed: 2 to 24"),
        ({"width": 0, "signed": False}, r"allowed: 1 to 24"),
        ({"width": 25}, r"\(width\): found 25"),
        ({"width": 8, "signed": "yes"}, r"true or false \(signed\): found 'yes'"),
        ({"width": 8, "symmetric": 0}, r"true or false \(symmetric\): found 0"),
        ({"width": 8, "per": "row"}, r"unknown per \(per\): found 'row'; allowed: tensor, channel, group"),
        ({"width": 8, "axis": 9}, r"\(axis\): found 9; allowed: -8 to 7"),
        ({"width": 8, "group_size": 0}, r"\(group_size\): found 0"),
        ({"width": 8, "calibration": "maximum"}, r"unknown calibration.*allowed: max, percentile, mse"),
        ({"width": 8, "percentile": 101}, r"\(percentile\): found 101; allowed: 50 to 100"),
        ({"width": 8, "percentile": "99"}, r"percentile is not a number \(percentile\): found '99'"),
        ({"width": 8, "scale": 0}, r"scale is out of range \(scale\): found 0"),
        ({"width": 8, "scale": -0.1}, r"\(scale\): found -0\.1"),
        ({"width": 8, "scale": math.inf}, r"\(scale\): found inf"),
        ({"width": 8, "scale": [0.1, None]}, r"\(scale\): found None"),
        ({"width": 8, "zero_point": 3}, r"one zero point a scale, any other format none \(zero_point\): found 3"),
        ({"width": 8, "scale": 0.1, "zero_point": 3}, r"any other format none \(zero_point\): found 3"),
        ({"width": 8, "symmetric": False, "scale": 0.1}, r"one zero point a scale.*found None"),
        ({"width": 8, "symmetric": False, "zero_point": 3}, r"one zero point a scale.*found 3"),
        ({"width": 8, "symmetric": False, "scale": [0.1, 0.2], "zero_point": 3}, r"one zero point a scale"),
        (
            {"width": 8, "symmetric": False, "scale": 0.1, "zero_point": 128},
            r"\(zero_point\): found 128; allowed: -128",
        ),
        ({"width": 8, "symmetric": False, "scale": 0.1, "zero_point": 1.5}, r"\(zero_point\): found 1\.5"),
        ({"width": 8, "gradient": "none"}, r"unknown gradient"),
    ],
)
def test_bad_parameters_are_refused_with_what_is_allowed(parameters, message):
    with pytest.raises(BadInput, match=message):
        make("scaled_integer", **parameters)


@each("width", range(2, 25))
@pytest.mark.parametrize("signed", [True, False])
def test_what_a_fixed_scale_gave_stays_the_same(width, signed):
    rng = np.random.default_rng(width)
    low, high = code_range(width, signed, True)
    codes = np.unique(
        np.concatenate([rng.integers(low, high, 5000, endpoint=True), np.arange(max(high - 5000, low), high + 1)])
    )
    for scale in [0.1, 0.3, 1 / 3, *rng.uniform(1e-3, 10, 20)]:
        f = ScaledInteger(width, signed, scale=float(scale))
        y = f.quantize(torch.from_numpy(codes * float(scale)).float())
        assert f.traits.idempotent
        assert torch.equal(f.quantize(y), y)
