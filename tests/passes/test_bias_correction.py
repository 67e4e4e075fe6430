"""After the correction layers give on average what the float model's layers give."""

import copy

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.formats import Integer
from paretobit.passes.layers.assignment import apply_assignment
from paretobit.passes.transform import correct_biases
from paretobit.passes.transform.bias_correction import correct_bias_pass, correctable, output_means

COARSE = {"weight": Integer(3, 2), "data_in": Integer(4, 2)}


class Net(nn.Module):
    """Convolutions with and without bias, BatchNorm, a residual sum, a layer that may be called twice."""

    def __init__(self, calls=2):
        super().__init__()
        self.calls = calls
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.bare, self.twice, self.head = nn.Conv2d(4, 4, 1, bias=False), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        y = torch.relu(self.norm(self.conv(x)))
        y = (y + self.bare(y)).mean((2, 3))
        for _ in range(self.calls):
            y = torch.relu(self.twice(y))
        return self.head(y)


def make(calls):
    torch.manual_seed(0)
    model = Net(calls)
    model.train()(torch.randn(64, 2, 6, 6))
    return model.eval()


@pytest.fixture
def net():
    return make(2)


@pytest.fixture
def batches():
    return [torch.randn(50, 2, 6, 6, generator=torch.Generator().manual_seed(0))]


@pytest.fixture
def several():
    return [torch.randn(20 + i, 2, 6, 6, generator=torch.Generator().manual_seed(i)) for i in range(5)]


def quantised(net, slots=("conv", "bare", "twice", "head")):
    model = copy.deepcopy(net)
    apply_assignment(model, dict.fromkeys(slots, COARSE))
    return model


def means_by_hand(model, batches):
    """Of every layer with a bias: the mean of each channel over all calls, by hooks."""
    seen = {}

    def see(name):
        return lambda layer, args, output: seen.setdefault(name, []).append(
            output.detach().movedim(1, -1).flatten(0, -2) if output.ndim == 4 else output.detach()
        )

    hooks = [model.get_submodule(n).register_forward_hook(see(n)) for n in ("conv", "twice", "head")]
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts).double().mean(0) for name, parts in seen.items()}


def test_the_means_are_those_of_all_channels_over_all_calls_so_far(net, several):
    found = output_means(net, several)
    assert {name: len(means) for name, means in found.items()} == {"conv": 5, "twice": 10, "head": 5}
    assert set(found) == set(correctable(net))
    for seen in (1, 3, 5):
        for name, mean in means_by_hand(net, several[:seen]).items():
            there = found[name][(2 * seen if name == "twice" else seen) - 1]
            torch.testing.assert_close(there, mean, atol=1e-6, rtol=1e-6)


def test_layers_give_the_float_models_means_afterwards(batches):
    net = make(1)
    model = quantised(net)
    before = means_by_hand(model, batches)
    wanted = means_by_hand(net, batches)
    shifts = correct_biases(model, output_means(net, batches), batches)
    after = means_by_hand(model, batches)
    assert set(shifts) == {"conv", "twice", "head"}
    for name in shifts:
        torch.testing.assert_close(after[name], wanted[name], atol=1e-5, rtol=1e-5)
    assert max(float((before[n] - wanted[n]).abs().max()) for n in shifts) > 1e-2
    assert shifts["conv"] == pytest.approx(float((model.conv.bias - net.conv.bias).detach().abs().max()), rel=1e-4)


def test_over_several_batches_the_means_come_close(several):
    net = make(1)
    model, wanted = quantised(net), means_by_hand(net, several)
    before = means_by_hand(model, several)
    correct_biases(model, output_means(net, several), several)
    after = means_by_hand(model, several)
    for name in wanted:
        left = (after[name] - wanted[name]).abs().max()
        assert left < 0.2 * (before[name] - wanted[name]).abs().max(), name


def test_weights_statistics_modes_and_formats_stay(net, batches):
    model = quantised(net).train()
    model.head.eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    correct_biases(model, output_means(net, batches), batches)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"conv.bias", "twice.bias", "head.bias"}
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks for m in model.modules())
    assert model.conv.slots["weight"] == COARSE["weight"]


def test_a_float_model_needs_no_correction(net, several):
    model = copy.deepcopy(net)
    shifts = correct_biases(model, output_means(net, several), several)
    assert set(shifts) == {"conv", "twice", "head"}
    assert max(shifts.values()) < 1e-6


def test_other_batches_than_the_float_models_are_refused(net, several):
    with pytest.raises(BadInput, match="other batches than the float model ran on"):
        correct_biases(quantised(net), output_means(net, several[:2]), several)


def test_the_pass_corrects_a_copy_against_the_model_without_formats(net, batches):
    graph = pb.trace(net, batches[0][:1])
    coarse = graph.with_model(quantised(net))
    before = copy.deepcopy(coarse.model.state_dict())
    corrected, info = correct_bias_pass(coarse, {}, batches)
    by_hand = quantised(net)
    correct_biases(by_hand, output_means(net, batches), batches)
    assert all(torch.equal(t, by_hand.state_dict()[n]) for n, t in corrected.model.state_dict().items())
    assert all(torch.equal(t, before[n]) for n, t in coarse.model.state_dict().items())
    assert info["batches"] == 1
    assert set(info["corrected"]) == {"conv", "twice", "head"}


def test_without_a_batch_or_with_a_key_it_is_refused(net):
    graph = pb.trace(net, torch.randn(1, 2, 6, 6))
    with pytest.raises(BadInput, match="bias correction needs data"):
        correct_bias_pass(graph, {}, [])
    with pytest.raises(BadInput, match="strength"):
        correct_bias_pass(graph, {"strength": 1}, [torch.randn(4, 2, 6, 6)])
