"""A graph names what a model does, and tracing leaves the model as it was."""

import copy

import pytest
import torch
from torch import nn

from paretobit.errors import BadInput
from paretobit.graph import class_name, op_of, trace
from paretobit.models import MODELS
from paretobit.passes.transform import QuantizeSettings, quantize


class Block(nn.Module):
    """Functional and method calls, an in-place addition, a module called twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        y = self.relu(self.conv(x))
        y = self.relu(self.conv(y)) * self.scale
        return torch.cat([x + y, y.sigmoid()], 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block())
        self.head = nn.Linear(6 * 16, 2)

    def forward(self, x):
        y = self.blocks(x)
        return self.head(torch.flatten(y, 1))


class Choosy(nn.Module):
    """Control flow that depends on the data."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.never = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 2)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        x = self.first(self.first(x))
        x = x + self.attention(x[:, None], x[:, None], x[:, None])[0][:, 0]
        return self.never(x) if x.sum() > 1e9 else self.second(x)


class Leaving(nn.Module):
    """Leaves traces of every run: attributes, a counter, a buffer that is replaced."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.last = None
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        self.last = x
        self.new = x
        return self.linear(x)


class LeavingChoosy(Leaving):
    def forward(self, x):
        super().forward(x)
        return self.linear(x) if x.sum() < 1e9 else x


def named(graph):
    return [node.name for node in graph]


def test_a_model_of_the_field_has_the_names_of_the_reports():
    graph = trace(MODELS["jsc-tiny"].build((16,), 5), torch.zeros(8, 16))
    assert [(node.name, node.kind, node.op) for node in graph] == [
        ("x", "placeholder", "placeholder"),
        ("seq_blocks_0", "call_module", "batch_norm1d"),
        ("seq_blocks_1", "call_module", "relu"),
        ("seq_blocks_2", "call_module", "linear"),
        ("seq_blocks_3", "call_module", "relu"),
        ("output", "output", "output"),
    ]
    assert graph["seq_blocks_2"].owner == "seq_blocks.2"
    assert graph["seq_blocks_2"].input_shape == (8, 16)
    assert graph["seq_blocks_2"].output_shape == (8, 5)
    assert graph["seq_blocks_2"].inputs == ("seq_blocks_1",)
    assert (graph.method, graph.untraced, graph.batch) == ("fx", None, 8)


def test_functions_methods_attributes_and_repeated_calls_are_nodes():
    model = Net()
    graph = trace(model, torch.randn(2, 3, 4, 4))
    assert [(node.kind, node.op) for node in graph] == [
        ("placeholder", "placeholder"),
        ("call_module", "conv2d"),
        ("call_module", "relu"),
        ("call_module", "conv2d"),
        ("call_module", "relu"),
        ("get_attr", "get_attr"),
        ("call_function", "mul"),
        ("call_function", "add"),
        ("call_method", "sigmoid"),
        ("call_function", "cat"),
        ("call_function", "flatten"),
        ("call_module", "linear"),
        ("output", "output"),
    ]
    assert len(set(named(graph))) == len(named(graph))
    calls = [node for node in graph if node.owner == "blocks.0.conv" and node.kind == "call_module"]
    assert [node.name for node in calls] == ["blocks_0_conv", "blocks_0_conv_1"]
    assert graph["blocks_0_add"].owner == "blocks.0"
    assert graph["flatten"].owner == ""
    assert graph["blocks_0_cat"].output_shape == (2, 6, 4, 4)
    assert graph["blocks_0_cat"].inputs == ("blocks_0_add", "blocks_0_sigmoid")
    assert graph["head"].input_shape == (2, 96)
    assert all(graph.module(node) is model.get_submodule(node.owner) for node in calls)


def test_layers_are_modules_once_at_their_first_call():
    graph = trace(Net(), torch.randn(2, 3, 4, 4))
    assert [node.name for node in graph.layers] == ["blocks_0_conv", "blocks_0_relu", "head"]


def test_a_module_under_two_names_is_one_layer():
    shared = nn.Linear(4, 4)
    graph = trace(nn.Sequential(shared, nn.ReLU(), shared), torch.zeros(1, 4))
    assert named(graph) == ["input_1", "0", "1", "0_1", "output"]
    assert [node.owner for node in graph.layers] == ["0", "1"]


def test_names_that_collide_are_told_apart():
    model = nn.ModuleDict({"a": nn.Sequential(nn.ReLU()), "a_0": nn.Tanh()})
    model.forward = lambda x: model["a_0"](model["a"](x))
    calls = [node for node in trace(model, torch.zeros(1, 2)) if node.kind == "call_module"]
    assert [(node.name, node.owner) for node in calls] == [("a_0_1", "a.0"), ("a_0", "a_0")]


def test_several_inputs_are_given_in_order_or_by_name():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(4, 2), nn.Linear(3, 2)

        def forward(self, a, b, *, scale=2.0):
            return self.left(a) * scale + self.right(b)

    a, b = torch.zeros(5, 4), torch.zeros(5, 3)
    for example in ((a, b), [a, b], {"b": b, "a": a}, {"a": a, "b": b, "scale": 3.0}):
        graph = trace(Two(), example)
        assert named(graph) == ["a", "b", "left", "mul", "right", "add", "output"]
        assert (graph["left"].input_shape, graph["right"].input_shape) == ((5, 4), (5, 3))
        assert graph.batch == 5


def test_arguments_that_are_left_out_keep_their_defaults():
    class Optional(nn.Module):
        def __init__(self):
            super().__init__()
            self.plain, self.masked = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x, mask=None, masked=False, *rest, **more):
            if mask is not None or masked:
                return self.masked(x) * (1.0 if mask is None else mask)
            return self.plain(x)

    x = torch.zeros(2, 4)
    for example in (x, None, (x, None), {"x": x, "masked": False}):
        assert named(trace(Optional(), example)) == ["x", "plain", "output"]
    assert "masked" in named(trace(Optional(), (x, torch.ones(2, 4))))
    assert "masked" in named(trace(Optional(), {"x": x, "masked": True}))


def test_data_dependent_control_flow_falls_back_to_what_one_run_calls():
    graph = trace(Choosy(), torch.zeros(3, 4))
    assert graph.method == "run"
    assert "torch.fx cannot trace it: TraceError" in graph.untraced
    layers = ["first", "first_1", "attention", "second"]
    assert [node.name for node in graph if node.kind == "call_module"] == layers
    assert named(graph)[0] == "x"
    assert graph.nodes[-1].kind == "output"
    assert graph["second"].input_shape == (3, 4)
    assert graph["second"].output_shape == (3, 2)
    assert graph.batch == 3


def test_without_example_shapes_are_unknown_and_nothing_runs():
    class Never(nn.Linear):
        def forward(self, x):
            raise AssertionError("ran")

    graph = trace(nn.Sequential(nn.Linear(4, 2), nn.ReLU()))
    assert (graph.method, graph.batch) == ("fx", None)
    assert all(node.input_shape is None and node.output_shape is None for node in graph)
    graph = trace(nn.Sequential(Never(2, 2)))
    assert graph.method == "modules"
    assert "no example inputs" in graph.untraced
    assert named(graph) == ["0"]
    assert {"first", "second", "never"} <= set(named(trace(Choosy())))


@pytest.mark.parametrize(
    "example", [torch.zeros(2, 5), (), (torch.zeros(2, 4), 1), {"y": torch.zeros(2, 4)}, "text"], ids=repr
)
@pytest.mark.parametrize("model", [nn.Sequential(nn.Linear(4, 2)), Choosy()], ids=["fx", "run"])
def test_an_example_that_does_not_fit_is_refused(model, example):
    with pytest.raises(BadInput, match=r"the model does not run on these inputs.*example inputs"):
        trace(model, example)


def test_the_message_shows_the_shapes_that_were_given():
    with pytest.raises(BadInput, match=r"mat1 and mat2.*found \[\(2, 5\)\]"):
        trace(nn.Sequential(nn.Linear(4, 2)), torch.zeros(2, 5))


def test_lazy_parameters_are_refused_before_anything_runs():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(BadInput, match="run it on its data once"):
        trace(model, torch.zeros(2, 5))
    model(torch.zeros(2, 5))
    assert trace(model, torch.zeros(2, 5))["0"].output_shape == (2, 3)


@pytest.mark.parametrize("kind", [Leaving, LeavingChoosy])
@pytest.mark.parametrize("example", [torch.randn(3, 4), None, torch.zeros(3, 9)], ids=["runs", "none", "wrong"])
def test_tracing_leaves_no_trace_in_the_model(kind, example):
    model = nn.Sequential(kind(), nn.BatchNorm1d(4), nn.Dropout())
    model[1].eval()
    before, given = copy.deepcopy(model.state_dict()), None if example is None else example.clone()
    buffer, attributes = model[0].count, set(vars(model[0]))
    try:
        trace(model, example)
    except BadInput:
        assert example.shape == (3, 9)
    assert model[0].last is None
    assert set(vars(model[0])) == attributes
    assert model[0].count is buffer
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert [module.training for module in model] == [True, False, True]
    assert example is None or torch.equal(example, given)
    assert not model[0].linear._forward_hooks
    copy.deepcopy(model)


def test_one_row_is_enough_for_a_model_in_training_mode():
    model = MODELS["jsc-custom"].build((16,), 5).train()
    assert trace(model, torch.zeros(1, 16))["seq_blocks_12"].output_shape == (1, 5)
    assert all(module.training for module in model.modules())


def test_layers_in_place_do_not_change_the_example():
    for example in (torch.randn(2, 4), (torch.randn(2, 4),), {"input": torch.randn(2, 4)}):
        before = copy.deepcopy(example)
        trace(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)), example)
        assert str(example) == str(before)


def test_a_quantised_model_still_traces_to_the_same_nodes():
    model = MODELS["jsc-custom"].build((16,), 5)
    graph = trace(model, torch.zeros(2, 16))
    quantised, _ = quantize(
        graph, QuantizeSettings("type", {"linear": {"data_in_width": 8}, "relu": {"data_in_width": 8}})
    )
    again = trace(quantised.model, torch.zeros(2, 16))
    assert again.nodes == graph.nodes
    assert again.original_type(again["seq_blocks_2"]) == "Linear"


@pytest.mark.parametrize("example", [torch.zeros(3, 4), None])
def test_a_model_that_is_one_torch_layer_is_one_node(example):
    model = nn.Linear(4, 2)
    graph = trace(model, example)
    assert [(node.kind, node.op) for node in graph] == [
        ("placeholder", "placeholder"),
        ("call_module", "linear"),
        ("output", "output"),
    ]
    (layer,) = graph.layers
    assert (layer.name, layer.owner, layer.output_elements) == ("linear", "", None if example is None else 2)
    assert graph.module(layer) is model


def test_an_unknown_node_names_the_closest():
    graph = trace(MODELS["jsc-tiny"].build((16,), 5))
    with pytest.raises(BadInput, match=r"no such node: found 'seq_block_2'.*did you mean 'seq_blocks_\d'"):
        graph["seq_block_2"]


@pytest.mark.parametrize("rows", [1, 2, 6])
@pytest.mark.parametrize(
    ("arrange", "elements"),
    [
        (lambda x: x, 5 * 4),
        (lambda x: x.reshape(-1, 4), 5 * 4),
        (lambda x: x.transpose(0, 1), 5 * 4),
        (lambda x: x.mean(1), 4),
        (lambda x: x.mean((0, 1), keepdim=True), 4),
    ],
    ids=["rows first", "merged", "sequence first", "pooled", "without rows"],
)
def test_elements_are_those_of_one_sample_wherever_the_rows_stand(arrange, elements, rows):
    class Arranged(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return self.linear(arrange(x))

    node = trace(Arranged(), torch.zeros(rows, 5, 4))["linear"]
    assert (node.input_elements, node.output_elements) == (elements, elements)


@pytest.mark.parametrize(
    ("module", "op", "name"),
    [
        (nn.BatchNorm2d(2), "batch_norm2d", "BatchNorm2d"),
        (nn.Conv1d(1, 1, 1), "conv1d", "Conv1d"),
        (nn.ReLU6(), "relu6", "ReLU6"),
        (nn.GELU(), "gelu", "GELU"),
        (nn.AdaptiveAvgPool2d(1), "adaptive_avg_pool2d", "AdaptiveAvgPool2d"),
        (nn.LayerNorm(2), "layer_norm", "LayerNorm"),
        (type("Mine", (nn.Linear,), {})(1, 1), "linear", "Linear"),
        (Block(), "block", "Block"),
    ],
)
def test_operations_are_named_after_the_torch_class(module, op, name):
    assert (op_of(module), class_name(module)) == (op, name)
