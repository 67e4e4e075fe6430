"""Scales fixed over a stream of batches are those that all data together need."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from many_cases import each
from torch import nn

from paretobit.errors import BadInput
from paretobit.formats import FULL, Integer, ScaledInteger, make
from paretobit.graph import trace
from paretobit.models import build
from paretobit.passes.layers.assignment import apply_assignment, assignment_of
from paretobit.passes.transform import calibrate, fit_frac_width, freeze_scales


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 5)).eval()


def data(rows=96):
    """Images whose channels differ in range and sign."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 3, 6, 6, generator=generator)
    return x * torch.tensor([0.1, 1.0, 30.0]).view(1, 3, 1, 1) + torch.tensor([0.0, 5.0, 0.0]).view(1, 3, 1, 1)


def streamed(model, x, formats, layer="0", slot="data_in", **more):
    found = calibrate(model, torch.split(x, 7), {layer: {slot: formats}}, **more)
    return found[layer][slot]


MAX = [
    ScaledInteger(8),
    ScaledInteger(4, signed=False),
    ScaledInteger(8, symmetric=False),
    ScaledInteger(8, signed=False, symmetric=False),
    ScaledInteger(8, per="channel", axis=1),
    ScaledInteger(5, per="channel", axis=-3, symmetric=False),
]


@pytest.mark.parametrize("number_format", MAX, ids=str)
def test_the_maximum_is_exact(net, number_format):
    x = data()
    assert streamed(net, x, [number_format])[number_format] == number_format.calibrated(x)


@pytest.mark.parametrize(("axis", "error"), [(None, 2**-11), (1, 2**-9)])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("percentile", [99.9, 99.0, 80.0])
def test_percentiles_are_right_to_half_a_bin(net, axis, error, symmetric, percentile):
    x = data()
    per = "tensor" if axis is None else "channel"
    f = ScaledInteger(8, per=per, axis=axis, calibration="percentile", percentile=percentile, symmetric=symmetric)
    found, exact = streamed(net, x, [f])[f], f.calibrated(x)
    for a, b in zip(*(torch.tensor(g.scale).flatten() for g in (found, exact)), strict=True):
        assert a.item() == pytest.approx(b.item(), rel=2 * error)  # a range has two ends


