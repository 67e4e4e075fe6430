"""Graphs of whole networks, against what hooks see of a run and against autograd's own graph.

Two oracles that know nothing of tracing: forward hooks say which layers are called, in which order and
with which shapes; the graph that autograd keeps of a run says which layers' results reach a layer.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from paretobit.graph import Ref, trace
from paretobit.models import MODELS, build, input_dtype

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
HF = {
    "hf:vit": ((3, 8, 8), {**TINY, "intermediate_size": 24, "patch_size": 4}),
    "hf:bert": ((7,), {**TINY, "intermediate_size": 24, "vocab_size": 50}),
    "hf:gpt2": ((7,), {**TINY, "vocab_size": 50}),
}
IMAGES = [entry.name for entry in MODELS if entry.value.layout == "image"]
VECTORS = [entry.name for entry in MODELS if entry.value.layout == "features"]


class Functional(nn.Module):
    """Functions and methods only, over parameters of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(3, 16) / 4)
        self.register_buffer("scale", torch.full((1,), 2.0))

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        x = x.view(x.size(0), -1) * self.scale
        return F.log_softmax(F.linear(x, self.weight), dim=-1)


class InPlace(nn.Module):
    """Layers, methods and operators that work in place; some results are not picked up."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        x = self.first(x)
        self.relu(x)
        y = self.second(x)
        y.add_(x)
        y += self.norm(x)
        F.relu_(y)
        return self.third(y)


class Shared(nn.Module):
    """One layer called twice, and under two names; an activation called everywhere."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.again = self.layer
        self.act = nn.ReLU()

    def forward(self, x):
        x = self.act(self.layer(x))
        return self.head(self.act(self.again(x)) + x)


class Branches(nn.Module):
    """Two inputs, one by keyword; concatenation, split, residual; a dictionary with a nested list."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 6), nn.Linear(3, 6)
        self.mix, self.gate, self.head = nn.Linear(12, 8), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, a, *, b, scale=1.0):
        mixed = self.mix(torch.cat([self.left(a), self.right(b)], dim=-1))
        value, gate = mixed.chunk(2, dim=-1)
        value = value * torch.sigmoid(self.gate(gate)) * scale + a
        return {"logits": self.head(value), "hidden": [value, gate]}


class Several(nn.Module):
    """Several inputs and outputs, by position."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, a, b):
        return self.one(a - b), self.two(torch.flatten(b, 1))


class Deciding(nn.Module):
    """Control flow that depends on values, on a shape, and on a type."""

    def __init__(self):
        super().__init__()
        self.first, self.small, self.large = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        x = self.first(x)
        while x.abs().max() > 0.5:
            x = self.first(x) / 4
        return self.small(x) if x.sum() < 1e9 else self.large(x)


class ByType(nn.Module):
    """Takes a tensor, or a list of tensors: the symbols of fx are neither."""

    def __init__(self):
        super().__init__()
        self.single, self.several = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        return self.single(x) if isinstance(x, Tensor) else self.several(x)


