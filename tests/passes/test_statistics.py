"""Statistics streamed over batches are those of all data at once, in memory that does not grow."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.formats import ScaledInteger, make
from paretobit.graph import trace
from paretobit.models import build
from paretobit.passes.analysis import statistics
from paretobit.passes.streaming import Magnitudes, Moments, decibels


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 5))
    return trace(model, torch.zeros(2, 1, 8, 8))


def batches(number=6, rows=16):
    generator = torch.Generator().manual_seed(1)
    return [3 * torch.randn(rows, 1, 8, 8, generator=generator) + 1 for _ in range(number)]


def layer_tensors(model, x):
    """Input and output of every layer of a sequential model, by name, layers out of place."""
    seen = {}
    with torch.no_grad():
        for name, layer in model.eval().named_children():
            seen[name, "input"] = x
            x = F.relu(x) if isinstance(layer, nn.ReLU) else layer(x)
            seen[name, "output"] = x
    return seen


def test_all_numbers_are_those_of_numpy_on_all_data_at_once(net):
    expected = layer_tensors(net.model, torch.cat(batches()))
    rows = statistics(net, batches(), tensors=("input", "output"))
    assert {(row.layer, row.tensor) for row in rows} == set(expected)
    for row in rows:
        values = expected[row.layer, row.tensor].numpy().astype(np.float64).ravel()
        assert row.count == row.finite == values.size
        assert row.zeros == (values == 0).sum()
        assert row.mean == pytest.approx(values.mean(), rel=1e-5, abs=1e-7)
        assert row.variance == pytest.approx(values.var(), rel=1e-5)
        assert row.minimum == pytest.approx(values.min(), rel=1e-5)
        assert row.maximum == pytest.approx(values.max(), rel=1e-5)
        for share, found in row.quantiles.items():
            exact = np.quantile(np.abs(values), share, method="inverted_cdf")
            assert found == pytest.approx(exact, rel=2**-9 + 1e-5)
        exponents = np.floor(np.log2(np.abs(values[values != 0]))).astype(int)
        counted = dict(zip(*(part.tolist() for part in np.unique(exponents, return_counts=True)), strict=True))
        differing = set(row.octaves.items()) ^ set(counted.items())
        assert sum(row.octaves.values()) == exponents.size
        assert not differing if (row.layer, row.tensor) == ("0", "input") else len(differing) <= 4


def test_parameters_are_described_without_data(net):
    (weight, bias) = statistics(net, [], tensors=["weight"], by="name", keys=["4"], quantiles=[0.5, 1.0])
    values = net.model[4].weight.detach().double()
    assert (weight.layer, weight.op, weight.tensor, bias.tensor) == ("4", "linear", "weight", "bias")
    assert weight.mean == pytest.approx(values.mean().item())
    assert weight.variance == pytest.approx(values.var(correction=0).item())
    assert weight.quantiles[1.0] == pytest.approx(values.abs().max().item(), rel=2**-9)


@pytest.mark.parametrize(
    ("by", "keys", "layers"),
    [
        ("type", ["linear", "relu"], ["2", "4"]),
        ("name", ["0"], ["0"]),
        ("regex", ["[0-2]"], ["0", "1", "2"]),
        ("type", None, ["0", "1", "2", "3", "4"]),
    ],
)
def test_layers_are_chosen_by_type_name_and_regex(net, by, keys, layers):
    rows = statistics(net, batches(1), by=by, keys=keys, tensors=["output"])
    assert [row.layer for row in rows] == layers


def test_values_that_are_not_finite_are_counted_and_left_out():
    graph = trace(nn.Sequential(nn.ReLU()), torch.zeros(1, 4))
    x = torch.tensor([[1.0, math.nan, -2.0, math.inf], [-math.inf, 0.0, 4.0, -0.0]])
    (row,) = statistics(graph, [x], tensors=["input"], quantiles=[0.5, 1.0])
    assert (row.count, row.finite, row.nan, row.infinite, row.zeros) == (8, 5, 1, 2, 2)
    assert (row.mean, row.minimum, row.maximum) == (pytest.approx(3 / 5), -2.0, 4.0)
    assert row.quantiles == {0.5: pytest.approx(1.0, rel=2**-9), 1.0: pytest.approx(4.0, rel=2**-9)}
    assert row.octaves == {0: 1, 1: 1, 2: 1}


def test_a_large_mean_does_not_drown_the_variance():
    graph = trace(nn.Sequential(nn.Identity()), torch.zeros(1, 1))
    x = 1e8 + torch.randn(64, 1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (row,) = statistics(graph, torch.split(x, 4), tensors=["input"])
    assert row.variance == pytest.approx(x.numpy().var(), rel=1e-6)


def test_sqnr_is_that_of_the_formats(net):
    formats = [ScaledInteger(8), make("fp8_e4m3"), make("float")]
    data = batches(3)
    rows = statistics(net, data, tensors=["input", "weight"], by="name", keys=["0"], formats=formats)
    weight, _, taken = rows
    for f in formats[:2]:
        noise = sum((f.quantize(x).double() - x.double()).square().sum() for x in data)
        signal = sum(x.double().square().sum() for x in data)
        assert taken.sqnr[str(f)] == pytest.approx(10 * math.log10(signal / noise))
        w = net.model[0].weight.detach().double()
        noise = (f.quantize(w.float()).double() - w).square().sum()
        assert weight.sqnr[str(f)] == pytest.approx(10 * math.log10(w.square().sum() / noise))
    assert taken.sqnr["float"] == "exact"


def test_integer_inputs_have_statistics_and_no_noise():
    graph = trace(nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2)), torch.zeros(1, 3, dtype=torch.int64))
    ids = torch.tensor([[1, 2, 9], [0, 4, 4]])
    first, *_ = statistics(graph, [ids], tensors=["input"], formats=[ScaledInteger(8)])
    assert (first.minimum, first.maximum, first.zeros, first.sqnr) == (0, 9, 1, {})
    assert first.mean == pytest.approx(20 / 6)


def test_a_layer_that_does_not_run_has_no_numbers():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.b(x) if x.sum() > 0 else self.a(x)

    graph = trace(Half(), torch.ones(1, 3))
    assert [node.name for node in graph.layers] == ["b"]
    (row,) = statistics(graph, [-torch.ones(1, 3)], tensors=["output"])
    assert (row.count, row.mean, row.maximum, row.quantiles) == (0, None, None, {})


def test_the_model_is_left_as_it_was(net):
    net.model.train()
    before = {name: value.clone() for name, value in net.model.state_dict().items()}
    statistics(net, batches(2))
    assert all(torch.equal(value, before[name]) for name, value in net.model.state_dict().items())
    assert all(module.training for module in net.model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.model.modules())


def test_models_with_named_inputs_and_the_inputs_themselves_are_kept():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.ReLU(inplace=True)

        def forward(self, *, a, b):
            return self.first(a) + b

    example = {"a": torch.zeros(1, 2), "b": torch.zeros(1, 2)}
    data = {"a": torch.tensor([[-1.0, 2.0]]), "b": torch.ones(1, 2)}
    taken, returned = statistics(trace(Named(), example), [data], tensors=["input", "output"])
    assert (taken.minimum, returned.minimum, data["a"].min()) == (-1, 0, -1)


def state_size(number):
    """Elements that everything a histogram and moments hold, after so many batches."""
    generator = torch.Generator().manual_seed(0)
    magnitudes, moments = Magnitudes(), Moments()
    for _ in range(number):
        x = torch.randn(1, 1000, generator=generator).clamp(-3, 3)
        x = torch.where(x.abs() < 0.125, 0.125, x)
        magnitudes.add(x)
        moments.add(x)
    assert magnitudes.total.item() == moments.count == 1000 * number
    return magnitudes.counts.numel() + moments.mean.numel()


def test_memory_does_not_depend_on_the_number_of_batches():
    assert state_size(10) == state_size(1000) <= 6 * 2**8  # octaves from 1/8 to 3


def test_memory_has_a_bound_for_all_of_float32():
    magnitudes = Magnitudes()
    x = torch.tensor([[2.0**-149, 2.0**-126, 1.0, torch.finfo(torch.float32).max, 1e300]], dtype=torch.float64)
    magnitudes.add(x)
    assert magnitudes.counts.numel() <= 255 * 2**8
    assert magnitudes.octaves() == {-127: 1, -126: 1, 0: 1, 127: 2}


@given(
    st.lists(
        st.floats(-(2.0**100), 2.0**100, width=32).filter(lambda x: not 0 < abs(x) < 2.0**-126), min_size=1, max_size=60
    ),
    st.integers(1, 8),
)
def test_every_rank_is_read_back_to_half_a_bin(values, splits):
    magnitudes = Magnitudes(bits=8)
    x = torch.tensor([values])
    for part in torch.tensor_split(x, splits, dim=1):
        magnitudes.add(part)
    exact = x[x != 0].abs().double().sort().values
    for rank, value in enumerate(exact, start=1):
        found = magnitudes.ranked(torch.tensor([rank]))
        assert abs(found.item() - value.item()) <= 2**-9 * value.item()
    assert magnitudes.ranked(torch.tensor([0])).item() == 0
    assert magnitudes.zeros.item() == values.count(0)


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), min_size=1, max_size=6))
def test_merged_moments_are_those_of_everything(parts):
    moments = Moments()
    for part in parts:
        moments.add(torch.tensor(part, dtype=torch.float64))
    everything = np.concatenate(parts)
    assert moments.mean.item() == pytest.approx(everything.mean(), rel=1e-9, abs=1e-9)
    assert moments.variance().item() == pytest.approx(everything.var(), rel=1e-7, abs=1e-6)


def test_decibels_in_words_where_there_is_no_number():
    assert decibels(0.0, 0.0) == "exact"
    assert decibels(math.inf, 1.0) == "not finite"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tensors": ["inputs"]}, r"\(tensors\).*did you mean 'input'"),
        ({"quantiles": [0.0]}, "above 0, up to 1"),
        ({"keys": ["lineer"]}, "did you mean 'linear'"),
        ({"batches": []}, "need data"),
    ],
)
def test_what_makes_no_sense_is_refused(net, arguments, message):
    with pytest.raises(BadInput, match=message):
        statistics(net, arguments.pop("batches", batches(1)), **arguments)


def test_the_jet_tagger_has_a_row_for_every_tensor():
    graph = trace(build("jsc-custom", (16,), 5), torch.zeros(2, 16))
    rows = statistics(graph, [torch.randn(32, 16)])
    assert len(rows) == 2 * 13 + 2 * 7  # 13 layers, 7 of them with weight and bias
