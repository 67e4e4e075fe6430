"""The reports' keys multiply the widths of layers and of all that is around them."""

import copy
from fractions import Fraction

import pytest
import torch
from torch import nn

from paretobit.errors import BadInput
from paretobit.graph import trace
from paretobit.models import MODELS
from paretobit.passes.analysis import report_graph
from paretobit.passes.transform import PASSES

NONE = {"config": {"name": None}}


def traced(name="jsc-three-linear", features=16, classes=5):
    torch.manual_seed(0)
    return trace(MODELS[name].build((features,), classes), torch.zeros(8, features))


def multiply(graph, **table):
    return PASSES["channel_multiplier"](graph, table)


def shapes(graph):
    linear = [m for m in graph.model.modules() if isinstance(m, nn.Linear)]
    return [(m.in_features, m.out_features) for m in linear]


def sided(name, **multipliers):
    return {"config": {"name": name, **multipliers}}


REPORT = {
    "by": "name",
    "default": NONE,
    "seq_blocks_2": sided("output_only", channel_multiplier=2),
    "seq_blocks_4": sided("both", input_multiplier=2, output_multiplier=4),
    "seq_blocks_6": sided("input_only", channel_multiplier=4),
}


def test_the_example_of_the_report_gives_its_layers():
    before = traced()
    state = copy.deepcopy(before.model.state_dict())
    graph, info = multiply(before, **REPORT)
    assert shapes(graph) == [(16, 32), (32, 64), (64, 5)]
    assert [repr(layer) for layer in graph.model.seq_blocks] == [
        repr(nn.BatchNorm1d(16)),
        "ReLU(inplace=True)",
        "Linear(in_features=16, out_features=32, bias=True)",
        "ReLU(inplace=True)",
        "Linear(in_features=32, out_features=64, bias=True)",
        "ReLU(inplace=True)",
        "Linear(in_features=64, out_features=5, bias=True)",
        "ReLU(inplace=True)",
    ]
    assert graph["seq_blocks_4"].output_shape == (8, 64)
    assert info["widths"] == {"seq_blocks_2": (16, 32), "seq_blocks_4": (16, 64)}
    assert shapes(before) == [(16, 16), (16, 16), (16, 5)]
    assert all(torch.equal(state[key], value) for key, value in before.model.state_dict().items())
    assert report_graph(graph)


@pytest.mark.parametrize(
    "entries",
    [
        {
            "seq_blocks_2": sided("output_only", channel_multiplier_output=2),
            "seq_blocks_4": sided("both", channel_multiplier_input=2, channel_multiplier_output=4),
            "seq_blocks_6": sided("input_only", channel_multiplier_input=4),
        },
        {"seq_blocks_4": sided("both", input_multiplier=2, output_multiplier=4)},
        {
            "seq_blocks.2": sided("output_only", channel_multiplier=2),
            "seq_blocks_6": {"name": "input_only", "input_multiplier": 4},
        },
    ],
)
def test_layers_around_a_layer_follow_whoever_asks(entries):
    assert shapes(multiply(traced(), **entries)[0]) == [(16, 32), (32, 64), (64, 5)]


def test_groups_are_multiplied_by_name_and_the_default_takes_the_rest():
    graph, info = multiply(traced("jsc-hls4ml"), by="group", seq_blocks_0=2, default={"multiplier": "1/4"})
    assert shapes(graph) == [(16, 128), (128, 8), (8, 8), (8, 5)]
    assert info["widths"] == {"seq_blocks_0": (64, 128), "seq_blocks_2": (32, 8), "seq_blocks_4": (32, 8)}


def test_types_multiply_what_can_change_and_list_what_cannot():
    graph, info = multiply(traced(), by="type", linear=sided("both", channel_multiplier=3))
    assert shapes(graph) == [(16, 48), (48, 48), (48, 5)]
    assert set(info["left"]) == {"seq_blocks_2 input", "seq_blocks_6 output"}
    assert "input x of the model" in info["left"]["seq_blocks_2 input"]
    assert "output" in info["left"]["seq_blocks_6 output"]


