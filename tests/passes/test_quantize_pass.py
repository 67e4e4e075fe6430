"""The pass quantises the layers that were asked for, in a copy, and shows that it did."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.formats import FULL, Integer, accumulator, make, parse
from paretobit.graph import trace
from paretobit.models import MODELS
from paretobit.nn import Quantized
from paretobit.passes.analysis import compare, report_graph, summarize_quantization
from paretobit.passes.layers.assignment import apply_assignment, assignment_of
from paretobit.passes.transform import QuantizeSettings, quantize

LAB2 = {  # the pass_args of the second report
    "linear": {
        "name": "integer",
        "data_in_width": 2,
        "data_in_frac_width": 2,
        "weight_width": 2,
        "weight_frac_width": 2,
        "bias_width": 2,
        "bias_frac_width": 2,
    },
    "relu": {"name": "integer", "data_in_width": 8, "data_in_frac_width": 4},
}
NA = {"config": {"name": "NA"}}


def traced(name="jsc-tiny"):
    torch.manual_seed(0)
    return trace(MODELS[name].build((16,), 5), torch.zeros(8, 16))


@pytest.fixture
def custom():
    return traced("jsc-custom")


def by_type(**entries):
    return QuantizeSettings("type", entries, default=NA)


def table(graph):
    return [(r.original_type, r.op, r.total, r.changed, r.unchanged) for r in summarize_quantization(graph)]


def test_only_one_operation_of_jsc_tiny_changes_as_in_the_report():
    graph, _ = quantize(traced(), by_type(linear=LAB2["linear"]))
    assert table(graph) == [
        ("BatchNorm1d", "batch_norm1d", 1, 0, 1),
        ("Linear", "linear", 1, 1, 0),
        ("ReLU", "relu", 2, 0, 2),
        ("output", "output", 1, 0, 1),
        ("x", "placeholder", 1, 0, 1),
    ]


def test_linear_and_relu_of_jsc_custom_change_as_in_the_report():
    graph, _ = quantize(traced("jsc-custom"), by_type(**LAB2))
    assert table(graph) == [
        ("BatchNorm1d", "batch_norm1d", 4, 0, 4),
        ("Dropout", "dropout", 2, 0, 2),
        ("Linear", "linear", 3, 3, 0),
        ("ReLU", "relu", 4, 4, 0),
        ("output", "output", 1, 0, 1),
        ("x", "placeholder", 1, 0, 1),
    ]


def test_side_by_side_only_the_linear_layer_of_jsc_tiny_has_another_name():
    before = traced()
    after, _ = quantize(before, by_type(linear=LAB2["linear"]))
    bn = repr(nn.BatchNorm1d(16))
    shown = [(row.node, row.before, row.after, row.changed) for row in compare(before, after)]
    assert shown == [
        ("seq_blocks_0", bn, bn, False),
        ("seq_blocks_1", "ReLU(inplace=True)", "ReLU(inplace=True)", False),
        (
            "seq_blocks_2",
            "Linear(in_features=16, out_features=5, bias=True)",
            "LinearInteger(in_features=16, out_features=5, bias=True)",
            True,
        ),
        ("seq_blocks_3", "ReLU(inplace=True)", "ReLU(inplace=True)", False),
    ]


@pytest.mark.parametrize("width", [1, 2, 4])
def test_side_by_side_the_weights_are_on_the_grid(width):
    before = traced("jsc-custom")
    after, _ = quantize(before, by_type(linear={"weight_width": width, "weight_frac_width": width}))
    rows = {row.node: row for row in compare(before, after)}
    for i in (2, 6, 10):
        weight = before.model.seq_blocks[i].weight.detach()
        codes = (weight * 2**width).round().clamp(-(2 ** (width - 1)), 2 ** (width - 1) - 1)
        row = rows[f"seq_blocks_{i}"]
        assert row.distinct_before == weight.unique().numel() > 16
        assert row.distinct_weights == codes.unique().numel() <= 2**width
        assert row.max_error == (codes / 2**width - weight).abs().max().item() > 0
    assert rows["seq_blocks_0"].max_error == 0
    assert rows["seq_blocks_1"].distinct_weights is None


def test_the_callers_model_is_not_changed():
    graph = traced("jsc-custom")
    graph.model.train()
    state, shown = copy.deepcopy(graph.model.state_dict()), repr(graph.model)
    new, _ = quantize(graph, by_type(**LAB2))
    new.model(torch.randn(8, 16)).sum().backward()
    assert repr(graph.model) == shown
    assert not any(isinstance(module, Quantized) for module in graph.model.modules())
    assert all(torch.equal(value, graph.model.state_dict()[name]) for name, value in state.items())
    assert all(parameter.grad is None for parameter in graph.model.parameters())


def test_the_copy_computes_with_the_formats():
    graph = traced()
    new, info = quantize(graph, by_type(linear=LAB2["linear"]))
    x, f = torch.randn(8, 16), Integer(2, 2)
    bn, _, linear, _ = graph.model.eval().seq_blocks
    inner = f.quantize(bn(x).relu())
    expected = (inner @ f.quantize(linear.weight).t() + f.quantize(linear.bias)).relu()
    assert torch.allclose(new.model.eval()(x), expected, atol=1e-6)
    text = "integer(width=2, frac_width=2)"
    carried = {"seq_blocks.2": {"data_in": text, "weight": text, "bias": text}}
    assert info == {"assignment": carried, "unsupported": {}}


@pytest.mark.parametrize(
    "settings",
    [
        by_type(linear={"name": "NA"}, relu={"config": {"name": "NA"}}),
        by_type(linear={"name": "NA", "weight_width": 8}),
        QuantizeSettings("type", {}, default=NA),
        QuantizeSettings("type"),
    ],
)
def test_entries_without_a_format_leave_layers_alone(settings):
    graph, info = quantize(traced(), settings)
    assert info == {"assignment": {}, "unsupported": {}}
    assert not any(changed for *_, changed, _ in table(graph))


def test_the_default_is_for_every_layer_that_no_key_chooses():
    settings = QuantizeSettings("name", {"seq_blocks_2": {"weight_width": 4}}, default={"data_in_width": 8})
    graph, _ = quantize(traced("jsc-custom"), settings)
    carried = {
        path: {s for s, f in slots.items() if f is not FULL} for path, slots in assignment_of(graph.model).items()
    }
    assert carried.pop("seq_blocks.2") == {"weight"}
    assert set(carried) == {f"seq_blocks.{i}" for i in (0, 1, 3, 4, 6, 7, 8, 10, 11, 12)}
    assert all(slots == {"data_in"} for slots in carried.values())


def test_an_unset_frac_width_is_half_the_width():
    graph, _ = quantize(traced(), by_type(linear={"weight_width": 7}))
    assert assignment_of(graph.model)["seq_blocks.2"]["weight"] == Integer(7, 3)


def test_a_bias_slot_on_a_layer_without_bias_is_left_out():
    graph = trace(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False)), torch.zeros(1, 2))
    new, info = quantize(graph, by_type(linear={"weight_width": 8, "bias_width": 8}))
    assert {path: list(slots) for path, slots in info["assignment"].items()} == {
        "0": ["weight", "bias"],
        "1": ["weight"],
    }
    new.model(torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"relu": {"weight_width": 8}}, r"a relu layer has no slot 'weight' \(relu\).*allowed: data_in"),
        ({"linear": {"weight_widht": 8}}, r"\(linear\.weight\).*did you mean 'width'"),
        ({"linear": {"weigth_width": 8}}, r"did you mean 'weight_width'"),
        ({"linear": {"weight_width": -8}}, r"\(linear\.weight_width\): found -8"),
        ({"lineer": {"weight_width": 8}}, r"this type \(lineer\).*did you mean 'linear'"),
        ({"dropout": {"data_in_width": 8}}, r"layer 'seq_blocks_5' is a Dropout, which cannot be quantised"),
        ({"linear": {"name": "intger", "weight_width": 8}}, r"\(linear\.name\).*did you mean 'integer'"),
    ],
)
def test_what_cannot_be_quantised_so_is_refused(entries, message):
    with pytest.raises(BadInput, match=message):
        quantize(traced("jsc-custom"), by_type(**entries))


def test_assignments_are_set_and_read_back_and_replaced():
    model = MODELS["jsc-tiny"].build((16,), 5)
    apply_assignment(model, {"seq_blocks.2": {"weight": Integer(4), "bias": Integer(8)}})
    apply_assignment(model, {"seq_blocks.2": {"weight": Integer(6)}})
    assert assignment_of(model) == {"seq_blocks.2": {"data_in": FULL, "weight": Integer(6), "bias": FULL}}


def test_the_report_counts_kinds_and_prints_layers():
    report = report_graph(traced())
    assert report.kinds == {
        "placeholder": 1,
        "get_attr": 0,
        "call_function": 0,
        "call_method": 0,
        "call_module": 4,
        "output": 1,
    }
    assert report.layers[2] == "Linear(in_features=16, out_features=5, bias=True)"
    assert report.untraced is None


def test_an_unset_bias_follows_the_accumulator_not_the_weight(custom):
    entry = {"data_in_width": 8, "data_in_frac_width": 4, "weight_width": 4, "weight_frac_width": 3}
    layer = quantize(custom, by_type(linear=entry))[0].model.seq_blocks[2]
    assert layer.slots["bias"] == accumulator(Integer(8, 4), Integer(4, 3), layer.in_features)
    assert layer.slots["bias"].frac_width == 7


@pytest.mark.parametrize(
    "entry",
    [
        {"data_in_width": 8, "weight_width": 4, "bias": "NA"},
        {"name": "minifloat_ieee", "data_in_width": 8, "data_in_exponent_width": 4, "weight": "fp8_e4m3"},
        {"weight_width": 8},
    ],
)
def test_a_bias_that_adds_to_float_sums_or_is_set_to_float_stays_float(custom, entry):
    layer = quantize(custom, by_type(linear=entry))[0].model.seq_blocks[2]
    assert layer.slots["bias"] is FULL


def test_a_format_by_name_alone_goes_where_a_layer_has_room_for_it(custom):
    entries = {"linear": {"name": "mxfp4"}, "relu": {"name": "mxfp4"}}
    model = quantize(custom, by_type(**entries))[0].model
    assert {slot for slot, f in model.seq_blocks[2].slots.items() if f is not FULL} == {"data_in", "weight"}
    assert model.seq_blocks[1].slots["data_in"] == make("mxfp4")
    with pytest.raises(BadInput, match="a relu layer has no slot 'weight'"):
        quantize(custom, by_type(relu={"name": "mxfp4", "weight_block_size": 16}))


@pytest.mark.parametrize("binary_training", [True, False])
def test_binary_training_decides_what_stands_for_the_weights_while_they_are_trained(custom, binary_training):
    entry = {"name": "binary", "weight_bipolar": True, "binary_training": binary_training}
    layer = quantize(custom, by_type(linear=entry))[0].model.seq_blocks[2]
    with torch.no_grad():
        layer.weight[0, 0] = 3.0
    layer.train()
    assert layer.parameter("weight").unique().numel() == (2 if binary_training else layer.weight.numel())
    assert layer.parameter("weight").abs().max() == 1
    layer.eval()
    assert set(layer.parameter("weight").unique().tolist()) == {-1.0, 1.0}


class Net(nn.Module):
    """Layers, functions, and an operation that nothing quantises."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, bias=False)
        self.norm = nn.GroupNorm(2, 4)
        self.act = nn.ReLU()
        self.middle = nn.Linear(16, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x))).flatten(1)
        x = self.act(self.middle(x))
        x = x + x.cumsum(-1)
        return torch.sin(F.linear(self.head(x), self.head.weight.t(), self.middle.bias))


X = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return trace(Net(), X)


def carried(graph, settings):
    """Path to the slots that are not float."""
    new, info = quantize(graph, settings)
    assert info["assignment"].keys() == {path for path, s in assignment_of(new.model).items() if any_set(s)}
    return {path: set(slots) for path, slots in info["assignment"].items()}


def any_set(slots):
    return any(f is not FULL for f in slots.values())


def test_by_type_functions_are_meant_as_well_as_layers(net):
    settings = by_type(relu={"data_in_width": 8}, linear={"weight_width": 8}, add={"data_in_width": 6})
    found = carried(net, settings)
    assert found == {
        "relu": {"data_in"},
        "act": {"data_in"},
        "middle": {"weight"},
        "head": {"weight"},
        "linear": {"weight"},
        "add": {"data_in"},
    }


def test_functions_are_named_by_node_or_site_and_their_formats_are_computed_with(net):
    settings = QuantizeSettings("name", {"add": {"data_in": "integer(width=4, frac_width=1)"}})
    new, _ = quantize(net, settings)
    f, model = Integer(4, 1), net.model
    x = model.act(model.middle(F.relu(model.norm(model.conv(X))).flatten(1)))
    x = f.quantize(x) + f.quantize(x.cumsum(-1))
    expected = torch.sin(F.linear(model.head(x), model.head.weight.t(), model.middle.bias))
    assert torch.equal(new.model(X), expected)
    assert [node.kind for node in new if node.site == "add"] == ["call_function"]


