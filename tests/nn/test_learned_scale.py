"""Learned scales: the gradients of the paper, the same bits once fixed, and what is not learned is told."""

import copy
import math

import pytest
import torch
from torch import nn

from paretobit.errors import BadInput
from paretobit.formats import ScaledInteger, parse
from paretobit.graph import trace
from paretobit.models import load, save
from paretobit.nn import formats_of
from paretobit.nn.learned_scale import LearnedScale, fix_scales, forget_scales, is_scale, learn_scales
from paretobit.passes.layers.assignment import apply_assignment

W3 = ScaledInteger(3)


def quantised(model, **slots):
    """Every layer with parameters carries these formats."""
    layers = [path for path, module in model.named_modules() if path and list(module.parameters())]
    apply_assignment(model, dict.fromkeys(layers, slots))
    return model


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def conv_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 6, 3), nn.Flatten(), nn.Linear(216, 3))


def by_hand(x, s, low, high, n):
    """Equations 1, 3 and 5 of the paper, element by element: value, its slope, gradient of the scale."""
    values, slopes, of_scale = [], [], 0.0
    for v in x.flatten().tolist():
        ratio = v / s
        inside = low < ratio < high
        code = min(max(round(ratio), low), high)
        values.append(code * s)
        slopes.append(1.0 if inside else 0.0)
        of_scale += (code - ratio) if inside else code
    return torch.tensor(values), torch.tensor(slopes), of_scale / math.sqrt(n * high)


@pytest.mark.parametrize("number_format", [ScaledInteger(3), ScaledInteger(4, signed=False), ScaledInteger(2)])
def test_gradients_of_a_weight_are_those_of_the_paper(number_format):
    model = quantised(nn.Sequential(nn.Linear(7, 4)), weight=number_format)
    learn_scales(model)
    layer = model[0]
    with torch.no_grad():
        layer.weight.mul_(3)  # beyond the range, too
    low, high = number_format.code_range
    values, slopes, of_scale = by_hand(layer.weight, layer.weight_scale.item(), low, high, layer.weight.numel())
    effective = layer.parameter("weight")
    effective.sum().backward()
    torch.testing.assert_close(effective.flatten().detach(), values)
    assert torch.equal(layer.weight.grad.flatten(), slopes)
    assert 0 < slopes.sum() < slopes.numel()
    assert layer.weight_scale.grad.item() == pytest.approx(of_scale, rel=1e-4, abs=1e-6)


def test_each_channel_has_a_scale_with_its_own_gradient():
    model = quantised(nn.Sequential(nn.Linear(7, 4)), weight=ScaledInteger(3, per="channel"))
    learn_scales(model)
    layer = model[0]
    layer.parameter("weight").sum().backward()
    for channel, scale in enumerate(layer.weight_scale.tolist()):
        expected = by_hand(layer.weight[channel], scale, -3, 3, 7)[2]
        assert layer.weight_scale.grad[channel].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_of_data_the_elements_of_one_row_count():
    model = quantised(nn.Sequential(nn.Linear(7, 4)), data_in=ScaledInteger(4, signed=False))
    learn_scales(model)
    layer, x = model[0], torch.rand(5, 7)
    model(x)
    assert layer.data_in_scale.item() == pytest.approx(2 * x.mean().item() / math.sqrt(15))
    layer.data("data_in", x).sum().backward()
    expected = by_hand(x, layer.data_in_scale.item(), 0, 15, 7)[2]
    assert layer.data_in_scale.grad.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_an_affine_format_keeps_its_zero_point():
    fixed = ScaledInteger(4, symmetric=False, signed=False, scale=0.25, zero_point=6)
    model = quantised(nn.Sequential(nn.Linear(7, 4)), data_in=fixed)
    learn_scales(model)
    layer, x = model[0], 4 * torch.randn(5, 7)
    result = layer.data("data_in", x)
    assert torch.equal(result, fixed.quantize(x))
    result.sum().backward()
    expected = by_hand(x, 0.25, -6, 9, 7)[2] * math.sqrt(9) / math.sqrt(15)
    assert layer.data_in_scale.grad.item() == pytest.approx(expected, rel=1e-4)
    with torch.no_grad():
        layer.data_in_scale.mul_(2)
    fix_scales(model)
    assert layer.slots["data_in"] == ScaledInteger(4, symmetric=False, signed=False, scale=0.5, zero_point=6)


