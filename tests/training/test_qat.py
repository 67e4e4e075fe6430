"""Training through every number format: nothing breaks, it learns, and what was trained is what is kept."""

import copy

import pytest
import torch
from torch import nn

from paretobit.errors import BadInput
from paretobit.formats import FORMATS, ScaledInteger, parse
from paretobit.nn import formats_of
from paretobit.nn.masks import masks_of, set_mask
from paretobit.passes.layers.assignment import apply_assignment
from paretobit.passes.transform import reestimate_batch_norm
from paretobit.storage import read_tensors
from paretobit.training import TrainSettings, evaluate, fit

NORMAL_AND_SMALL = """
float
integer(width=8, frac_width=5)
integer(width=3, frac_width=1, gradient=mask)
integer(width=4, frac_width=2, rounding=stochastic)
scaled_integer(width=8)
scaled_integer(width=2, per=channel)
scaled_integer(width=4, symmetric=false)
scaled_integer(width=4, scale=0.25, gradient=mask)
minifloat_ieee(width=8, exponent_width=4)
minifloat_ieee(width=4, exponent_width=2)
minifloat_denorm(width=8, exponent_width=4)
minifloat_denorm(width=4, exponent_width=2)
fp8_e4m3
fp8_e5m2
fp6_e3m2
fp6_e2m3
fp4_e2m1
bf16
fp16
log(width=8)
log(width=4)
block_fp(width=8, exponent_width=8, block_size=16)
block_fp(width=3, exponent_width=4, block_size=4)
block_minifloat(width=8, exponent_width=4, exponent_bias_width=8, block_size=16)
block_minifloat(width=4, exponent_width=2, exponent_bias_width=4, block_size=4)
block_log(width=8, exponent_bias_width=8, block_size=16)
block_log(width=4, exponent_bias_width=4, block_size=4)
mxint8
mxfp8_e4m3
mxfp8_e5m2
mxfp6_e3m2
mxfp6_e2m3
mxfp4
nvfp4
ternary
ternary(scaling=false)
binary
binary(binary_training=false)
binary_scaling
binary_scaling(stochastic=true)
binary_residual
binary_residual(levels=1, per=tensor)
"""
TEXTS = NORMAL_AND_SMALL.split("\n")[1:-1]


def blobs(rows=180, seed=0):
    draws = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (rows,), generator=draws)
    return torch.randn(rows, 4, generator=draws) / 4 + torch.eye(3, 4)[y], y


def reaching_to_one(*modules):
    """Weights of torch's usual size would all be rounded to zero by narrow formats without a scale."""
    model = nn.Sequential(*modules)
    with torch.no_grad():
        for module in model:
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.div_(module.weight.abs().max())
    return model


def mlp():
    torch.manual_seed(0)
    return reaching_to_one(nn.Linear(4, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 3))


def images(rows=60, seed=0):
    x, y = blobs(rows, seed)
    return x.reshape(rows, 1, 2, 2).repeat_interleave(3, 2).repeat_interleave(3, 3), y


def conv_net():
    torch.manual_seed(0)
    return reaching_to_one(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3))


def quantised(model, **slots):
    """Linear and convolution layers carry these formats."""
    paths = [path for path, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    formats = {slot: parse(f) if isinstance(f, str) else f for slot, f in slots.items()}
    apply_assignment(model, dict.fromkeys(paths, formats))
    return model


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def first_gradients(model, x, y):
    nn.functional.cross_entropy(model.train()(x), y).backward()
    return [module.weight.grad for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]


SHORT = {"max_epochs": 5, "batch_size": 30, "learning_rate": 0.01}


def test_every_registered_format_is_trained_here():
    assert {parse(text).name for text in TEXTS} == set(FORMATS.names())


@pytest.mark.parametrize("slot", ["weight", "data_in"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_perceptron_learns_through(text, slot):
    model = quantised(mlp(), **{slot: text})
    gradients = first_gradients(copy.deepcopy(model), *blobs())
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)
    history = fit(model, blobs(), None, TrainSettings(**SHORT))
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    if parse(text).element_bits > 1:
        assert history.epochs[-1].train_loss < 0.8 * history.epochs[0].train_loss


@pytest.mark.parametrize("text", TEXTS)
def test_a_convolutional_net_learns_through(text):
    model = quantised(conv_net(), weight=text, data_in=text, bias=text)
    gradients = first_gradients(copy.deepcopy(model), *images())
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)
    history = fit(model, images(), None, TrainSettings(**{**SHORT, "max_epochs": 4}))
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    if parse(text).element_bits > 1:
        assert history.epochs[-1].train_loss < history.epochs[0].train_loss


DETERMINISTIC = [text for text in TEXTS if parse(text).traits.deterministic]


@pytest.mark.parametrize("text", DETERMINISTIC)
def test_a_fresh_model_with_the_trained_weights_says_the_same(text):
    """The float weights are kept: quantised ones, cached while training, are not mistaken for them."""
    model, val = quantised(mlp(), weight=text, data_in=text), blobs(60, 1)
    history = fit(model, blobs(), val, TrainSettings(**SHORT, keep="last"))
    fresh = quantised(mlp(), weight=text, data_in=text).eval()
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(val[0]), model(val[0]))
    assert evaluate(fresh, *val, 120).loss == history.epochs[-1].val_loss
    if parse(text).element_bits <= 8:
        weight = model[0].weight
        assert not torch.equal(weight, model[0].slots["weight"].quantize(weight.detach()))