def test_an_unset_bias_of_a_function_follows_its_accumulator(net):
    entry = {"data_in": "integer(width=8, frac_width=4)", "weight": "integer(width=4, frac_width=3)"}
    new, _ = quantize(net, QuantizeSettings("regex", {"linear.*": entry}))
    assert new.model.get_submodule("linear").slots["bias"] == accumulator(Integer(8, 4), Integer(4, 3), 3)


def test_the_default_is_for_layers_and_for_functions_that_read_weights_as_layers_do(net):
    assert set(carried(net, QuantizeSettings("type", default={"data_in_width": 8}))) == {
        *("conv", "norm", "act", "middle", "head", "linear")
    }


def test_a_pattern_means_functions_too_where_they_have_its_slots(net):
    settings = QuantizeSettings("regex", {"[nmcrah].*": {"weight_width": 8}})
    with pytest.raises(BadInput, match="a relu layer has no slot 'weight'"):
        quantize(net, settings)
    settings = QuantizeSettings("regex", {"[nmcrh].*|add": {"weight_width": 8}})
    assert set(carried(net, settings)) == {"norm", "middle", "conv", "head"}
    assert quantize(net, settings)[1]["unsupported"] == {
        "relu": "the function relu has no slot 'weight'",
        "add": "the function add has no slot 'weight'",
        "cumsum": "the function cumsum cannot be quantised",
        "sin": "the function sin cannot be quantised",
    }


