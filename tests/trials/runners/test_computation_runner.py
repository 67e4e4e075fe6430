"""FLOPs and BitOPs of a configuration are those of the formulas."""

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.formats import Integer
from paretobit.models.zoo import MODELS
from paretobit.passes.analysis import cost
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import RUNNERS, Candidate

LAYERS = {"seq_blocks.0": (16, 64), "seq_blocks.2": (64, 32), "seq_blocks.4": (32, 32), "seq_blocks.6": (32, 5)}


def runner(model, example, **settings):
    kind = RUNNERS["basic_computation"]
    return kind(Evidence(pb.trace(model, example), {}), kind.Settings(**settings))


@pytest.mark.parametrize("batch", [1, 7])
def test_bitops_are_macs_times_data_bits_times_weight_bits(batch):
    model = MODELS["jsc-hls4ml"].build((16,), 5)
    made = runner(model, torch.randn(batch, 16))
    widths = dict(zip(LAYERS, [(8, 4), (6, 16), (32, 3), (2, 7)], strict=True))
    formats = {p: {"data_in": Integer(d), "weight": Integer(w)} for p, (d, w) in widths.items()}
    measured = made.measure(Candidate(formats, None))
    assert measured["total_flops"] == 2 * sum(m * n for m, n in LAYERS.values())
    assert measured["total_bitops"] == sum(m * n * widths[p][0] * widths[p][1] for p, (m, n) in LAYERS.items())
    assert made.measure(Candidate({}, None))["total_bitops"] == 1024 * sum(m * n for m, n in LAYERS.values())


def test_slots_that_are_not_named_count_32_bits():
    made = runner(MODELS["jsc-hls4ml"].build((16,), 5), torch.randn(1, 16))
    full = made.measure(Candidate({}, None))["total_bitops"]
    measured = made.measure(Candidate({"seq_blocks.0": {"weight": Integer(8)}}, None))["total_bitops"]
    assert measured == full - 16 * 64 * 32 * (32 - 8)


def test_convolutions_count_every_position():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))
    made = runner(model, torch.randn(1, 3, 8, 8))
    formats = {"0": {"data_in": Integer(8), "weight": Integer(4)}}
    macs = 8 * 4 * 4 * 3 * 9
    measured = made.measure(Candidate(formats, None))
    assert measured == {"total_flops": 2 * (macs + 256), "total_bitops": macs * 32 + 256 * 1024}


def test_a_layer_that_is_called_twice_costs_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x))

    made = runner(Twice(), torch.randn(1, 4))
    formats = {"layer": {"data_in": Integer(8), "weight": Integer(4)}}
    assert made.measure(Candidate(formats, None)) == {"total_flops": 64, "total_bitops": 2 * 16 * 32}


@pytest.mark.parametrize("convention", ["standard", "lab2"])
def test_the_runner_agrees_with_the_cost_pass(convention):
    model, example = MODELS["jsc-custom"].build((16,), 5), torch.randn(1, 16)
    made = runner(model, example, convention=convention, batch_size=8)
    formats = {"seq_blocks.2": {"data_in": Integer(8), "weight": Integer(4)}, "seq_blocks.1": {"data_in": Integer(6)}}
    report = cost(pb.trace(model, example), convention=convention, batch=8, formats=formats)
    assert made.measure(Candidate(formats, None)) == {
        "total_flops": report.total("forward_flops"),
        "total_bitops": report.total("forward_bitops"),
    }


def test_costs_without_example_inputs_are_refused():
    graph = pb.trace(nn.Sequential(nn.Linear(4, 2)))
    kind = RUNNERS["basic_computation"]
    with pytest.raises(BadInput, match="give example inputs"):
        kind(Evidence(graph, {}), kind.Settings())
