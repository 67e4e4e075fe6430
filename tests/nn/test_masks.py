"""What is masked is zero: after every step, copy, pickle, state dict and change of formats."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.formats import Binary, Integer, ScaledInteger
from paretobit.nn import Quantized, TensorCache, instrument
from paretobit.nn.masks import (
    effective_weight,
    masks_in,
    masks_in_state,
    masks_of,
    place_masks,
    set_mask,
    sparsity_of,
    zeros_in,
)

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
}


@pytest.fixture
def mask():
    return torch.tensor([[True, False, True, True], [False, False, True, False], [True, True, False, True]])


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def train(model, optimizer, steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4, generator=generator)).square().sum().backward()
        optimizer.step()


def test_a_mask_makes_exact_zeros_and_leaves_the_rest(layer, mask):
    before = layer.weight.detach().clone()
    set_mask(layer, mask)
    assert torch.equal(layer.weight, torch.where(mask, before, 0))
    assert torch.equal(layer.weight_mask, mask)
    assert layer.weight_mask is not mask
    assert list(layer.state_dict()) == ["weight", "bias", "weight_mask"]
    x = torch.randn(5, 4)
    assert torch.equal(layer(x), F.linear(x, torch.where(mask, before, 0), layer.bias))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("begun", [False, True], ids=["fresh", "with momentum from before"])
def test_masked_weights_are_zero_after_every_step(layer, mask, name, begun):
    optimizer = OPTIMIZERS[name](layer.parameters())
    if begun:
        train(layer, optimizer, 3)
    set_mask(layer, mask)
    kept = layer.weight[mask].clone()
    for step in range(5):
        train(layer, optimizer, 1, seed=step)
        assert zeros_in(layer.weight[~mask]) == 5
        assert zeros_in(layer.weight[mask]) == 0
    assert not torch.equal(layer.weight[mask], kept)


def test_training_is_that_of_weight_times_mask(layer, mask):
    """The oracle multiplies by the mask inside the graph, as the definition says."""
    weight = nn.Parameter(layer.weight.detach() * mask)
    bias = nn.Parameter(layer.bias.detach().clone())
    set_mask(layer, mask)
    ours, theirs = OPTIMIZERS["adam"](layer.parameters()), OPTIMIZERS["adam"]([weight, bias])
    for _ in range(4):
        x = torch.randn(8, 4)
        for optimizer, y in ((ours, layer(x)), (theirs, F.linear(x, weight * mask, bias))):
            optimizer.zero_grad()
            y.square().sum().backward()
        assert torch.equal(layer.weight.grad, weight.grad)
        assert zeros_in(layer.weight.grad[~mask]) == 5
        ours.step()
        theirs.step()
    assert torch.equal(layer.weight, weight * mask)


def test_a_layer_that_runs_twice_in_one_pass_still_trains(layer, mask):
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(3, 4), layer)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    set_mask(layer, mask)
    for _ in range(3):
        with torch.no_grad():
            layer.weight.add_(0.1)  # a change that is put right at the first of both calls
        optimizer.zero_grad()
        model(torch.randn(2, 4)).sum().backward()
        assert zeros_in(layer.weight) == 5
        optimizer.step()


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def saved_whole(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, saved_whole])
@pytest.mark.parametrize("ran", [False, True])
def test_copies_keep_masks_of_their_own(layer, mask, copied, ran):
    set_mask(layer, mask)
    if ran:
        layer(torch.randn(2, 4)).sum().backward()
    twin = copied(layer)
    assert torch.equal(masks_in(twin)["weight"], mask)
    train(twin, OPTIMIZERS["sgd"](twin.parameters()), 2)
    assert zeros_in(twin.weight) == 5
    set_mask(twin, torch.zeros_like(mask))
    assert zeros_in(twin.weight) == 12
    assert zeros_in(layer.weight) == 5


def test_a_state_dict_carries_the_mask_and_loading_it_masks(layer, mask):
    set_mask(layer, mask)
    other = nn.Linear(4, 3)
    place_masks(other, {"": ["weight"]})
    assert zeros_in(other.weight) == 0
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.weight, layer.weight)
    assert torch.equal(other.weight_mask, mask)
    dense = {**layer.state_dict(), "weight": torch.ones(3, 4)}
    other.load_state_dict(dense)
    assert zeros_in(other.weight) == 5
    place_masks(other, {"": ["weight"]})
    assert torch.equal(other.weight_mask, mask)  # what is there stays


def test_the_masks_of_a_state_dict_are_found_for_a_model_that_has_none(layer, mask):
    set_mask(layer, mask)
    state = nn.Sequential(nn.Linear(2, 4), layer).state_dict()
    plain = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 3))
    assert masks_in_state(state, plain) == {"1": ["weight"]}
    place_masks(plain, masks_in_state(state, plain))
    plain.load_state_dict(state)
    assert torch.equal(plain[1].weight, layer.weight)
    assert masks_in_state(state, plain) == {}
    assert masks_in_state({"weight_mask": torch.ones(3, 4), "bias_mask": torch.ones(2).bool()}, layer) == {}


def test_a_state_dict_is_masked_whatever_was_done_to_the_weights(layer, mask):
    set_mask(layer, mask)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    assert zeros_in(layer.state_dict()["weight"]) == 5
    layer.weight.data.fill_(1.0)  # which torch hides
    assert zeros_in(layer.state_dict()["weight"]) == 5


@pytest.mark.parametrize("first", ["mask", "format"])
def test_masked_and_quantised_in_either_order(layer, mask, first):
    number_format = Integer(4, 3)
    expected = number_format.quantize(torch.where(mask, layer.weight.detach(), 0))
    if first == "mask":
        set_mask(layer, mask)
    quantised = instrument(layer, TensorCache())
    quantised.set_slots({"weight": number_format})
    if first == "format":
        set_mask(layer, mask)
    layer.eval()
    x = torch.randn(6, 4)
    with torch.no_grad():
        assert torch.equal(layer(x), F.linear(x, expected, layer.bias))
    assert isinstance(layer, Quantized)
    assert torch.equal(effective_weight(layer), expected)
    train(layer.train(), OPTIMIZERS["sgd"](layer.parameters()), 3)
    assert zeros_in(effective_weight(layer)[~mask]) == zeros_in(layer.weight[~mask]) == 5


def test_the_cache_of_quantised_weights_follows_the_mask(layer, mask):
    cache = TensorCache()
    instrument(layer, cache).set_slots({"weight": Integer(8, 6)})
    layer.eval()
    with torch.no_grad():
        dense = layer.parameter("weight")
        assert layer.parameter("weight") is dense
        set_mask(layer, mask)
        layer(torch.randn(2, 4))
        sparse = layer.parameter("weight")
        layer(torch.randn(2, 4))
        assert layer.parameter("weight") is sparse  # running does not touch what is masked already
    assert torch.equal(sparse, torch.where(mask, dense, 0))


def test_scales_are_those_of_the_masked_weights(layer):
    largest = layer.weight.detach().abs() == layer.weight.detach().abs().max()
    set_mask(layer, ~largest)
    instrument(layer, TensorCache()).set_slots({"weight": ScaledInteger(width=4)})
    kept = torch.where(largest, 0, layer.weight.detach())
    assert torch.equal(effective_weight(layer), ScaledInteger(width=4).quantize(kept))


def test_sparsity_counts_the_zeros_a_layer_computes_with():
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.ReLU(), nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.3, 0.1, 1.0, -1.0], [0.0, 0.5, 0.2, 0.9]]))
        model[2].weight.fill_(1.0)
        model[3].weight.fill_(1.0)
    set_mask(model[2], torch.tensor([[True, False], [False, False]]))
    set_mask(model[3], torch.tensor([[True, False], [False, False]]))
    cache = TensorCache()
    instrument(model[0], cache).set_slots({"weight": Integer(4, 1)})  # a step of 0.5 rounds 0.2 to 0
    instrument(model[3], cache).set_slots({"weight": Binary()})  # has no zero
    assert sparsity_of(model) == {"0": 3 / 8, "2": 3 / 4, "3": 0.0}


def test_masks_of_names_every_masked_parameter(layer, mask):
    model = nn.Sequential(nn.Linear(4, 4), layer)
    set_mask(layer, mask)
    set_mask(layer, torch.tensor([True, False, True]), "bias")
    assert {path: sorted(masks) for path, masks in masks_of(model).items()} == {"1": ["bias", "weight"]}
    assert layer.bias[1] == 0
    model.double()
    assert masks_in(layer)["weight"].dtype == torch.bool


def test_in_inference_mode_masks_hold_too(mask):
    with torch.inference_mode():
        layer = nn.Linear(4, 3)
        set_mask(layer, mask)
        layer.weight.fill_(1.0)
        y = layer(torch.eye(4)) - layer.bias
    assert torch.equal(y.T != 0, mask)


def test_masks_that_do_not_fit_are_refused(layer, mask):
    with pytest.raises(BadInput, match=r"no such parameter.*'weigth'.*did you mean 'weight'"):
        set_mask(layer, mask, "weigth")
    with pytest.raises(BadInput, match=r"does not fit.*\(4, 3\).*\(3, 4\)"):
        set_mask(layer, mask.T)
    with pytest.raises(BadInput, match=r"does not fit.*float32"):
        set_mask(layer, mask.float())
    with pytest.raises(BadInput, match="no such layer"):
        place_masks(nn.Sequential(layer), {"1": ["weight"]})
    assert masks_of(layer) == {}