@pytest.mark.parametrize(
    ("text", "learned"), [("scaled_integer(width=3)", False), ("scaled_integer(width=3)", True), ("mxfp4", False)]
)
def test_masks_stay(text, learned):
    model = quantised(mlp(), weight=text)
    mask = torch.arange(96).reshape(24, 4) % 3 > 0
    set_mask(model[0], mask)
    fit(model, blobs(), blobs(60, 1), TrainSettings(**SHORT, learned_scales=learned))
    assert torch.equal(masks_of(model)["0"]["weight"], mask)
    assert not model[0].weight[~mask].any()
    assert model[0].weight[mask].all()


def test_statistics_estimated_again_change_nothing_else():
    model = quantised(mlp(), weight="scaled_integer(width=2)", data_in="scaled_integer(width=3)")
    fit(model, blobs(), None, TrainSettings(**SHORT))
    before, formats = state(model), formats_of(model)
    found = reestimate_batch_norm(model, [blobs()[0]])
    assert found["recalibrated"] == ["1"]
    changed = {name for name, value in state(model).items() if not torch.equal(value, before[name])}
    assert changed == {"1.running_mean", "1.running_var"}
    assert formats_of(model) == formats
    with torch.no_grad():
        torch.testing.assert_close(model[1].running_mean, model[0](blobs()[0]).mean(0))


LSQ = {**SHORT, "learned_scales": True}


def test_learned_scales_end_as_plain_formats_of_the_best_epoch(tmp_path):
    model = quantised(mlp(), weight=ScaledInteger(3, per="channel"), data_in=ScaledInteger(3))
    names, val = list(model.state_dict()), blobs(60, 1)
    history = fit(model, blobs(), val, TrainSettings(**LSQ), folder=tmp_path)
    assert list(model.state_dict()) == names
    assert len(formats_of(model)["0"]["weight"].scale) == 24
    assert evaluate(model, *val, 120).loss == history.best.val_loss
    kept = read_tensors(tmp_path / "best" / "weights.safetensors")
    assert tuple(kept["0.weight_scale"].tolist()) == model[0].slots["weight"].scale
    assert history.scales_not_learned == {}


def test_slots_without_a_scale_of_their_own_are_listed():
    model = quantised(mlp(), weight=ScaledInteger(3), data_in=ScaledInteger(3, symmetric=False))
    history = fit(model, blobs(), None, TrainSettings(**LSQ))
    assert set(history.scales_not_learned) == {"0.data_in", "3.data_in"}
    assert formats_of(model)["0"]["data_in"] == ScaledInteger(3, symmetric=False)


def test_a_layer_that_never_runs_is_listed():
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.used(x)

    model = quantised(Skips(), data_in=ScaledInteger(3))
    history = fit(model, blobs(), None, TrainSettings(**LSQ))
    assert history.scales_not_learned == {"unused.data_in": "no batch that was trained on went through it"}
    assert formats_of(model)["unused"]["data_in"] == ScaledInteger(3)
    assert formats_of(model)["used"]["data_in"].scale is not None


def test_an_interrupted_training_of_scales_ends_the_same(tmp_path):
    class Killed(Exception):
        pass

    def kill(epoch):
        if epoch.number == 2:
            raise Killed

    def make():
        return quantised(mlp(), weight=ScaledInteger(3), data_in=ScaledInteger(3))

    settings, val = TrainSettings(**LSQ), blobs(60, 1)
    whole, cut, resumed = make(), make(), make()
    fit(whole, blobs(), val, settings)
    with pytest.raises(Killed):
        fit(cut, blobs(), val, settings, folder=tmp_path, on_epoch=kill)
    assert formats_of(cut)["0"]["data_in"].scale is not None
    assert list(cut.state_dict()) == list(whole.state_dict())
    fit(resumed, blobs(), val, settings, folder=tmp_path, resume=True)
    assert formats_of(resumed) == formats_of(whole)
    assert same(state(resumed), state(whole))


