"""Quantised parameters are computed once, never stale, and within the budget."""

import copy
import pickle

import pytest
import torch
from torch import nn

from paretobit.formats import Integer
from paretobit.nn import TensorCache, instrument

F84 = Integer(8, 4)


class Counting:
    """A computation that counts how often it ran."""

    def __init__(self):
        self.calls = 0

    def __call__(self, source):
        self.calls += 1
        return source + 1


@pytest.fixture
def layer():
    layer = instrument(nn.Linear(32, 32), TensorCache())
    layer.set_slots({"weight": F84})
    return layer


@torch.no_grad()
def is_fresh(layer):
    return torch.equal(layer.parameter("weight"), F84.quantize(layer.weight))


def test_the_same_source_is_computed_once():
    cache, compute, source = TensorCache(), Counting(), torch.zeros(3)
    assert cache.get("k", source, compute) is cache.get("k", source, compute)
    assert compute.calls == 1
    cache.get("other", source, compute)
    assert compute.calls == 2


@torch.no_grad()
def test_weights_are_quantised_once_per_format(layer):
    first = layer.parameter("weight")
    layer.set_slots({"weight": Integer(4, 2)})
    second = layer.parameter("weight")
    layer.set_slots({"weight": F84})
    assert layer.parameter("weight") is first
    assert not torch.equal(first, second)


@torch.no_grad()
def change_in_place(layer, value):
    layer.weight.fill_(value)


def replace(layer, value):
    layer.weight = nn.Parameter(torch.full((32, 32), value))


def replace_twice(layer, value):
    replace(layer, 5.0)
    replace(layer, value)


def load(layer, value):
    layer.load_state_dict({"weight": torch.full((32, 32), value), "bias": torch.zeros(32)})


def load_assigning(layer, value):
    layer.load_state_dict({"weight": torch.full((32, 32), value), "bias": torch.zeros(32)}, assign=True)


def new_data(layer, value):
    layer.weight.data = torch.full((32, 32), 5.0)
    layer.weight.data = torch.full((32, 32), value)


def step(layer, value):
    layer.weight.grad = layer.weight.detach() - value
    torch.optim.SGD(layer.parameters(), 1.0).step()


@pytest.mark.parametrize("change", [change_in_place, replace, replace_twice, load, load_assigning, new_data, step])
def test_cached_weights_are_never_stale(layer, change):
    for i in range(40):
        change(layer, float(i % 7))
        assert is_fresh(layer)


def test_a_dtype_changed_by_the_module_is_seen(layer):
    assert is_fresh(layer)
    layer.double()
    assert layer.parameter("weight").dtype == torch.float64
    assert is_fresh(layer)


def test_gradients_never_come_from_the_cache(layer):
    assert is_fresh(layer)
    layer(torch.ones(1, 32)).sum().backward()
    assert torch.equal(layer.weight.grad, torch.ones(32, 32))


def test_inference_mode_leaves_nothing_that_training_cannot_use(layer):
    layer.requires_grad_(False)
    with torch.inference_mode():
        layer(torch.ones(1, 32))
    x = torch.ones(1, 32, requires_grad=True)
    layer(x).sum().backward()
    assert torch.allclose(x.grad, F84.quantize(layer.weight).sum(0))


def test_a_model_made_in_inference_mode_runs():
    with torch.inference_mode():
        layer = instrument(nn.Linear(3, 2), TensorCache())
        layer.set_slots({"weight": F84})
        layer.weight.fill_(0.3)
        layer.parameter("weight")
        layer.weight.fill_(0.5)
        assert layer.parameter("weight").unique().tolist() == [0.5]


def test_of_what_comes_to_a_full_cache_every_eighth_takes_the_place_of_the_least_recently_used():
    cache, compute, source = TensorCache(budget=3 * 40), Counting(), torch.zeros(10)
    for key in ("a", "b", "c", "a", *range(7)):
        cache.get(key, source, compute)
    assert (cache.used, compute.calls) == (120, 10)
    for key in ("a", "c", "b", "c", "a"):
        cache.get(key, source, compute)
    assert compute.calls == 10, "all three stayed"
    cache.get("eighth", source, compute)
    cache.get("eighth", source, compute)
    assert (cache.used, compute.calls) == (120, 11)
    cache.get("b", source, compute)
    assert compute.calls == 12, "b was not asked for the longest"


def test_walking_again_and_again_through_more_than_fits_finds_most_of_what_fits():
    cache, compute, source = TensorCache(budget=8 * 40), Counting(), torch.zeros(10)
    for _ in range(20):
        for key in range(10):
            cache.get(key, source, compute)
    assert compute.calls < 20 * 10 / 2


def test_only_what_was_computed_from_these_tensors_as_they_are_stays():
    cache, compute = TensorCache(), Counting()
    kept, changed, other = torch.zeros(10), torch.zeros(10), torch.zeros(10)
    for key, source in zip("abc", (kept, changed, other), strict=True):
        cache.get(key, source, compute)
    changed.add_(1)
    cache.keep_only({id(kept), id(changed)})
    assert cache.used == 40
    cache.get("a", kept, compute)
    assert compute.calls == 3


def test_what_is_larger_than_the_budget_is_not_kept():
    cache, compute, source = TensorCache(budget=39), Counting(), torch.zeros(10)
    for _ in range(2):
        assert torch.equal(cache.get("a", source, compute), torch.ones(10))
    assert (compute.calls, cache.used) == (2, 0)


def test_replacing_an_entry_counts_its_bytes_once():
    cache, source = TensorCache(), torch.zeros(10)
    for _ in range(5):
        source.add_(1)
        cache.get("a", source, Counting())
    assert cache.used == 40


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_copies_start_empty_with_the_same_budget(travel):
    cache = TensorCache(77)
    cache.get("a", torch.zeros(3), Counting())
    arrived = travel(cache)
    assert (arrived.budget, arrived.used) == (77, 0)