@pytest.mark.parametrize(
    ("multiplier", "width"), [(0.25, 4), ("1/4", 4), (Fraction(1, 2), 8), ("3/2", 24), (1, 16), (8, 128), (1.1, 18)]
)
def test_multipliers_go_from_a_quarter_to_eight(multiplier, width):
    graph, _ = multiply(traced(), by="group", seq_blocks_2=multiplier)
    assert shapes(graph) == [(16, width), (width, 16), (16, 5)]


def test_widths_become_multiples_of_the_divisor():
    graph, _ = multiply(traced(), by="group", divisor=8, seq_blocks_2=1.3, seq_blocks_4=0.25)
    assert shapes(graph) == [(16, 24), (24, 8), (8, 5)]


CONFLICT = {
    "seq_blocks_2": sided("output_only", channel_multiplier=2),
    "seq_blocks_4": sided("input_only", channel_multiplier=3),
}


def test_layers_that_contradict_each_other_are_both_named():
    with pytest.raises(BadInput, match=r"'seq_blocks_2 output' and 'seq_blocks_4 input'"):
        multiply(traced(), **CONFLICT)


def test_the_last_layer_decides_where_the_reports_rule_is_asked_for():
    for table in (CONFLICT, dict(reversed(CONFLICT.items()))):  # in order of execution, not of the file
        graph, _ = multiply(traced(), on_conflict="last", **table)
        assert shapes(graph) == [(16, 48), (48, 16), (16, 5)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "names no widths"),
        ({"by": "nmae", "seq_blocks_2": NONE}, "did you mean 'name'"),
        ({"on_conflict": "first", "seq_blocks_2": NONE}, "not one of the choices"),
        ({"inherit": "slcie", "seq_blocks_2": NONE}, "did you mean 'slice'"),
        ({"divisor": 0, "seq_blocks_2": NONE}, r"greater than or equal to 1 \(divisor\)"),
        ({"seq_block_2": sided("both", channel_multiplier=2)}, "did you mean 'seq_blocks_2'"),
        ({"by": "group", "seq_block_2": 2}, "did you mean 'seq_blocks_2'"),
        ({"by": "group", "seq_blocks_6": 2}, "cannot change: an output of the model"),
        ({"by": "group", "seq_blocks_2": {"multiplyer": 2}}, "did you mean 'multiplier'"),
        ({"seq_blocks_2": sided("both", channel_multiplier=2)}, "cannot change: input x of the model"),
        ({"seq_blocks_6": sided("output_only", channel_multiplier=2)}, "cannot change: an output of the model"),
        ({"seq_blocks_3": sided("both", channel_multiplier=2)}, "no channels of its own"),
        ({"seq_blocks_2": sided("output", channel_multiplier=2)}, "did you mean 'output_only'"),
        ({"seq_blocks_2": sided("output_only", input_multiplier=2)}, "does not change this side"),
        ({"seq_blocks_2": sided("output_only")}, "no multiplier for the output"),
        ({"seq_blocks_4": sided("both", input_multiplier=2)}, "no multiplier for the output"),
        ({"seq_blocks_4": sided("both", channel_multiplier=2, input_multiplier=3)}, "given twice"),
        ({"seq_blocks_4": sided("both", chanel_multiplier=2)}, "did you mean 'channel_multiplier'"),
        ({"seq_blocks_4": sided("both", channel_multiplier=9)}, "not a multiplier"),
        ({"seq_blocks_4": sided("both", channel_multiplier=0.2)}, "not a multiplier"),
        ({"seq_blocks_4": sided("both", channel_multiplier=True)}, "not a multiplier"),
        ({"seq_blocks_4": sided("both", channel_multiplier="two")}, "not a multiplier"),
        ({"inherit": "net2wider", "seq_blocks_4": sided("output_only", output_multiplier=0.5)}, "only widens"),
        ({"by": "type", "relu": sided("both", channel_multiplier=2)}, "no layer of this type"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(table, message):
    with pytest.raises(BadInput, match=message):
        multiply(traced(), **table)
