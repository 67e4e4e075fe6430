"""Binary values by their definition: signs, their scale, what is left of them, and chance."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from paretobit.errors import BadInput
from paretobit.formats import Binary, BinaryResidual, BinaryScaling, make

SHAPES = [(), (9,), (6, 7), (3, 4, 5), (2, 3, 4, 5), (2, 2, 3, 2, 3)]


def data(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def binary(x, bipolar):
    return (np.where(x >= 0, 1.0, -1.0) if bipolar else np.where(x > 0, 1.0, 0.0)).astype(np.float32)


def residual(part, levels, bipolar):
    """Means in float64, kept as float32; arithmetic of float32."""
    total, rest = np.zeros_like(part), part
    for _ in range(levels):
        counted = np.abs(rest) if bipolar else rest[rest > 0]
        s = np.float32(counted.mean(dtype=np.float64)) if counted.size else np.float32(0)
        level = binary(rest, bipolar) * s
        total, rest = total + level, rest - level
    return total


def quantized(f, x):
    return f.quantize(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("bipolar", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_binary_is_the_sign_or_whether_it_is_positive(shape, bipolar):
    x = data(shape)
    assert np.array_equal(quantized(Binary(bipolar), x), binary(x, bipolar))


@pytest.mark.parametrize("bipolar", [True, False])
@pytest.mark.parametrize("levels", [1, 2, 3, 5])
def test_levels_are_those_of_the_definition_for_tensors_of_any_rank(levels, bipolar):
    for shape in SHAPES:
        x = data(shape)
        f = BinaryResidual(bipolar, levels=levels, per="tensor")
        assert np.array_equal(quantized(f, x), residual(x, levels, bipolar))
        if x.ndim > 1:
            f = BinaryResidual(bipolar, levels=levels)
            rows = [residual(row, levels, bipolar) for row in x]
            assert np.array_equal(quantized(f, x), np.stack(rows))
            f = BinaryResidual(bipolar, levels=levels, axis=-1)
            columns = [residual(x[..., i], levels, bipolar) for i in range(x.shape[-1])]
            assert np.array_equal(quantized(f, x), np.stack(columns, -1))


@pytest.mark.parametrize("bipolar", [True, False])
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_one_level_is_binary_times_its_mean(bipolar, per):
    x = torch.from_numpy(data((6, 7, 4)))
    y = BinaryScaling(bipolar, per=per).quantize(x)
    assert torch.equal(y, BinaryResidual(bipolar, levels=1, per=per).quantize(x))
    parts = zip(x, y, strict=True) if per == "channel" else [(x, y)]
    for part, result in parts:
        scale = part.abs().mean() if bipolar else part[part > 0].mean()
        assert torch.allclose(result, Binary(bipolar).quantize(part) * scale, rtol=1e-6)


@pytest.mark.parametrize("bipolar", [True, False])
def test_every_level_leaves_less(bipolar):
    x = torch.from_numpy(data((16, 256)))
    x = x if bipolar else x.abs()
    errors = [(BinaryResidual(bipolar, levels=levels).quantize(x) - x).square().sum().item() for levels in range(1, 9)]
    assert all(more < fewer for fewer, more in pairwise(errors))
    assert errors[-1] < errors[0] / 2


@pytest.mark.parametrize("bipolar", [True, False])
@pytest.mark.parametrize("family", [Binary, BinaryScaling])
def test_chance_follows_the_hard_sigmoid(family, bipolar):
    points = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 2.0])
    x = points.repeat_interleave(20000)
    options = {} if family is Binary else {"per": "tensor"}
    f = family(bipolar, stochastic=True, **options)
    torch.manual_seed(3)
    y = f.quantize(x)
    torch.manual_seed(3)
    assert torch.equal(f.quantize(x), y)
    assert not torch.equal(f.quantize(x), y)
    scale = 1.0
    if family is BinaryScaling:
        scale = (points.abs().mean() if bipolar else points[points > 0].mean()).item()
    low, high = torch.unique(y).tolist()
    assert high == pytest.approx(scale, rel=1e-6)
    assert low == pytest.approx(-scale if bipolar else 0.0, rel=1e-6)
    drawn = (y.view(len(points), -1) == high).double().mean(1)
    chance = ((points.double() / scale + 1) / 2).clamp(0, 1)
    assert torch.allclose(drawn, chance, atol=4 * math.sqrt(0.25 / 20000))
    assert (drawn[chance == 0] == 0).all()
    assert (drawn[chance == 1] == 1).all()


def test_scales_of_drawn_levels_are_those_of_levels_not_drawn():
    x = torch.from_numpy(data((4, 50)))
    drawn, steady = BinaryResidual(stochastic=True, levels=3), BinaryResidual(levels=3)
    assert all(torch.equal(a, b) for a, b in zip(drawn.scales(x), steady.scales(x), strict=True))
    torch.manual_seed(0)
    sums = torch.stack([drawn.quantize(x) for _ in range(2)])
    assert not torch.equal(sums[0], sums[1])
    top = sum(s for s in steady.scales(x))
    assert (sums.abs() <= top * (1 + 1e-6)).all()


@pytest.mark.parametrize("stochastic", [True, False])
@pytest.mark.parametrize("f", [BinaryScaling(), BinaryResidual(levels=3), BinaryScaling(bipolar=False)], ids=str)
def test_parts_of_zeros_and_of_huge_numbers_are_finite(f, stochastic):
    f = make(**{**f.to_dict(), "stochastic": stochastic})
    largest = torch.finfo(torch.float32).max
    x = torch.tensor([[0.0, -0.0, 0.0], [largest, -largest, 3e38], [math.inf, 1.0, -math.inf], [1e-45, 0.0, -1e-45]])
    for dtype in (torch.float32, torch.float64):
        y = f.quantize(x.to(dtype))
        assert y.isfinite().all()
        assert (y[0] == 0).all()
    assert f.quantize(torch.full((3,), torch.finfo(torch.float64).max, dtype=torch.float64)).isfinite().all()


def test_nan_and_infinity_do_not_count_in_the_scale():
    x = torch.tensor([1.0, -2.0, 3.0, math.nan, math.inf, -math.inf])
    y = BinaryScaling().quantize(x)
    assert y[[0, 1, 2, 4, 5]].tolist() == [2.0, -2.0, 2.0, 2.0, -2.0]
    assert y[3].isnan()
    assert Binary().quantize(x)[[4, 5]].tolist() == [1, -1]


@pytest.mark.parametrize("family", [Binary, BinaryScaling, BinaryResidual])
def test_without_binary_training_a_parameter_is_only_kept_from_minus_one_to_one(family):
    x = torch.tensor([-3.0, -0.4, 0.0, 0.7, 2.0])
    assert torch.equal(family().quantize_latent(x), family().quantize(x))
    relaxed = family(binary_training=False)
    assert torch.equal(relaxed.quantize_latent(x), x.clamp(-1, 1))
    assert torch.equal(relaxed.quantize(x), family().quantize(x))
    leaf = x.clone().requires_grad_()
    relaxed.quantize_latent(leaf).sum().backward()
    assert leaf.grad.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("family", [Binary, BinaryScaling, BinaryResidual])
def test_a_masked_gradient_passes_from_minus_one_to_one(family):
    x = torch.tensor([-3.0, -1.0, -0.4, 0.0, 0.7, 1.0, 2.0], requires_grad=True)
    family(gradient="mask").quantize(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 1, 0]


def test_storage_is_a_bit_a_level_and_a_scale_for_each_level_and_part():
    assert Binary().bits((10, 33)) == 330
    assert BinaryScaling().bits((10, 33)) == 330 + 32 * 10
    assert BinaryScaling(axis=1).bits((10, 33)) == 330 + 32 * 33
    assert BinaryScaling(per="tensor").bits((10, 33)) == 330 + 32
    assert BinaryResidual(levels=3).bits((10, 33)) == 3 * 330 + 3 * 32 * 10
    assert BinaryResidual(levels=3).element_bits == 3
    assert BinaryScaling().bits((33,)) == 33 + 32


def test_the_number_of_values_described_is_the_number_that_occurs():
    x = torch.from_numpy(data((4000,)))
    for f in (BinaryResidual(levels=2), BinaryResidual(levels=3), BinaryResidual(bipolar=False, levels=3)):
        assert len(torch.unique(f.quantize(x))) == f.describe().codes


@pytest.mark.parametrize("levels", [1, 2, 3, 7])
def test_the_largest_scale_is_a_float32_number_as_all_are(levels):
    x = torch.tensor([3.402820424023848e38], dtype=torch.float64)
    scales = BinaryResidual(levels=levels).scales(x)
    assert all(torch.equal(scale.float().double(), scale) for scale in scales)
    assert torch.equal(
        BinaryResidual(levels=1).quantize(BinaryResidual(levels=1).quantize(x)), BinaryResidual(levels=1).quantize(x)
    )


def test_a_large_second_level_turns_the_order_which_the_traits_say():
    x = torch.tensor([0.0] * 9 + [100.0])
    low, high = BinaryResidual(per="tensor").quantize(torch.cat([x, torch.tensor([-1e-6])]))[[-1, 0]]
    assert low > high
    assert not BinaryResidual().traits.monotone
    assert BinaryResidual(levels=1).traits.monotone
    assert BinaryResidual(bipolar=False).traits.monotone


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("binary", {"bipolar": 1}, r"true or false \(bipolar\): found 1"),
        ("binary", {"stochastic": "yes"}, r"true or false \(stochastic\): found 'yes'"),
        ("binary", {"binary_training": None}, r"true or false \(binary_training\): found None"),
        ("binary", {"levels": 2}, r"unknown parameter of format 'binary': found 'levels'"),
        ("binary", {"gradient": "stop"}, r"unknown gradient.*allowed: pass, mask"),
        ("binary_scaling", {"per": "group"}, r"unknown per.*allowed: tensor, channel"),
        ("binary_scaling", {"axis": 8}, r"\(axis\): found 8; allowed: -8 to 7"),
        ("binary_residual", {"levels": 0}, r"levels is out of range \(levels\): found 0; allowed: 1 to 8"),
        ("binary_residual", {"levels": 9}, r"\(levels\): found 9"),
        ("binary_residual", {"levels": 2.0}, r"levels is not an integer \(levels\): found 2\.0"),
    ],
)
def test_bad_parameters_are_refused_with_what_is_allowed(name, parameters, message):
    with pytest.raises(BadInput, match=message):
        make(name, **parameters)