def test_a_scale_starts_as_in_the_paper_or_where_it_is_fixed():
    model = quantised(mlp(), weight=W3)
    learn_scales(model)
    for layer in (model[0], model[2]):
        expected = 2 * layer.weight.abs().mean().item() / math.sqrt(3)
        assert layer.weight_scale.item() == pytest.approx(expected)
    model = quantised(mlp(), weight=ScaledInteger(3, scale=0.125))
    learn_scales(model)
    assert model[0].weight_scale.item() == 0.125


def test_pruned_weights_and_empty_channels_do_not_shrink_the_start():
    model = quantised(mlp(), weight=ScaledInteger(3, per="channel"))
    with torch.no_grad():
        model[0].weight[:] = 0
        model[0].weight[1, 2] = 0.5
        model[2].weight[:] = 0
    learn_scales(model)
    assert model[0].weight_scale.tolist() == pytest.approx([2 * 0.5 / math.sqrt(3)] * 5)
    assert model[2].weight_scale.tolist() == pytest.approx([1 / 3] * 3)  # codes to 3 reach to 1


PAIRS = [
    ({"weight": W3, "data_in": ScaledInteger(4)}, mlp, (8, 6)),
    ({"weight": ScaledInteger(3, per="channel"), "bias": ScaledInteger(8)}, conv_net, (8, 3, 6, 6)),
    ({"weight": ScaledInteger(3, per="group", group_size=4)}, conv_net, (8, 3, 6, 6)),
    ({"weight": W3, "data_in": ScaledInteger(4, signed=False, scale=0.1)}, conv_net, (8, 3, 6, 6)),
]


def steps(model, x, count=4):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    y = torch.arange(len(x)) % 3
    model.train()
    for _ in range(count):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize(("slots", "make", "shape"), PAIRS)
def test_fixing_changes_no_bit_and_leaves_plain_formats(slots, make, shape, tmp_path):
    model, x = quantised(make(), **slots), torch.rand(shape)
    before = set(model.state_dict())
    learned = learn_scales(model)
    assert not learned.left
    assert {name for name, _ in model.named_parameters() if is_scale(name, model)} == {
        f"{name}_scale" for name in learned.learned
    }
    started = {name: p.clone() for name, p in model.named_parameters() if is_scale(name, model)}
    steps(model, x)
    moved = {name: p for name, p in model.named_parameters() if is_scale(name, model)}
    assert all(not torch.equal(started[name], moved[name]) for name in moved)
    with torch.no_grad():
        expected = model(x)
    with_gradients = model(x).detach()
    assert not fix_scales(model)
    with torch.no_grad():
        assert torch.equal(model(x), expected)
    assert torch.equal(with_gradients, expected)
    assert set(model.state_dict()) == before
    formats = [f for of in formats_of(model).values() for f in of.values() if isinstance(f, ScaledInteger)]
    assert all(f.scale is not None for f in formats)
    assert all(parse(str(f)) == f for f in formats)
    save(tmp_path, model)
    with torch.no_grad():
        assert torch.equal(load(tmp_path, make())(x), expected)


def test_a_copy_learns_on_its_own():
    model, x = quantised(mlp(), weight=W3, data_in=ScaledInteger(4)), torch.rand(8, 6)
    learn_scales(model)
    model(x)
    twin = copy.deepcopy(model)
    assert twin[0].slots["weight"].scale is twin[0].weight_scale is not model[0].weight_scale
    steps(twin, x)
    assert not torch.equal(twin[0].weight_scale, model[0].weight_scale)


def test_a_scale_that_saw_no_batch_leaves_the_format_as_it_was():
    model = quantised(mlp(), data_in=ScaledInteger(4))
    learn_scales(model)
    with torch.no_grad():
        model(torch.rand(8, 6))  # without gradients nothing starts
    assert set(fix_scales(model)) == {"0.data_in", "2.data_in"}
    assert model[0].slots["data_in"] == ScaledInteger(4)