@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("number_format", [ScaledInteger(w, calibration="mse") for w in (2, 4, 8)], ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_smallest_squared_error_is_found(net, number_format, axis, symmetric):
    x = data().sign() * data().square()  # heavy tails: clipping pays
    per = "tensor" if axis is None else "channel"
    f = ScaledInteger(number_format.width, calibration="mse", per=per, axis=axis, symmetric=symmetric)
    found, exact = streamed(net, x, [f])[f], f.calibrated(x)
    error, least, of_max = (
        (g.quantize(x) - x).double().square().sum().item()
        for g in (found, exact, ScaledInteger(f.width, per=per, axis=axis, symmetric=symmetric))
    )
    assert least <= error * (1 + 1e-6)
    assert error <= least * 1.01
    if f.width == 2:
        assert error < 0.9 * of_max


def test_one_pass_serves_all_formats_and_layers(net):
    runs = []
    net.register_forward_hook(lambda *_: runs.append(1))
    f, g = ScaledInteger(8), ScaledInteger(4, calibration="mse")
    x = data()
    found = calibrate(
        net,
        torch.split(x, 48),
        {"0": {"data_in": [f, g], "weight": [f]}, "1": {"data_in": [f]}, "3": {"data_in": [f], "weight": [g]}},
    )
    assert sum(runs) == 2
    with torch.no_grad():
        hidden = net[0](x)
    assert found["1"]["data_in"][f] == f.calibrated(hidden)
    assert found["3"]["data_in"][f] == f.calibrated(hidden.relu())
    assert found["0"]["weight"][f] == f.calibrated(net[0].weight)
    assert found["3"]["weight"][g] == g.calibrated(net[3].weight)


def test_functions_are_calibrated_at_their_sites():
    class Product(nn.Module):
        def forward(self, x):
            return torch.relu(x @ x.transpose(1, 2)) + 3

    x = torch.randn(20, 4, 5, generator=torch.Generator().manual_seed(0))
    f, symmetric = ScaledInteger(8, symmetric=False), ScaledInteger(4)
    model = Product()
    found = calibrate(
        trace(model, x[:1]),
        x.split(6),
        {"matmul": {"data_in": [f], "weight": [symmetric]}, "relu": {"data_in": [f]}, "add": {"data_in": [f]}},
    )
    product = x @ x.transpose(1, 2)
    assert found["matmul"] == {"data_in": {f: f.calibrated(x)}, "weight": {symmetric: symmetric.calibrated(x)}}
    assert found["relu"]["data_in"][f] == f.calibrated(product)
    assert found["add"]["data_in"][f] == f.calibrated(product.relu())
    apply_assignment(model, {"relu": {"data_in": f}})
    frozen, info = freeze_scales(trace(model, x[:1]), [x])
    assert set(info["assignment"]) == {"relu"}
    assert torch.equal(frozen.model(x), model(x))


def test_a_transposed_weight_has_the_channels_of_its_outputs():
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(4, 6, 3, groups=2)
    f = ScaledInteger(4, per="channel")
    fixed = calibrate(nn.Sequential(layer), [], {"0": {"weight": [f]}})["0"]["weight"][f]
    by_output = layer.weight.unflatten(0, (2, 2)).transpose(1, 2).flatten(0, 1)  # out, in / groups, ...
    assert fixed == f.calibrated(by_output)
    assert len(fixed.scale) == 6
    results = []
    for g in (f, fixed):
        model = nn.Sequential(copy.deepcopy(layer))
        apply_assignment(model, {"0": {"weight": g}})
        results.append(model(torch.ones(1, 4, 5, 5)))
    assert torch.equal(*results)


def test_formats_that_need_no_data_come_back_as_they_are(net):
    kept = [Integer(8, 4), FULL, make("mxfp4"), make("fp8_e4m3"), ScaledInteger(8, scale=0.5)]
    assert streamed(net, data(), kept) == {f: f for f in kept}
    found = calibrate(net, [], {"0": {"weight": [ScaledInteger(8, per="channel"), Integer(8)]}})
    assert list(found["0"]["weight"].values()) == [
        ScaledInteger(8, per="channel").calibrated(net[0].weight),
        Integer(8),
    ]


def test_nan_does_not_count_and_infinity_has_no_scale(net):
    x = data()
    x[0, 0, 0, 0] = math.nan
    f = ScaledInteger(8)
    assert streamed(net, x, [f])[f] == f.calibrated(x)
    x[1, 0, 0, 0] = -math.inf
    for g in (f, Integer(8)):
        with pytest.raises(BadInput, match=r"\(0\.data_in"):
            streamed(net, x, [g], fit_integers=True)
    robust = ScaledInteger(8, calibration="percentile", percentile=99)
    assert streamed(net, x, [robust])[robust].scale == pytest.approx(robust.calibrated(x).scale, rel=2**-10)


def test_zeros_alone_have_the_smallest_scale(net):
    x = torch.zeros(14, 3, 6, 6)
    for calibration in ("max", "percentile", "mse"):
        f = ScaledInteger(8, calibration=calibration)
        assert streamed(net, x, [f])[f].scale == 2.0**-126


def test_the_model_is_left_as_it_was(net):
    model = build("digits-cnn", (1, 8, 8), 10).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    f = ScaledInteger(8)
    calibrate(trace(model, torch.zeros(1, 1, 8, 8)), [torch.rand(4, 1, 8, 8)], {"features.0": {"data_in": [f]}})
    assert type(model.features[0]) is nn.Conv2d
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ({"9": {"weight": [ScaledInteger(8)]}}, "no such layer"),
        ({"0": {"wieght": [ScaledInteger(8)]}}, r"\(candidates\.0\).*did you mean 'weight'"),
        ({"0": {"data_in": [ScaledInteger(8, per="channel")]}}, r"per row or per group \(0\.data_in\)"),
        ({"0": {"data_in": [ScaledInteger(8, per="group")]}}, "per row or per group"),
        ({"2": {"data_in": [ScaledInteger(8)]}}, "Flatten"),
    ],
)
def test_what_data_cannot_fix_is_refused(net, candidates, message):
    with pytest.raises(BadInput, match=message):
        calibrate(net, [data()], candidates)


def test_no_data_and_layers_that_do_not_run_are_refused(net):
    with pytest.raises(BadInput, match="needs data"):
        calibrate(net, [], {"0": {"data_in": [ScaledInteger(8)]}})

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.a(x)

    with pytest.raises(BadInput, match=r"did not run on this data \(b\.data_in\)"):
        calibrate(Half(), [torch.zeros(1, 3)], {"b": {"data_in": [ScaledInteger(8)]}})


