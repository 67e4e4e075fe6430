"""Ternary values by their definition: a threshold, and the mean of what lies above it."""

import itertools
import math

import numpy as np
import pytest
import torch

from paretobit.errors import BadInput
from paretobit.formats import Ternary, make


def data(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ternary(part, threshold=None, scaling=True):
    """Means in float64, kept as float32."""
    magnitude = np.abs(part)
    t = np.float32(np.float32(magnitude.mean(dtype=np.float64)) * np.float32(0.7)) if threshold is None else threshold
    above = magnitude > np.float32(t)
    s = np.float32(magnitude[above].mean(dtype=np.float64)) if scaling and above.any() else np.float32(scaling is False)
    return np.where(above, np.sign(part) * s, 0).astype(np.float32)


@pytest.mark.parametrize("threshold", [None, 0, 0.5, 1.5])
@pytest.mark.parametrize("scaling", [True, False])
def test_values_are_those_of_the_definition_for_tensors_of_any_rank(threshold, scaling):
    options = {"threshold": threshold, "scaling": scaling}
    for shape in [(), (9,), (6, 7), (3, 4, 5), (2, 3, 4, 5), (2, 2, 3, 2, 3)]:
        x = data(shape)
        whole = Ternary(per="tensor", **options).quantize(torch.from_numpy(x)).numpy()
        assert np.array_equal(whole, ternary(x, **options))
        rows = Ternary(**options).quantize(torch.from_numpy(x)).numpy()
        alone = [ternary(row, **options) for row in x] if x.ndim > 1 else ternary(x, **options)
        assert np.array_equal(rows, np.stack(alone) if x.ndim > 1 else alone)
        if x.ndim > 1:
            last = Ternary(axis=-1, **options).quantize(torch.from_numpy(x)).numpy()
            columns = [ternary(x[..., i], **options) for i in range(x.shape[-1])]
            assert np.array_equal(last, np.stack(columns, -1))


def test_what_equals_the_threshold_is_zero():
    f = Ternary(threshold=0.5, scaling=False)
    above = math.nextafter(0.5, 1)
    x = torch.tensor([-0.5, 0.5, above, -above, 0.0, math.inf, -math.inf], dtype=torch.float64)
    assert f.quantize(x).tolist() == [0, 0, 1, -1, 0, 1, -1]
    assert Ternary(threshold=0, scaling=False).quantize(torch.tensor([0.0, 1e-45, -1e-45])).tolist() == [0, 1, -1]


def test_there_are_three_values_and_the_scale_is_their_mean_magnitude():
    x = torch.from_numpy(data((64, 64)))
    y = Ternary(per="tensor").quantize(x)
    low, zero, high = torch.unique(y).tolist()
    assert (low, zero) == (-high, 0)
    assert high == pytest.approx(x[y != 0].abs().mean().item(), rel=1e-6)
    assert 0.5 < (y != 0).float().mean() < 0.65  # 0.7 × mean|x| of normal data is 0.56 σ
    assert Ternary(scaling=False).codes().tolist() == [-1, 0, 1]
    with pytest.raises(BadInput, match="cannot be enumerated"):
        Ternary().codes()


def test_nan_and_infinity_do_not_count_in_the_means():
    x = torch.tensor([1.0, -2.0, 3.0, -0.1])
    special = torch.cat([x, torch.tensor([math.nan, math.inf, -math.inf])])
    y, kept = Ternary().quantize(special), Ternary().quantize(x)
    assert torch.equal(y[:4], kept)
    assert y[4].isnan()
    assert y[5:].tolist() == [kept.max(), -kept.max()]


def test_storage_is_two_bits_and_a_scale_where_there_is_one():
    assert Ternary().bits((10, 33)) == 2 * 330 + 32 * 10
    assert Ternary(axis=1).bits((10, 33)) == 2 * 330 + 32 * 33
    assert Ternary(per="tensor").bits((10, 33)) == 2 * 330 + 32
    assert Ternary(scaling=False).bits((10, 33)) == 2 * 330
    assert Ternary().bits((33,)) == 2 * 33 + 32


def test_large_tensors_that_are_worked_on_in_slices_give_the_same_rows():
    x = torch.from_numpy(data((1200, 512)))
    y = Ternary().quantize(x)
    for row in (0, 511, 512, 1023, 1024, 1199):
        assert torch.equal(y[row], Ternary().quantize(x[row]))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"threshold": -0.1}, r"threshold is out of range \(threshold\): found -0\.1"),
        ({"threshold": math.nan}, r"threshold is not a number \(threshold\): found nan"),
        ({"threshold": "mean"}, r"not a number \(threshold\): found 'mean'"),
        ({"scaling": 1}, r"true or false \(scaling\): found 1"),
        ({"per": "group"}, r"unknown per \(per\): found 'group'; allowed: tensor, channel"),
        ({"axis": 0.0}, r"axis is not an integer \(axis\): found 0\.0"),
        ({"width": 2}, r"unknown parameter of format 'ternary': found 'width'"),
        ({"gradient": True}, r"unknown gradient \(gradient\): found True"),
    ],
)
def test_bad_parameters_are_refused_with_what_is_allowed(parameters, message):
    with pytest.raises(BadInput, match=message):
        make("ternary", **parameters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_subnormal_numbers_stay_what_they_are_when_quantised_again(dtype):
    smallest = 2.0**-149
    for codes in itertools.product([0, 1, -1, 2, 3, 5, math.inf], repeat=3):
        once = Ternary().quantize(torch.tensor([code * smallest for code in codes], dtype=dtype))
        assert torch.equal(Ternary().quantize(once), once), codes