def test_forgetting_gives_the_formats_back():
    model = quantised(mlp(), weight=W3, data_in=ScaledInteger(4))
    before, names = formats_of(model), list(model.state_dict())
    learn_scales(model)
    steps(model, torch.rand(8, 6))
    forget_scales(model)
    assert formats_of(model) == before
    assert list(model.state_dict()) == names


def test_a_scale_stays_positive():
    model = quantised(mlp(), weight=W3)
    learn_scales(model)
    with torch.no_grad():
        model[0].weight_scale.neg_()
        expected = model(torch.ones(2, 6))
    fix_scales(model)
    assert model[0].slots["weight"].scale > 0
    with torch.no_grad():
        assert torch.equal(model(torch.ones(2, 6)), expected)


def test_functions_learn_the_scale_of_their_operands():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return torch.matmul(self.layer(x), x.transpose(-1, -2))

    model, x = Product(), torch.rand(2, 3, 4)
    trace(model, x)
    apply_assignment(model, {"matmul": {"data_in": ScaledInteger(4), "weight": ScaledInteger(4)}})
    assert learn_scales(model).learned == ["matmul.data_in", "matmul.weight"]
    model(x).sum().backward()
    assert all(p.grad.abs() > 0 for name, p in model.named_parameters() if is_scale(name, model))
    with torch.no_grad():
        expected = model(x)
        fix_scales(model)
        assert torch.equal(model(x), expected)


def test_half_precision_weights_learn_too():
    model = quantised(mlp().bfloat16(), weight=W3)
    learn_scales(model)
    x = torch.rand(4, 6).bfloat16()
    model(x).sum().backward()
    assert model[0].weight_scale.dtype == torch.float32
    assert model[0].weight_scale.grad.isfinite().all()
    expected = model(x)
    fix_scales(model)
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize(
    ("slots", "reason"),
    [
        ({"data_in": ScaledInteger(4, per="channel", axis=1)}, "calibrate first"),
        ({"data_in": ScaledInteger(4, symmetric=False)}, "zero point"),
    ],
)
def test_what_cannot_be_learned_is_told(slots, reason):
    model = quantised(mlp(), weight=W3, **slots)
    found = learn_scales(model)
    assert found.learned == ["0.weight", "2.weight"]
    assert set(found.left) == {"0.data_in", "2.data_in"}
    assert all(reason in text for text in found.left.values())
    only = quantised(mlp(), **slots)
    with pytest.raises(BadInput, match=reason):
        learn_scales(only)
    assert formats_of(only)["0"]["data_in"] == slots["data_in"]


def test_attention_shares_a_slot_between_parameters():
    model = nn.Sequential(nn.MultiheadAttention(4, 2))
    apply_assignment(model, {"0": {"weight": W3, "data_in": ScaledInteger(4)}})
    found = learn_scales(model)
    assert found.learned == ["0.data_in"]
    assert "several parameters" in found.left["0.weight"]


def test_nothing_to_learn_and_learning_twice_are_errors():
    with pytest.raises(BadInput, match="no slot of the model has a scale to learn"):
        learn_scales(mlp())
    model = quantised(mlp(), weight=W3)
    learn_scales(model)
    with pytest.raises(BadInput, match="learned already"):
        learn_scales(model)
    assert isinstance(model[0].slots["weight"], LearnedScale)


def test_a_wrong_number_of_fixed_scales_is_refused_and_nothing_changed():
    model = quantised(mlp(), weight=ScaledInteger(3, per="channel", scale=(0.1, 0.2)))
    before = formats_of(model)
    with pytest.raises(BadInput, match="number of learned scales"):
        learn_scales(model)
    assert formats_of(model) == before
    assert not [name for name in model.state_dict() if "scale" in name]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("after", [True, False])
def test_scales_are_learned_in_any_type_and_survive_a_change_of_it(dtype, after):
    model = quantised(mlp(), data_in=ScaledInteger(8), weight=W3)
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    if not after:
        model.to(dtype)
    learn_scales(model)
    if after:
        model(x).sum().backward()
        model.to(dtype)
    output = model(x.to(dtype))
    assert output.dtype == dtype
    output.float().square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert is_scale(name, model) is False or parameter.grad.any(), name
    learned = model.eval()(x.to(dtype)).detach()
    fix_scales(model)
    assert torch.equal(model(x.to(dtype)), learned)
