"""Channels that operations join change together; what is not understood stays, and says why."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.graph import trace
from paretobit.graph.axes import Segment, Variables, fixed, size
from paretobit.graph.widths import width_groups


class Wired(nn.Module):
    """Two convolutions of a 3-channel image whose results go through `between`, then a third."""

    def __init__(self, between, first=4, second=4, third=8, side=6):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, first, 3, padding=1), nn.Conv2d(3, second, 3, padding=1)
        self.c = nn.Conv2d(third, 2, 1)
        self.gain = nn.Parameter(torch.ones(1, first, 1, 1))
        self.between = between

    def forward(self, x):
        return self.c(self.between(self.a(x), self.b(x)))


def groups_of(between, **sizes):
    graph = trace(Wired(between, **sizes), torch.randn(2, 3, 6, 6))
    assert graph.method == "fx"
    return width_groups(graph)


def free(between, **sizes):
    """Producers of each free group that the last layer takes, and what its width is a multiple of."""
    groups = groups_of(between, **sizes)
    taken = groups.of(groups.layers["c"].takes)
    return {g.producers: g.divisor for g in groups.free if g in taken}


TOGETHER = {("a", "b"): 1}
APART = {("a",): 1, ("b",): 1}


@pytest.mark.parametrize(
    ("between", "third", "expected"),
    [
        (lambda a, b: a + b, 4, TOGETHER),
        (lambda a, b: a.mul(b).relu(), 4, TOGETHER),
        (lambda a, b: torch.where(a > 0, a, b), 4, TOGETHER),
        (lambda a, b: torch.maximum(a, b.sigmoid()), 4, TOGETHER),
        (lambda a, b: F.gelu(a) - 2 * b, 4, TOGETHER),
        (lambda a, b: torch.cat([a, b], 1), 8, APART),
        (lambda a, b: torch.cat((a, b), dim=-3), 8, APART),
        (lambda a, b: torch.cat([a, b, a], 1), 12, APART),
        (lambda a, b: torch.cat([a, b], 2), 4, TOGETHER),
        (lambda a, b: torch.stack([a, b], 0).mean(0), 4, TOGETHER),
        (lambda a, b: a * b.mean([2, 3], keepdim=True), 4, TOGETHER),
        (lambda a, b: a + F.interpolate(F.max_pool2d(b, 2), scale_factor=2), 4, TOGETHER),
        (lambda a, b: a.chunk(2, 1)[0] + b.chunk(2, 1)[1], 2, {("a", "b"): 2}),
        (lambda a, b: torch.cat([a.chunk(2, 1)[0], b], 1), 6, {("a",): 2, ("b",): 1}),
        (lambda a, b: F.pixel_shuffle(a, 2), 1, {("a",): 4}),
        (lambda a, b: a.permute(0, 2, 3, 1).permute(0, 3, 1, 2), 4, {("a",): 1}),
        (lambda a, b: a.transpose(1, 2).transpose(2, 1)[:, :, ::2], 4, {("a",): 1}),
        (lambda a, b: a.unsqueeze(1).squeeze(1) + b, 4, TOGETHER),
        (lambda a, b: a.flatten(1).view(a.size(0), -1, a.size(2), a.size(3)), 4, {("a",): 1}),
        (lambda a, b: a.reshape(a.size(0), 2, -1, 6, 6).sum(1), 2, {("a",): 2}),
        (lambda a, b: F.pad(a, (1, 1, 1, 1)), 4, {("a",): 1}),
        (lambda a, b: F.pad(a, (0, 0, 0, 0, 1, 3)) + torch.cat([a, b], 1), 8, {}),
    ],
)
def test_what_operations_join_changes_together(between, third, expected):
    assert free(between, third=third) == expected


@pytest.mark.parametrize(
    ("between", "third", "reason"),
    [
        (lambda a, b: a.view(-1, 4, 6, 6), 4, "view asks for the fixed size 4"),
        (lambda a, b: a[:, :2], 2, r"getitem \(getitem\): it picks channels"),
        (lambda a, b: a[:, 0].unsqueeze(1), 1, r"getitem \(getitem\): it picks channels"),
        (lambda a, b: a.split(2, 1)[0], 2, r"split \(split\): it asks for the sizes 2"),
        (lambda a, b: a.flip(1), 4, r"flip \(flip\): it mixes channels"),
        (lambda a, b: a.cumsum(1), 4, r"cumsum \(cumsum\): it mixes channels"),
        (lambda a, b: a.unbind(1)[0].unsqueeze(1), 1, r"unbind \(unbind\): it takes a width apart"),
        (lambda a, b: a.view(a.size(0), 2, 2, 6, 6).sum(1), 2, "none follows the width"),
        (lambda a, b: F.adaptive_avg_pool2d(a.transpose(1, 3), 4).transpose(1, 3), 4, "a spatial axis may"),
    ],
)
def test_what_is_not_understood_is_frozen_with_the_reason(between, third, reason):
    group = groups_of(between, third=third)["a"]
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(group.frozen)


def test_padded_channels_stay_and_the_others_follow():
    groups = groups_of(lambda a, b: F.pad(a, (0, 0, 0, 0, 1, 3)) + b, second=8, third=8)
    assert {g.name: (g.width, g.frozen) for g in groups if g.name[0] in "ab"} == {
        "a": (4, None),
        "b[0:1]": (1, "pad pads with zeros"),
        "b[5:8]": (3, "pad pads with zeros"),
    }
    assert groups["a"].producers == ("a", "b")


def test_a_single_channel_that_is_spread_over_others_stays():
    groups = groups_of(lambda a, b: a * b, second=1, third=4)
    assert groups["b"].frozen == "mul spreads a single channel over others"
    assert groups["a"].frozen is None


def test_inputs_and_outputs_are_frozen_and_say_so():
    groups = groups_of(lambda a, b: a + b, third=4)
    assert {g.name: g.frozen for g in groups if g.frozen} == {
        "x": "input x of the model",
        "c": "an output of the model",
    }
    assert groups["x"].width == 3
    rows = groups.rows()
    assert [row["group"] for row in rows] == ["x", "a", "c"]
    assert rows[1] == {"group": "a", "width": 4, "multiple of": 1, "made by": "a, b", "taken by": "c", "frozen": ""}


def test_a_layer_added_to_the_input_is_frozen_by_it():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(x + self.first(x))

    groups = width_groups(trace(Skip(), torch.randn(3, 4)))
    assert {g.frozen for g in groups if "first" in g.producers} == {"input x of the model"}


def test_a_layer_that_is_called_twice_has_one_width():
    layer = nn.Linear(4, 4)
    groups = width_groups(
        trace(nn.Sequential(nn.Linear(3, 4), layer, nn.ReLU(), layer, nn.Linear(4, 2)), torch.randn(2, 3))
    )
    assert [(g.producers, g.width) for g in groups.free] == [(("0", "1"), 4)]


def test_parameters_that_a_model_uses_directly_follow():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Linear(3, 6), nn.Linear(6, 2)
            self.position, self.token = nn.Parameter(torch.randn(5, 6)), nn.Parameter(torch.randn(1, 1, 6))
            self.register_buffer("scale", torch.ones(6))

        def forward(self, x):
            x = torch.cat([self.token.expand(x.size(0), -1, -1), self.embed(x)], 1)
            x = (x + self.position) * self.scale
            return self.head(x)

    groups = width_groups(trace(Positions(), torch.randn(2, 4, 3)))
    follow = {known.path for known in groups.tensors if groups["embed"] in groups.of(known.dims[-1])}
    assert follow == {"embed.bias", "position", "token", "scale", "head.weight"}
    assert groups["embed"].frozen is None


def test_recurrent_layers_and_attention_modules_are_frozen():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.rnn = nn.Linear(3, 8), nn.GRU(8, 8, batch_first=True)
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 2)
            self.wide = nn.Linear(8, 5)

        def forward(self, x):
            x, _ = self.rnn(self.embed(x))
            x, _ = self.attention(x, x, x)
            return self.head(x) + self.wide(x).sum()

    groups = width_groups(trace(Recurrent(), torch.randn(2, 4, 3)))
    assert groups["embed"].frozen == "rnn (gru): GRU is not understood"
    assert [g.name for g in groups.free] == ["wide"]


def test_weights_that_are_computed_are_frozen():
    model = nn.Sequential(nn.Linear(3, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.Linear(5, 2))
    groups = width_groups(trace(model, torch.randn(2, 3)))
    assert groups.free == ()


def test_without_shapes_there_are_no_groups():
    with pytest.raises(BadInput, match="need the shapes"):
        width_groups(trace(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))))


def test_an_unknown_group_is_refused_with_the_closest():
    with pytest.raises(BadInput, match="did you mean 'a'"):
        groups_of(lambda a, b: a + b, third=4)["aa"]


def test_variables_that_meet_several_are_made_of_parts():
    variables = Variables()
    whole, left, right = variables.new(6), variables.new(2), variables.new(4)
    variables.join(whole, (*left, *right), "add")
    assert variables.resolve(whole) == (*left, *right)
    assert size(variables.resolve(whole)) == 6


def test_a_channel_that_stands_for_several_elements_is_found_again():
    variables = Variables()
    wide, narrow = variables.new(12), variables.new(3)
    variables.join(wide, tuple(Segment(s.variable, s.count, 4) for s in narrow), "add")
    assert variables.resolve(wide) == (Segment(narrow[0].variable, 3, 4),)
    assert variables.over(wide, 4) == narrow
    tile = variables.tiles(wide, 3, "tiles")
    assert [(s.count, s.repeat) for s in tile] == [(1, 4)]
    assert variables.resolve(narrow) == tuple(Segment(tile[0].variable, 1) for _ in range(3))


def test_what_meets_a_fixed_size_is_fixed_only_there():
    variables = Variables()
    whole, free = variables.new(6), variables.new(4)
    variables.join(whole, (*fixed(2, "two of them"), *free), "add")
    assert variables.why_fixed(whole) == "two of them"
    assert not variables.is_fixed(whole)
    assert variables.resolve(whole)[1:] == free


def test_channels_that_do_not_line_up_are_frozen():
    variables = Variables()
    a, b = variables.new(2), variables.new(3)
    variables.join(
        tuple(Segment(a[0].variable, 2, 3) for _ in a), tuple(Segment(b[0].variable, 3, 2) for _ in b), "add"
    )
    assert variables.why_fixed(a) == variables.why_fixed(b) == "add joins channels that do not line up"


def test_parts_that_a_model_takes_apart_itself_are_known_one_by_one():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.both, self.out = nn.Linear(8, 16), nn.Linear(8, 4)

        def forward(self, x):
            if x.sum() > 1e9:  # torch.fx cannot trace it
                return x
            a, b = self.both(x).chunk(2, -1)
            return self.out(a.transpose(0, 1).transpose(0, 1) * b)

    graph = trace(Gated(), torch.randn(2, 8))
    assert graph.method == "run"
    group = width_groups(graph)["both"]
    assert (group.width, group.divisor, group.frozen) == (16, 2, None)
