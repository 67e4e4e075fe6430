"""The space of widths: one knob a width group, whichever layer asks for it."""

import json

import pytest
import torch
from torch import nn

from paretobit.errors import BadInput
from paretobit.graph import trace
from paretobit.models import MODELS
from paretobit.spaces.channel_multiplier import ChannelMultiplier


@pytest.fixture(scope="module")
def three_linear():
    torch.manual_seed(0)
    return trace(MODELS["jsc-three-linear"].build((16,), 5), torch.randn(2, 16))


def sided(name, **multipliers):
    return {"config": {"name": name, **multipliers}}


CHOICES = [1, 2, 3, 4, 5]
REPORT = {
    "seq_blocks_2": sided("output_only", channel_multiplier=CHOICES),
    "seq_blocks_4": sided("both", channel_multiplier=CHOICES),
    "seq_blocks_6": sided("input_only", channel_multiplier=CHOICES),
}


def shapes(model):
    return [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]


def test_the_four_multipliers_of_the_report_are_two_knobs(three_linear):
    bound = ChannelMultiplier(by="name", seed=REPORT).bind(three_linear)
    assert [(k.name, k.values) for k in bound.tree.knobs] == [
        ("seq_blocks_2.multiplier", (1, 2, 3, 4, 5)),
        ("seq_blocks_4.multiplier", (1, 2, 3, 4, 5)),
    ]
    for config in map(bound.tree.at, range(bound.tree.size)):
        a, b = (16 * m for m in config.values())
        assert bound.widths(config) == {"seq_blocks_2": a, "seq_blocks_4": b}
    config = bound.tree.at(8)
    assert shapes(bound.graph(config).model) == [(16, 32), (32, 64), (64, 5)]
    assert bound.matched == ("seq_blocks_2", "seq_blocks_4", "seq_blocks_6")
    assert ChannelMultiplier.explain(json.loads(json.dumps(bound.describe())), config) == {
        "seq_blocks_2": {"config": {"multiplier": 2, "width": 32}},
        "seq_blocks_4": {"config": {"multiplier": 4, "width": 64}},
    }


def test_one_multiplier_for_all_layers_is_one_knob(three_linear):
    seed = {"linear": sided("both", channel_multiplier=[1, 2, "1/2"])}
    bound = ChannelMultiplier(by="type", seed=seed, share="key").bind(three_linear)
    assert [(k.name, k.values) for k in bound.tree.knobs] == [("linear.multiplier", (1, 2, "1/2"))]
    found = [shapes(bound.graph(bound.tree.at(i)).model) for i in range(3)]
    assert found == [[(16, w), (w, w), (w, 5)] for w in (16, 32, 8)]
    assert {d.knob for d in bound.dropped} == {"seq_blocks_2 input", "seq_blocks_6 output"}


def test_groups_and_the_default_have_knobs_and_a_scalar_has_none(three_linear):
    seed = {"seq_blocks_2": {"multiplier": [0.25, 8]}, "default": 2}
    bound = ChannelMultiplier(by="group", seed=seed).bind(three_linear)
    assert [k.name for k in bound.tree.knobs] == ["seq_blocks_2.multiplier"]
    assert [bound.widths(bound.tree.at(i)) for i in (0, 1)] == [
        {"seq_blocks_2": 4, "seq_blocks_4": 32},
        {"seq_blocks_2": 128, "seq_blocks_4": 32},
    ]


def test_multipliers_that_round_to_one_width_are_one_option(three_linear):
    bound = ChannelMultiplier(by="group", seed={"seq_blocks_2": [1, 1.25, 1.5, 2]}, divisor=8).bind(three_linear)
    assert bound.tree.knobs[0].values == (1, 1.25, 2)
    assert [(d.knob, d.reason) for d in bound.dropped] == [
        ("seq_blocks_2.multiplier", "multiplier 1.5 gives the widths of 1.25")
    ]


def test_applying_leaves_the_prepared_copy_and_the_callers_model_alone(three_linear):
    bound = ChannelMultiplier(by="group", seed={"seq_blocks_2": [1, 2]}, inherit="net2wider").bind(three_linear)
    prepared, config = bound.prepare(), bound.tree.at(1)
    model = bound.apply(prepared, config)
    assert not model.training
    assert model is not prepared
    assert bound.apply(prepared, None) is prepared
    x = torch.randn(4, 16)
    torch.testing.assert_close(model(x), three_linear.model.eval()(x))
    assert bound.graph(config).model is model  # what costs are counted on is what runs


@pytest.mark.parametrize(
    ("arguments", "key", "message"),
    [
        ({"seed": {}}, "seed", "names no widths"),
        ({"seed": REPORT, "share": "nmae"}, "share", "did you mean 'name'"),
        ({"seed": REPORT, "by": "nmae"}, "by", "did you mean 'name'"),
        ({"seed": {"seq_blocks_2": sided("output_only", output_multiplier=[])}}, "seed.seq_blocks_2", "at least one"),
        ({"seed": {"seq_blocks_2": sided("output_only", output_multiplier=[9])}}, "seed.seq_blocks_2", "not a"),
        ({"seed": {"seq_blocks_2": sided("both", channel_multiplier=[1, 2])}}, "seed.seq_blocks_2", "input x"),
        ({"seed": {"seq_blocks_2": [0.5, 1]}, "by": "group", "inherit": "net2wider"}, None, "only widens"),
        (
            {"seed": REPORT | {"seq_blocks_6": sided("input_only", channel_multiplier=[1, 2])}},
            "seed.seq_blocks_6",
            "'seq_blocks_4 output' and 'seq_blocks_6 input'",
        ),
    ],
)
def test_a_description_that_does_not_fit_is_refused_where_it_stands(three_linear, arguments, key, message):
    with pytest.raises(BadInput, match=message) as error:
        ChannelMultiplier(**arguments).bind(three_linear)
    assert key is None or error.value.key == key


def test_the_last_layer_decides_where_that_is_asked_for(three_linear):
    seed = REPORT | {"seq_blocks_6": sided("input_only", channel_multiplier=[1, 2])}
    bound = ChannelMultiplier(seed=seed, on_conflict="last").bind(three_linear)
    assert [k.size for k in bound.tree.knobs] == [5, 5, 5, 2]
    configs = [bound.tree.at(i) for i in range(bound.tree.size)]
    assert bound.has_equals
    assert len({bound.network_of(config) for config in configs}) == 5 * 2
    for config in configs[::17]:
        assert tuple(bound.widths(config).items()) == bound.network_of(config)


def test_settings_come_back_from_what_they_were_written_as(three_linear):
    settings = {"by": "group", "seed": {"seq_blocks_2": [1, "3/2"]}, "divisor": 2, "inherit": "l1"}
    space = ChannelMultiplier.from_settings(settings)
    again = ChannelMultiplier.from_settings(json.loads(json.dumps(space.to_settings())))
    assert again.bind(three_linear).tree == space.bind(three_linear).tree
    with pytest.raises(BadInput, match="did you mean 'divisor'"):
        ChannelMultiplier.from_settings({"seed": {}, "divisr": 2})


class Late(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(16, 2)

    def forward(self, x):
        x = self.conv(x)
        return x if x.sum() > 1e9 else self.fc(x.view(-1, 16))


def test_a_size_in_the_code_is_found_before_the_search():
    graph = trace(Late(), torch.randn(2, 1, 4, 4))
    with pytest.raises(BadInput, match="this width cannot change: view asks for the fixed size 16"):
        ChannelMultiplier(by="group", seed={"conv": [1, 2]}).bind(graph)