def test_frozen_scales_give_the_same_results_on_the_data_they_come_from(net):
    x = data()
    f = ScaledInteger(6)
    apply_assignment(net, {"0": {"data_in": f, "weight": ScaledInteger(4, per="channel")}, "3": {"weight": f}})
    before = copy.deepcopy(net)
    graph, info = freeze_scales(trace(net, x[:1]), [x])
    assert torch.equal(graph.model(x), net(x))
    frozen = assignment_of(graph.model)
    assert all(g.scale is not None for slots in frozen.values() for g in slots.values() if g is not FULL)
    assert set(info["assignment"]) == {"0", "3"}
    assert set(info["assignment"]["0"]) == {"data_in", "weight"}
    assert len(frozen["0"]["weight"].scale) == 4
    assert assignment_of(net) == assignment_of(before)
    assert not torch.equal(graph.model(3 * x), net(3 * x))  # a fixed scale saturates


def test_freezing_again_changes_nothing(net):
    x = data()
    apply_assignment(net, {"0": {"data_in": ScaledInteger(6), "bias": Integer(8)}})
    once, _ = freeze_scales(trace(net, x[:1]), [x])
    again, info = freeze_scales(once, [])
    assert info == {"assignment": {}}
    assert assignment_of(again.model) == assignment_of(once.model)


@given(st.integers(1, 24), st.booleans(), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_frac_width_is_the_largest_that_holds_the_range(width, signed, one, other):
    low, high = min(one, other), max(one, other)
    f = fit_frac_width(Integer(width, signed=signed), low, high)
    relevant = [v for v in (low, high) if v and (v > 0 or signed) and not (v > 0 and width == 1 and signed)]
    if not relevant:
        assert f == Integer(width, signed=signed)
        return

    def holds(frac_width):
        bottom, top = f.code_range
        return all(bottom <= round(math.ldexp(v, frac_width)) <= top for v in relevant)

    if -120 < f.frac_width < 120:
        assert holds(f.frac_width)
        assert not holds(f.frac_width + 1)


def test_frac_widths_follow_the_data_where_asked(net):
    x = data().clamp(-3.9, 3.9)
    assert streamed(net, x, [Integer(8, 4)], fit_integers=True) == {Integer(8, 4): Integer(8, 5)}
    assert streamed(net, x, [Integer(8, 4)]) == {Integer(8, 4): Integer(8, 4)}
    fixed = streamed(net, x, [Integer(8)], slot="weight", fit_integers=True)[Integer(8)]
    largest = net[0].weight.abs().max().item()
    assert 2.0 ** -(fixed.frac_width + 1) * 127.5 < largest <= 2.0**-fixed.frac_width * 128


class Cast(nn.Module):
    """Autocast within the model: the second layer is given another type than its weights have."""

    def __init__(self, dtype):
        super().__init__()
        self.first, self.second, self.dtype = nn.Linear(6, 8), nn.Linear(8, 3), dtype

    def forward(self, x):
        with torch.autocast("cpu", self.dtype):
            return self.second(self.first(x).relu())


@each("dtype", [torch.float16, torch.bfloat16])
def test_half_types_have_the_scales_of_the_same_numbers_in_float32(dtype):
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.randn(60, 6) * 1e-4  # scales of float16 would be subnormal or zero
    half, cast = copy.deepcopy(whole).to(dtype), Cast(dtype)
    cast.load_state_dict(dict(zip(cast.state_dict(), whole.state_dict().values(), strict=True)))
    formats = [ScaledInteger(8), ScaledInteger(12, symmetric=False), ScaledInteger(6, calibration="mse")]
    formats += [ScaledInteger(8, calibration="percentile", percentile=90.0), ScaledInteger(8, per="channel", axis=1)]
    expected = streamed(whole, x, formats, "2", "data_in")
    first = streamed(half, x.to(dtype), formats, "0", "data_in")
    for own in formats[:2]:
        assert first[own] == own.calibrated(x.to(dtype).float())
    for found in (streamed(half, x.to(dtype), formats, "2"), streamed(cast, x, formats, "second")):
        for own in formats:
            one, other = (torch.tensor(f[own].scale) for f in (found, expected))
            assert torch.allclose(one, other, rtol=0.03)
            quantised = found[own].quantize(torch.ones(2, 8, dtype=dtype).requires_grad_())
            assert quantised.dtype == dtype
            assert quantised.isfinite().all()