def test_what_ends_before_the_first_epoch_leaves_the_formats():
    model = quantised(mlp(), weight=ScaledInteger(3), data_in=ScaledInteger(3))
    formats, before = formats_of(model), state(model)
    fit(model, blobs(), None, TrainSettings(**{**LSQ, "max_epochs": 0}))
    assert formats_of(model) == formats
    with pytest.raises(BadInput, match="rows"):
        fit(model, (blobs()[0], blobs()[1][:5]), None, TrainSettings(**LSQ))
    assert formats_of(model) == formats
    assert same(state(model), before)


def test_learning_scales_without_scales_is_an_error():
    for model in (mlp(), quantised(mlp(), weight="integer(width=4, frac_width=2)")):
        with pytest.raises(BadInput, match=r"no slot of the model has a scale to learn \(learned_scales\)"):
            fit(model, blobs(), None, TrainSettings(**LSQ))


def test_weights_decay_and_scales_do_not():
    """With no gradient at all (one class, certain), AdamW only decays."""

    def trained(decay):
        model = quantised(nn.Sequential(nn.Linear(4, 1)), weight=ScaledInteger(3))
        x, y = torch.rand(20, 4), torch.zeros(20, dtype=torch.int64)
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([[0.5, -0.5, 0.25, 0.75]]))
        settings = {"optimizer": "adamw", "optimizer_settings": {"weight_decay": decay}, "batch_size": 20}
        fit(model, (x, y), None, TrainSettings(max_epochs=3, learning_rate=0.1, learned_scales=True, **settings))
        return model[0].weight.detach(), model[0].slots["weight"].scale

    (decayed, scale), (left, same_scale) = trained(0.5), trained(0.0)
    torch.testing.assert_close(decayed, left * (1 - 0.05) ** 3)
    assert scale == same_scale == pytest.approx(2 * 0.5 / 3**0.5)


@pytest.mark.slow
def test_training_recovers_what_three_bits_cost(real_data):
    """Pen digits, 3-bit weights and 4-bit data: at least 5 points back."""
    import numpy as np

    from paretobit.models import build

    data = np.load(real_data / "pendigits.npz")
    order = np.random.default_rng(0).permutation(len(data["X"]))
    train, val, test = np.split(order, [7694, 9343])
    mean, deviation = data["X"][train].mean(0), data["X"][train].std(0)

    def split(rows):
        return torch.from_numpy((data["X"][rows] - mean) / deviation).float(), torch.from_numpy(data["y"][rows])

    model = build("jsc-hls4ml", (16,), 10, 0)
    settings = TrainSettings(max_epochs=15, batch_size=128, learning_rate=1e-2, scheduler="onecycle")
    fit(model, split(train), split(val), settings)
    quantised(model, weight=ScaledInteger(3), data_in=ScaledInteger(4))
    ptq = evaluate(model, *split(test), 2048).accuracy
    tuning = TrainSettings(max_epochs=8, batch_size=128, learning_rate=1e-3, scheduler="cosine")
    for learned in (False, True):
        tuned = copy.deepcopy(model)
        how = tuning.model_copy(update={"learned_scales": learned})
        fit(tuned, split(train), split(val), how)
        assert evaluate(tuned, *split(test), 2048).accuracy > ptq + 0.05


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_fused_optimiser_trains_and_validates_as_the_plain_one_does(optimizer):
    """It writes weights without a word to torch: quantised weights and masks must not be those of before."""
    x = torch.randn(120, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    found = []
    for fused in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
        apply_assignment(model, {path: {"weight": parse("integer(width=6, frac_width=4)")} for path in ("0", "2")})
        set_mask(model[2], torch.arange(16).view(2, 8) % 3 > 0)
        more = TrainSettings(
            max_epochs=4, learning_rate=0.05, batch_size=20, optimizer_settings={"fused": fused}, optimizer=optimizer
        )
        history = fit(model, (x[:80], y[:80]), (x[80:], y[80:]), more)
        assert model[2].weight[:, ::3].abs().max() > 0
        assert model[2].weight[~masks_of(model)["2"]["weight"]].abs().max() == 0
        alone = evaluate(copy.deepcopy(model), x[80:], y[80:], 40)
        kept = history.epochs[history.best_epoch - 1]
        assert alone.loss == pytest.approx(kept.val_loss, rel=1e-6)
        found.append([epoch.val_loss for epoch in history.epochs])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
