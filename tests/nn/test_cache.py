"""Quantised parameters are computed once, never stale, and within the budget."""

import copy
import ctypes
import pickle

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from paretobit.formats import Integer, parse
from paretobit.graph import contents
from paretobit.graph.contents import unchanged
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
    cache, compute, source = TensorCache(budget=4 * 40), Counting(), torch.zeros(10)  # one is the copy of the source
    for key in ("a", "b", "c", "a", *range(7)):
        cache.get(key, source, compute)
    assert (cache.used, compute.calls) == (160, 10)
    for key in ("a", "c", "b", "c", "a"):
        cache.get(key, source, compute)
    assert compute.calls == 10, "all three stayed"
    cache.get("eighth", source, compute)
    cache.get("eighth", source, compute)
    assert (cache.used, compute.calls) == (160, 11)
    cache.get("b", source, compute)
    assert compute.calls == 12, "b was not asked for the longest"


def test_walking_again_and_again_through_more_than_fits_finds_most_of_what_fits():
    cache, compute, source = TensorCache(budget=9 * 40), Counting(), torch.zeros(10)
    for _ in range(20):
        for key in range(10):
            cache.get(key, source, compute)
    assert compute.calls < 20 * 10 / 2


def test_what_is_larger_than_the_budget_is_not_kept():
    cache, compute, source = TensorCache(budget=79), Counting(), torch.zeros(10)
    for _ in range(2):
        assert torch.equal(cache.get("a", source, compute), torch.ones(10))
    assert (compute.calls, cache.used) == (2, 0)


def test_replacing_an_entry_counts_its_bytes_once():
    cache, source = TensorCache(), torch.zeros(10)
    for _ in range(5):
        source.add_(1)
        cache.get("a", source, Counting())
    assert cache.used == 2 * 40, "the result, and a copy of what it was computed from"
    cache.get("b", source, Counting())
    assert cache.used == 3 * 40, "which both share"


def test_results_of_tensors_that_hold_the_same_bits_are_the_same():
    cache, compute = TensorCache(), Counting()
    first = cache.get("a", torch.zeros(10), compute)
    assert cache.get("a", torch.zeros(10), compute) is first, "as a weight that is computed for every run"
    assert cache.get("a", -torch.zeros(10), compute) is not first, "zero has two signs"
    nan = torch.full((3,), torch.nan)
    assert cache.get("b", nan, compute) is cache.get("b", nan, compute)


def test_in_a_block_where_nobody_else_writes_one_look_is_enough(monkeypatch):
    looks = []
    holds = contents.Content.holds
    monkeypatch.setattr(contents.Content, "holds", lambda *given: looks.append(1) or holds(*given))
    cache, source = TensorCache(), torch.zeros(10)
    cache.get("a", source, Counting())
    for _ in range(2):
        looks.clear()
        with unchanged():
            for _ in range(5):
                cache.get("a", source, Counting())
            assert len(looks) == 1
            source.add_(1)
            assert torch.equal(cache.get("a", source, Counting()), source + 1)
        source.data.add_(1)
        assert torch.equal(cache.get("a", source, Counting()), source + 1)


def bytes_of(tensor):
    """The part of its storage that holds a contiguous tensor, which may be a view of a larger one."""
    start = tensor.storage_offset() * tensor.element_size()
    return tensor.detach().untyped_storage()[start : start + tensor.nbytes]


WRITES = {
    "data": lambda p, new: p.data.copy_(new),
    "new data": lambda p, new: setattr(p, "data", new.clone()),
    "numpy": lambda p, new: np.copyto(p.detach().numpy(), new.numpy()),
    "foreach": lambda p, new: torch._foreach_copy_([p.data], [new]),
    "storage": lambda p, new: bytes_of(p).copy_(bytes_of(new.clone())),
    "memory": lambda p, new: ctypes.memmove(p.data_ptr(), new.data_ptr(), new.nbytes),
}


def by_optimizer(kind, **settings):
    def write(model, new):
        optimizer = kind(model.parameters(), lr=0.1, **settings)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()

    return write


def in_inference_mode(model, new):
    with torch.inference_mode():
        for parameter, value in zip(model.parameters(), new, strict=True):
            parameter.copy_(value)


def by_swapping(model, new):
    """As the averages of weights that some evaluate with."""
    average = torch.optim.swa_utils.AveragedModel(model)
    for parameter, value in zip(average.module.parameters(), new, strict=True):
        parameter.data.copy_(value)
    for mine, theirs in zip(model.parameters(), average.module.parameters(), strict=True):
        mine.data, theirs.data = theirs.data, mine.data


def assigned(model, new):
    names = [name for name, _ in model.named_parameters()]
    model.load_state_dict(dict(zip(names, new, strict=True)), assign=True)


def by_vector(model, new):
    nn.utils.vector_to_parameters(torch.cat([value.flatten() for value in new]), model.parameters())


def each(write):
    return lambda model, new: [write(p, value) for p, value in zip(list(model.parameters()), new, strict=True)]


WAYS = {
    **{name: each(write) for name, write in WRITES.items()},
    "fused SGD": by_optimizer(torch.optim.SGD, fused=True),
    "fused Adam": by_optimizer(torch.optim.Adam, fused=True),
    "fused AdamW": by_optimizer(torch.optim.AdamW, fused=True),
    "foreach Adam": by_optimizer(torch.optim.Adam, foreach=True),
    "inference mode": in_inference_mode,
    "swap": by_swapping,
    "assign": assigned,
    "vector": by_vector,
    "prune": lambda model, new: prune.remove(prune.random_unstructured(model[0], "weight", 0.5), "weight"),
}
LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (3, 6)),
    "conv": (lambda: nn.Conv2d(2, 4, 3), (2, 2, 5, 5)),
    "transposed": (lambda: nn.ConvTranspose1d(4, 2, 3, groups=2), (2, 4, 5)),
    "attention": (lambda: nn.MultiheadAttention(4, 2, batch_first=True), (2, 3, 4)),
}
FORMATS = ["integer(width=4, frac_width=2)", "mxfp4", "scaled_integer(width=3, per=channel)", "binary", "fp8_e4m3"]


class Alone(nn.Sequential):
    def forward(self, x):
        return self[0](x, x, x)[0] if isinstance(self[0], nn.MultiheadAttention) else self[0](x)


@settings(max_examples=40, deadline=None)
@given(
    layer=st.sampled_from(sorted(LAYERS)),
    number_format=st.sampled_from(FORMATS),
    ways=st.lists(st.sampled_from(sorted(WAYS)), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
@example("attention", "mxfp4", ["vector", "storage"], 0)
def test_however_a_weight_is_written_the_next_run_computes_with_it(layer, number_format, ways, seed):
    torch.manual_seed(seed)
    make, shape = LAYERS[layer]
    model, x = Alone(make()).eval(), torch.randn(shape)
    made = instrument(model[0], TensorCache())
    made.set_slots({"weight": parse(number_format), "bias": parse("integer(width=5, frac_width=3)")})
    model[0] = made

    @torch.no_grad()
    def run(model):
        return model(x)

    run(model)
    for way in ways:
        if way == "prune" and layer == "attention":
            continue
        new = [torch.randn_like(parameter) for parameter in model.parameters()]
        WAYS[way](model, new)
        with unchanged():
            found = run(model)
            assert torch.equal(found, run(model))
        assert torch.equal(found, run(copy.deepcopy(model))), way


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_copies_start_empty_with_the_same_budget(travel):
    cache = TensorCache(77)
    cache.get("a", torch.zeros(3), Counting())
    arrived = travel(cache)
    assert (arrived.budget, arrived.used) == (77, 0)
