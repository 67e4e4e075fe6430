"""Stored bytes: whole bytes a tensor, zeros left out where a bitmap is smaller."""

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.formats import FULL, Integer, parse
from paretobit.spaces.base import Changed
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import RUNNERS, Candidate
from paretobit.trials.runners.stored import packed_bytes

KIND = RUNNERS["stored_bytes"]


def measure(model, example, formats, weights=None, **settings):
    runner = KIND(Evidence(pb.trace(model, example), {}), KIND.Settings(**settings))
    runner.measure(Candidate({}, None))  # what came before must not matter
    made = {name: Changed(name, lambda value=value: value) for name, value in (weights or {}).items()}
    return runner.measure(Candidate(formats, None, look=lambda: made))["stored_bytes"]


@pytest.fixture
def tagger():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))


@pytest.mark.parametrize("width", [1, 3, 4, 8, 13])
def test_every_tensor_takes_whole_bytes(tagger, width):
    layer = {"weight": Integer(width, 0, signed=False) if width == 1 else Integer(width, 20), "bias": Integer(3)}
    formats = {"0": layer, "3": {"weight": layer["weight"]}}
    expected = -(-35 * width // 8) + -(-7 * 3 // 8)  # the first layer
    expected += 4 * 14 + 4 * 14  # BatchNorm: weight and bias, running mean and variance
    expected += -(-21 * width // 8) + 4 * 3
    assert measure(tagger, torch.randn(2, 5), formats, skip_zeros=False) == expected


def test_the_float_model_takes_four_bytes_a_number(tagger):
    numbers = sum(p.numel() for p in tagger.parameters()) + 14
    assert measure(tagger, torch.randn(2, 5), {}) == 4 * numbers


@pytest.mark.parametrize("zeros", [0.0, 0.1, 0.2, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("width", [2, 4, 8])
def test_zeros_go_behind_a_bitmap_where_that_is_smaller(zeros, width):
    bitmap = 1000 + (1000 - round(1000 * zeros)) * width
    assert packed_bytes(Integer(width), (10, 100), round(1000 * zeros)) == -(-min(1000 * width, bitmap) // 8)


def test_what_blocks_share_stays_where_elements_go():
    mx = parse("mxint8")
    dense = mx.bits((4, 64))
    assert dense == 256 * 8 + 8 * 8  # eight blocks of 32 with a scale of 8 bits
    assert packed_bytes(mx, (4, 64), 192) == (256 + 64 * 8 + 64) // 8
    assert packed_bytes(FULL, (3,), 0) == 12
    assert packed_bytes(Integer(4), (), 0) == 1


def test_masked_weights_and_those_that_a_format_makes_zero_are_left_out(tagger):
    formats = {"0": {"weight": Integer(8, 2)}}
    weight = tagger[0].weight.detach()
    natural = int((Integer(8, 2).quantize(weight) == 0).sum())
    assert 3 < natural < 32
    rest = measure(tagger, torch.randn(2, 5), {}) - 4 * 35
    large = weight.masked_fill(weight.abs() > weight.abs().median(), 0)  # not those that the format makes zero
    for made in (weight, large, torch.zeros_like(weight)):
        zeros = int((Integer(8, 2).quantize(made) == 0).sum())
        expected = rest + packed_bytes(Integer(8, 2), (7, 5), zeros)
        assert measure(tagger, torch.randn(2, 5), formats, {"0.weight": made}) == expected
    pruned = tagger[3].weight.detach().clone()
    pruned[:, :4] = 0
    assert measure(tagger, torch.randn(2, 5), {}, {"3.weight": pruned}) < measure(tagger, torch.randn(2, 5), {})


def test_a_tensor_that_layers_share_is_stored_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.read, self.write = nn.Embedding(10, 6), nn.Linear(6, 10, bias=False)
            self.write.weight = self.read.weight

        def forward(self, x):
            return self.write(self.read(x).mean(1))

    ids = torch.zeros(1, 3, dtype=torch.long)
    formats = {path: {"weight": Integer(4, 8)} for path in ("read", "write")}
    assert measure(Tied(), ids, formats, skip_zeros=False) == 60 * 4 / 8


def test_sparsity_of_a_search_shows_in_the_bytes(tagger):
    rows = (torch.randn(20, 5), torch.randint(0, 3, (20,)))
    seed = {"linear": {"weight": ["integer(width=8, frac_width=20)"]}}
    space = pb.Quantize(seed=seed) * pb.Prune(seed={"linear": {"sparsity": [0.0, 0.8]}}, share="type")
    runners = {"stored_bytes": {}, "model_size": {}, "basic_evaluation": {}}
    study = pb.search(tagger, space=space, val=rows, minimize=["stored_bytes"], runners=runners)
    dense, sparse = (t.metrics for t in study.trials)
    assert dense["model_size"] == sparse["model_size"]
    rest = 4 * (7 + 14 + 14 + 3)
    assert dense["stored_bytes"] == rest + 35 + 21
    left = [5 * 7 - int(0.8 * 35), 7 * 3 - int(0.8 * 21)]
    exact = sum(-(-(n + k * 8) // 8) for n, k in zip((35, 21), left, strict=True))
    assert sparse["stored_bytes"] == pytest.approx(rest + exact, abs=2)
    assert sparse["stored_bytes"] < dense["stored_bytes"]
