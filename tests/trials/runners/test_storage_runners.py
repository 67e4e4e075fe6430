"""Bit widths and sizes are weighted by elements, and count what is stored."""

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.formats import Integer
from paretobit.models.zoo import MODELS
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import RUNNERS, Candidate


def measure(name, model, example, formats):
    kind = RUNNERS[name]
    runner = kind(Evidence(pb.trace(model, example), {}), kind.Settings())
    runner.measure(Candidate({}, None))  # what came before must not matter
    return runner.measure(Candidate(formats, None))


@pytest.fixture
def reference():
    return MODELS["jsc-hls4ml"].build((16,), 5)


def all_slots(model, width, slots=("data_in", "weight", "bias")):
    paths = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    return {path: dict.fromkeys(slots, Integer(width)) for path in paths}


@pytest.mark.parametrize(
    ("width", "size"), [(32, 17_556), (16, 8_778), (8, 4_389), (6, 3_291.75), (4, 2_194.5), (2, 1_097.25)]
)
def test_the_reference_tagger_has_the_published_sizes(reference, width, size):
    measured = measure("model_size", reference, torch.randn(1, 16), all_slots(reference, width))
    assert measured == {"model_size": size}


def test_the_float_model_takes_four_bytes_a_parameter(reference):
    assert measure("model_size", reference, torch.randn(1, 16), {}) == {"model_size": 17_556}


def test_running_statistics_count_at_32_bits_and_the_batch_counter_does_not():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    formats = {"0": {"weight": Integer(8)}, "1": {"weight": Integer(4), "bias": Integer(2), "data_in": Integer(2)}}
    weights = 24 * 8 + 6 * 32 + 6 * 4 + 6 * 2
    assert measure("model_size", model, torch.randn(1, 4), formats) == {"model_size": (weights + 12 * 32) / 8}


def test_averages_are_weighted_by_elements(reference):
    formats = all_slots(reference, 8)
    formats["seq_blocks.6"] = {"data_in": Integer(4), "weight": Integer(2)}
    measured = measure("average_bitwidth", reference, torch.randn(1, 16), formats)
    first = 16 * 64 + 64 + 64 * 32 + 32 + 32 * 32 + 32
    weights, weight_bits = first + 32 * 5 + 5, first * 8 + 160 * 2 + 5 * 32
    data = {"linear": (16, 64, 32, 32), "relu": (64, 32, 32)}
    elements = sum(data["linear"]) + sum(data["relu"])
    data_bits = (16 + 64 + 32) * 8 + 32 * 4 + sum(data["relu"]) * 32
    assert measured == {
        "average_bitwidth": (weight_bits + data_bits) / (weights + elements),
        "weight_bitwidth": weight_bits / weights,
        "activation_bitwidth": data_bits / elements,
        "memory_density": 32 * weights / weight_bits,
    }


def test_the_float_model_is_at_32_bits_and_density_one(reference):
    measured = measure("average_bitwidth", reference, torch.randn(1, 16), {})
    assert measured == {"average_bitwidth": 32, "weight_bitwidth": 32, "activation_bitwidth": 32, "memory_density": 1}


def test_densities_are_32_over_the_width_where_all_is_quantised(reference):
    measured = measure("average_bitwidth", reference, torch.randn(1, 16), all_slots(reference, 6))
    assert measured["memory_density"] == pytest.approx(32 / 6)
    assert measured["weight_bitwidth"] == 6


def test_widths_do_not_depend_on_the_rows_of_the_example(reference):
    formats = all_slots(reference, 6)
    one = measure("average_bitwidth", reference, torch.randn(1, 16), formats)
    assert measure("average_bitwidth", reference, torch.randn(9, 16), formats) == one


def test_parameters_outside_of_layers_that_can_be_quantised_count_too():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(10))
            self.layer = nn.Linear(10, 2, bias=False)

        def forward(self, x):
            return self.layer(x * self.scale)

    formats = {"layer": {"weight": Integer(8)}}
    assert measure("model_size", Scaled(), torch.randn(1, 10), formats) == {"model_size": 40 + 20}
    assert measure("average_bitwidth", Scaled(), torch.randn(1, 10), formats)["weight_bitwidth"] == 16