class Recurrent(nn.Module):
    """Layers with results of several tensors."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        states, (last, _) = self.lstm(x)
        mixed, _ = self.attention(states, states, states)
        return self.head(mixed.mean(1) + last[0])


def handwritten(kind, *inputs, **named):
    torch.manual_seed(0)
    return kind().eval(), (named if named else inputs)


def case(name):
    """A model and example inputs of two rows."""
    torch.manual_seed(1)
    if name in HF:
        shape, config = HF[name]
        model = build(name, shape, 5, config=config)
        x = torch.randn(2, *shape) if input_dtype(model).is_floating_point else torch.randint(1, 50, (2, *shape))
        return model.eval(), (x,)
    if name in MODELS:
        shape = (3, 8, 8) if name in IMAGES else (16,)
        return build(name, shape, 5).eval(), (torch.randn(2, *shape),)
    x = torch.randn(2, 4)
    return {
        "functional": lambda: handwritten(Functional, torch.randn(2, 2, 4, 4)),
        "in place": lambda: handwritten(InPlace, x),
        "shared": lambda: handwritten(Shared, x),
        "branches": lambda: handwritten(Branches, a=x, b=torch.randn(2, 3), scale=0.5),
        "several": lambda: handwritten(Several, x, torch.randn(2, 4)),
        "deciding": lambda: handwritten(Deciding, x),
        "by type": lambda: handwritten(ByType, x),
        "recurrent": lambda: handwritten(Recurrent, torch.randn(2, 3, 4)),
        "bert model": lambda: (
            transformers.BertModel(transformers.BertConfig(**HF["hf:bert"][1])).eval(),
            {"input_ids": torch.randint(1, 50, (2, 7)), "attention_mask": torch.ones(2, 7)},
        ),
    }[name]()


HANDWRITTEN = ["functional", "in place", "shared", "branches", "several", "deciding", "by type", "recurrent"]
ALL = [*VECTORS, *IMAGES, *HF, "bert model", *HANDWRITTEN]
RUN = {*HF, "bert model", "deciding", "by type"}


def run(model, example):
    return model(**example) if isinstance(example, dict) else model(*example)


def is_layer(module):
    known = type(module).__module__.startswith("torch.nn.modules.") or type(module).__name__ == "Conv1D"
    return isinstance(module, nn.MultiheadAttention) or (known and not list(module.children()))


class Seen:
    """What hooks and autograd see of one run: the calls of layers, and which call feeds which.

    A call whose result is its argument (dropout at rest) passes on what fed it.
    """

    def __init__(self, model, example):
        self.calls, self.feeds = [], {}
        self._by_function, self._kept, self._inside, self._stack = {}, [], 0, []
        handles = []
        for path, module in model.named_modules():
            if is_layer(module):
                handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
                handles.append(module.register_forward_hook(self._leave(path)))
        run(model, copy.deepcopy(example))
        for handle in handles:
            handle.remove()

    def _enter(self, module, args, kwargs):
        self._inside += 1
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        # Read before the call: a layer in place changes its argument's place in autograd's graph.
        self._stack.append((tuple(given[0].shape), [t.grad_fn for t in given], [id(t) for t in given]))

    def _leave(self, path):
        def hook(module, args, result):
            self._inside -= 1
            shape, functions, _ = self._stack.pop()
            if self._inside:
                return
            results = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
            number = len(self.calls)
            self.calls.append((path, shape, tuple(results[0].shape)))
            self.feeds[number] = set().union(*map(self._sources, functions)) if functions else set()
            for function in (t.grad_fn for t in results):
                if function is not None and function not in functions:
                    self._by_function[function] = number
            self._kept.append((functions, results))

        return hook

    def _sources(self, function):
        found, waiting, met = set(), [function], set()
        while waiting:
            current = waiting.pop()
            if current is None or current in met:
                continue
            met.add(current)
            if current in self._by_function:
                found.add(self._by_function[current])
            else:
                waiting += [following for following, _ in current.next_functions]
        return found


def feeds_of(graph, ignored):
    """Call number of each layer to those of the layers whose results reach it through functions alone."""
    layers = [node for node in graph if node.kind == "call_module"]
    number = {node.name: i for i, node in enumerate(layers)}
    by_name = {node.name: node for node in graph}

    def sources(names):
        found, waiting, met = set(), list(names), set()
        while waiting:
            current = waiting.pop()
            if current in met:
                continue
            met.add(current)
            if current in number and number[current] not in ignored:
                found.add(number[current])
            else:
                waiting += by_name[current].inputs
        return found

    return {number[node.name]: sources(node.inputs) for node in layers}


@pytest.mark.parametrize("name", ALL)
def test_every_layer_appears_in_order_with_the_shapes_that_hooks_see(name):
    model, example = case(name)
    graph = trace(model, example)
    assert graph.method == ("run" if name in RUN else "fx")
    assert (graph.untraced is None) == (graph.method == "fx")
    seen = Seen(model, example)
    calls = [(n.owner, n.input_shape, n.output_shape) for n in graph if n.kind == "call_module"]
    assert calls == seen.calls
    assert len(calls) >= 1


@pytest.mark.parametrize("name", ALL)
def test_data_flows_between_layers_as_autograd_says(name):
    model, example = case(name)
    seen = Seen(model, example)
    graph = trace(model, example)
    passing = {
        i for i, (path, *_) in enumerate(seen.calls)
        if isinstance(model.get_submodule(path), nn.Dropout | nn.Identity)
    }  # fmt: skip
    feeds = feeds_of(graph, passing)
    assert feeds == seen.feeds
    assert any(feeds.values()) or len(feeds) < 3


@pytest.mark.parametrize("name", ALL)
def test_references_inputs_and_shapes_agree(name):
    graph = trace(*case(name))
    before = {}
    for node in graph:
        arguments = tree_leaves((node.args, dict(node.kwargs)))
        references = {leaf.node for leaf in arguments if isinstance(leaf, Ref)}
        assert references == set(node.inputs)
        assert references <= before.keys(), "a node takes what is computed before it"
        for source, shape in zip(node.inputs, node.input_shapes, strict=True):
            assert shape in before[source] or (shape is None and not before[source])
        before[node.name] = node.output_shapes
    assert len(before) == len(graph.nodes)
    assert graph.nodes[-1].kind == "output"


@pytest.mark.parametrize("name", ALL)
def test_the_model_and_the_example_stay_as_they_were(name):
    model, example = case(name)
    model.train()
    next(model.children()).eval()
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    state, given = copy.deepcopy(model.state_dict()), copy.deepcopy(example)
    modes = {path: module.training for path, module in model.named_modules()}
    keys = {path: set(vars(module)) for path, module in model.named_modules()}
    trace(model, example)
    assert {path: module.training for path, module in model.named_modules()} == modes
    assert {path: set(vars(module)) for path, module in model.named_modules()} == keys
    after = model.state_dict()
    assert state.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in state.items())
    assert all(torch.equal(a, b) for a, b in zip(*map(tensors, (example, given)), strict=True))
    assert all(parameter.grad is None and parameter.grad_fn is None for parameter in model.parameters())
    hooks = [h for m in model.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]
    assert len(hooks) == 1
    handle.remove()


def tensors(example):
    return [leaf for leaf in tree_leaves(example) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("method", ["fx", "run"])
def test_operations_in_place_pass_their_result_on_whether_or_not_it_is_picked_up(method):
    class Undecided(InPlace):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) < 1e9 else x

    model, example = case("in place")
    if method == "run":
        model = Undecided().eval()
    graph = trace(model, example)
    assert graph.method == method
    assert graph["relu"].inputs == ("first",)
    assert graph["second"].inputs == ("relu",)
    added, summed = (node for node in graph if node.op == "add")
    assert added.inputs == ("second", "relu")
    assert summed.inputs == (added.name, "norm")
    last = graph[graph["third"].inputs[0]]
    assert (last.op, last.inputs) == ("relu", (summed.name,))


@pytest.mark.parametrize("arguments", [{"inplace": True}, {"inplace": False}, {}])
def test_a_function_works_in_place_only_where_it_is_told_to(arguments):
    class Told(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            y = self.layer(x)
            F.hardtanh(y, -0.1, 0.1, **arguments)
            return torch.neg(y)

    node = trace(Told(), torch.randn(2, 4))["neg"]
    assert node.inputs == (("hardtanh",) if arguments.get("inplace") else ("layer",))


def test_adding_in_place_changes_every_name_and_what_fx_gets_wrong_is_taken_from_a_run():
    """`x += y` changes every name of x; the symbols of fx alone would take it for `x = x + y`."""

    class Aliased(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            y = kept = self.layer(x)
            y += x
            return y * kept.sum()

    graph = trace(Aliased(), torch.randn(2, 4))
    assert graph.method == "fx"
    assert graph["sum"].inputs == ("add",), "the sum that is now under both names"
    model, example = case("by type")
    for x in (*example, torch.zeros(2, 4)):
        graph = trace(model, x)
        assert "the layers it finds are not those of a run" in graph.untraced
        assert [node.owner for node in graph.layers] == ["single"]


def test_a_model_that_draws_random_numbers_at_rest_is_still_traced_by_fx():
    class Noisy(nn.Module):
        def forward(self, x):
            return F.dropout(x + torch.randn_like(x), 0.5, training=True)

    torch.manual_seed(3)
    assert trace(Noisy(), torch.ones(2, 4)).method == "fx"


def test_functions_parameters_and_buffers_are_nodes():
    graph = trace(*case("functional"))
    ops = [node.op for node in graph if node.kind in ("call_module", "call_function", "call_method")]
    kept = [op for op in ops if op not in ("size", "getattr", "getitem")]
    assert kept == ["conv2d", "relu", "max_pool2d", "view", "mul", "linear", "log_softmax"]
    assert {node.name for node in graph if node.kind == "get_attr"} == {"weight", "scale"}
    (linear,) = [node for node in graph if node.op == "linear"]
    assert linear.input_shapes == ((2, 16), (3, 16))
    assert linear.output_shape == (2, 3)


def test_concatenation_split_and_dictionaries_keep_their_edges():
    graph = trace(*case("branches"))
    assert graph["cat"].inputs == ("left", "right")
    assert graph["chunk"].output_shapes == ((2, 4), (2, 4))
    assert graph["gate"].input_shape == (2, 4)
    (out,) = [node for node in graph if node.kind == "output"]
    assert "head" in out.inputs
    assert len(set(out.inputs)) == 3
    assert [node.name for node in graph if node.kind == "placeholder"][:2] == ["a", "b"]


def test_a_shared_layer_is_one_layer_of_two_calls():
    graph = trace(*case("shared"))
    calls = [(node.name, node.owner) for node in graph if node.kind == "call_module"]
    assert calls == [
        ("layer", "layer"), ("act", "act"), ("layer_1", "layer"), ("act_1", "act"), ("head", "head")
    ]  # fmt: skip
    assert [node.name for node in graph.layers] == ["layer", "act", "head"]


def test_control_flow_on_data_keeps_the_layers_and_says_what_the_graph_lacks():
    graph = trace(*case("deciding"))
    assert "torch.fx cannot trace it" in graph.untraced
    owners = [node.owner for node in graph if node.kind == "call_module"]
    assert owners[0] == "first"
    assert owners[-1] == "small"
    assert "large" not in owners


@pytest.mark.parametrize("name", HF)
def test_a_transformers_residuals_and_attention_are_connected(name):
    model, example = case(name)
    graph = trace(model, example)
    attention = [node for node in graph if node.op == "scaled_dot_product_attention"]
    assert len(attention) == 2
    layers = [node for node in graph if node.kind == "call_module"]
    for node in attention:
        heads, tokens, size = node.input_shapes[0][1:]
        assert heads * size == TINY["hidden_size"]
        assert node.input_shapes[0] == node.input_shapes[1] == node.input_shapes[2]
        assert node.output_shape == (2, heads, tokens, size)
    residual = [node for node in graph if node.op == "add" and len(set(node.inputs)) == 2]
    residual = [node for node in residual if node.output_shape == (2, tokens, TINY["hidden_size"])]
    assert len(residual) >= 4, "two sums in each of two blocks"
    dead = [node.name for node in layers if not _reaches_output(graph, node.name)]
    assert not dead


def _reaches_output(graph, name):
    reached = {name}
    for node in graph:
        if reached & set(node.inputs):
            reached.add(node.name)
    return graph.nodes[-1].name in reached


@pytest.mark.slow
def test_a_bert_of_110_million_parameters_is_traced_in_seconds():
    model = build("hf:bert", (128,), 2).eval()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(110e6, rel=0.01)
    graph = trace(model, torch.randint(1, 1000, (1, 128)))
    assert sum(node.op == "linear" for node in graph.layers) == 12 * 6 + 2
    assert sum(node.op == "scaled_dot_product_attention" for node in graph) == 12