def test_what_cannot_be_quantised_is_reported_and_refused_by_name(net):
    _, info = quantize(net, QuantizeSettings("type", default={"data_in_width": 8}))
    assert set(info["unsupported"]) == {"cumsum", "sin"}
    for name in info["unsupported"]:
        with pytest.raises(BadInput, match=f"'{name}' is the function {name}, which cannot be quantised"):
            quantize(net, QuantizeSettings("name", {name: {"data_in_width": 8}}))
    unfolded = trace(nn.Sequential(nn.LocalResponseNorm(2)), torch.zeros(2, 3, 4))
    _, info = quantize(unfolded, QuantizeSettings("type", default={"data_in_width": 8}))
    assert info["unsupported"]["0"] == "LocalResponseNorm has no quantised layer"


def test_a_site_whose_name_is_taken_gets_another():
    class Taken(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.Linear(2, 2)

        def forward(self, x):
            return F.relu(self.relu(x))

    model, x = Taken(), torch.randn(3, 2)
    quantised, info = quantize(trace(model, x), by_type(relu={"data_in": {"width": 4, "frac_width": 2}}))
    assert list(info["assignment"]) == ["relu_0"]
    assert torch.equal(quantised.model(x), Integer(4, 2).quantize(model.relu(x)).relu())


WIDE = {"data_in": "integer(width=8)", "weight": "integer(width=8)"}
NARROW = {"data_in": "integer(width=4)", "weight": "integer(width=4)"}


def widths(graph, **settings):
    _, info = quantize(graph, QuantizeSettings(**{"by": "type", **settings}))
    return {path: parse(slots["weight"]).width for path, slots in info["assignment"].items() if "weight" in slots}


def test_the_first_and_the_last_layer_with_weights_have_entries_of_their_own(net):
    everything = {"default": NARROW, "entries": {"linear": NARROW}}
    assert widths(net, **everything, first=WIDE) == {"conv": 8, "norm": 4, "middle": 4, "head": 4, "linear": 4}
    assert widths(net, **everything, first=WIDE, last=WIDE)["head"] == 8
    assert widths(net, first=WIDE) == {"conv": 8}
    assert widths(traced("jsc-custom"), first=WIDE) == {"seq_blocks.2": 8}  # not the BatchNorm before it
    assert widths(net, default=NARROW, last={"name": "NA"}) == {"conv": 4, "norm": 4, "middle": 4, "linear": 4}


def test_what_is_skipped_stays_float_whatever_is_said(net):
    everything = {"default": NARROW, "entries": {"linear": NARROW}}
    for skip, left in {
        "conv": {"norm", "middle", "head", "linear"},
        "linear": {"conv", "norm", "middle", "head"},
        "m.*|h.*": {"conv", "norm", "linear"},
    }.items():
        assert widths(net, **everything, skip=[skip]).keys() == left
    graph = trace(nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2)))
    assert widths(graph, default=NARROW, skip=["0"]).keys() == {"1"}
    assert widths(graph, default=NARROW, skip=["0_1", "1"]).keys() == {"0.0"}


def test_a_device_refuses_pairs_of_formats_it_does_not_multiply(net):
    bits = "integer(width={})".format
    mixed = {"data_in": bits(8), "weight": bits(4)}
    pairs = [[bits(8), bits(8)], [bits(8), bits(4)]]
    norm = {"data_in": bits(16), "weight": bits(16)}  # multiplies nothing with weights
    assert widths(net, entries={"linear": mixed, "group_norm": norm}, first=WIDE, allowed=pairs)["norm"] == 16
    assert widths(net, entries={"linear": mixed}, allowed=[["*", "int*"]])["middle"] == 4
    message = r"'middle' has a pair of formats that is not allowed .*found 'integer\(width=4.*integer\(width=8\) x"
    with pytest.raises(BadInput, match=message):
        quantize(net, QuantizeSettings("type", {"linear": NARROW}, allowed=pairs))
    with pytest.raises(BadInput, match="x float'"):
        quantize(net, QuantizeSettings("type", {"conv2d": {"data_in": bits(8)}}, allowed=pairs))
    assert widths(net, entries={"linear": {"name": "NA"}}, allowed=pairs) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"skip": ["cnv"]}, r"this name \(skip\): found 'cnv'.*did you mean 'conv'"),
        ({"skip": ["co("]}, r"not a regular expression.*\(skip\)"),
        ({"skip": "conv"}, r"not a list \(skip\)"),
        ({"skip": ["conv"], "first": WIDE}, "is to be skipped and is the first"),
        ({"skip": ["conv"], "entries": {"conv2d": WIDE}}, "everything this key means is skipped"),
        ({"by": "name", "skip": ["conv"], "entries": {"conv": WIDE}}, "'conv' is named and is to be skipped"),
        ({"by": "name", "first": WIDE, "entries": {"conv": WIDE}}, r"chosen twice \(conv\): found \['first', 'conv'\]"),
        ({"first": {"weight_widht": 8}}, r"\(first\.weight.*did you mean 'width'"),
        ({"allowed": [["integer"]]}, r"not a pair of formats \(allowed\)"),
        ({"allowed": []}, r"not a list of pairs \(allowed\)"),
        ({"allowed": [["intger", "*"]]}, r"\(allowed\): found 'intger'.*did you mean 'integer'"),
        ({"allowed": [["integer(widht=8)", "*"]]}, r"did you mean 'width'"),
        ({"allowed": [["integer(8)", "*"]]}, "not a pattern of formats"),
    ],
)
def test_contradictions_and_what_matches_nothing_are_refused(net, settings, message):
    with pytest.raises(BadInput, match=message):
        quantize(net, QuantizeSettings(**{"by": "type", **settings}))


def test_a_model_that_is_one_layer_or_has_no_weights_has_no_first_layer_but_its_own():
    assert widths(trace(nn.Linear(2, 2), torch.zeros(1, 2)), last=WIDE) == {"": 8}
    with pytest.raises(BadInput, match=r"no layer with weights to multiply"):
        widths(trace(nn.Sequential(nn.ReLU()), torch.zeros(1, 2)), first=WIDE)
