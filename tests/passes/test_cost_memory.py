"""Peak activation memory is that of a walk over the run by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from paretobit.errors import BadInput
from paretobit.formats import Integer
from paretobit.graph import trace
from paretobit.passes.analysis import cost, peak_memory


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 10), nn.Linear(10, 10), nn.Linear(10, 4)

    def forward(self, x):
        return x + self.c(self.b(self.a(x)))


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("rows", [1, 3])
def test_an_activation_lives_from_its_producer_to_its_last_use(rows):
    graph = trace(Residual(), torch.zeros(rows, 4))
    assert peak_memory(graph) == 4 * (4 + 10 + 10)  # x waits for the sum, b has input and output
    assert cost(graph).peak_memory == 4 * (4 + 10 + 10)


def test_an_activation_is_as_wide_as_the_widest_format_it_is_read_in():
    graph = trace(Residual(), torch.zeros(1, 4))
    formats = {path: {"data_in": Integer(8)} for path in "abc"}
    assert peak_memory(graph, formats) == 4 * (4 + 4 + 4)  # the sum reads at 32 bits
    formats[next(node.site for node in graph if node.op == "add")] = {"data_in": Integer(16)}
    assert peak_memory(graph, formats) == 2 * (4 + 4) + 4 * 4


@pytest.mark.parametrize(
    ("function", "floats"),
    [
        (lambda x: torch.sigmoid(x.view(-1, 6).transpose(0, 1)), 6 + 6),
        (lambda x: torch.sigmoid(x.transpose(1, 2).reshape(-1, 6)), 6 + 6),
        (lambda x: x.transpose(1, 2).reshape(-1, 6)[:, :2].exp(), 6 + 6),
        (lambda x: x.transpose(1, 2) + x.reshape(1, 3, 2), 6 + 6),
        (lambda x: F.relu(torch.exp(x), inplace=True), 6 + 6),
        (lambda x: torch.cat([x, x, x.exp()], 1), 6 + 6 + 18),
        (lambda x: x.exp().exp().exp().exp(), 6 + 6),
        (lambda x: [part.exp() for part in x.split(1, 1)], 6 + 3 + 3),
    ],
)
def test_views_share_memory_and_copies_do_not(function, floats):
    assert peak_memory(trace(Function(function), torch.zeros(1, 2, 3))) == 4 * floats


def test_a_copy_is_as_wide_as_what_reads_it():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(12, 3)

        def forward(self, x):
            return self.b(torch.cat([x, self.a(x)], 1))

    graph = trace(Dense(), torch.zeros(2, 6))
    assert peak_memory(graph) == 4 * (6 + 6 + 12)
    assert peak_memory(graph, {"b": {"data_in": Integer(16)}}) == 4 * 6 + 2 * (6 + 12)
    both = {path: {"data_in": Integer(8)} for path in "ab"}
    assert peak_memory(graph, both) == 6 + 6 + 12


@pytest.mark.parametrize(("inplace", "floats"), [(True, 8), (False, 16)])
def test_a_layer_in_place_needs_no_memory_of_its_own(inplace, floats):
    layers = nn.Sequential(nn.Linear(2, 8), nn.ReLU(inplace=inplace), nn.Linear(8, 1))
    assert peak_memory(trace(layers, torch.zeros(1, 2))) == 4 * max(floats, 10)


def test_parameters_are_no_activations():
    class Prompted(nn.Module):
        def __init__(self):
            super().__init__()
            self.prompt = nn.Parameter(torch.zeros(1, 5, 4))

        def forward(self, x):
            return torch.cat([self.prompt.expand(len(x) if x.sum() > 0 else 1, -1, -1), x], 1)

    assert peak_memory(trace(Prompted(), torch.zeros(1, 2, 4))) == 4 * (2 * 4 + 7 * 4)


def test_memory_needs_shapes():
    with pytest.raises(BadInput, match="activation memory needs shapes: give example inputs"):
        peak_memory(trace(nn.Sequential(nn.Linear(4, 2))))


class Program(nn.Module):
    """Operations on what came before, some of which write into it."""

    def __init__(self, steps):
        super().__init__()
        self.steps, self.inplace, self.linear = steps, nn.ReLU(inplace=True), nn.Linear(4, 4)

    def forward(self, x):
        made = [x]
        for kind, first, second in self.steps:
            a, b = made[first % len(made)], made[second % len(made)]
            match kind:
                case "relu":
                    a = torch.relu(a)
                case "add":
                    a = a + b
                case "linear":
                    a = self.linear(a)
                case "part":
                    a = torch.cat([a[:, :1], b[:, 1:]], 1)
                case "view":
                    a = a.reshape(-1).view(1, 2, 4)
                case "relu_":
                    a = a.relu_()
                case "+=":
                    a += b.clone()
                case "*=":
                    a *= 2.0
                case "add_":
                    a = a.add_(1.0)
                case "layer in place":
                    a = self.inplace(a)
                case "function in place":
                    a = F.relu(a, True)
                case "out":
                    memory = torch.relu(a)
                    a = torch.mul(a, 2.0, out=memory)
                case "copy_":
                    a = a.copy_(b.clone())
                case "set":
                    a = a.clone()
                    a[:, 0] = b[:, 1]
            made.append(a)
        return made[-1]


KINDS = (
    "relu", "add", "linear", "part", "view", "relu_", "+=", "*=", "add_", "layer in place", "function in place", "out",
    "copy_", "set",
)  # fmt: skip
STEPS = st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.integers(0, 9))


class Storages(TorchDispatchMode):
    """When each memory is first and last touched, by its address; nothing is freed meanwhile."""

    def __init__(self):
        super().__init__()
        self.step, self.spans, self.bytes, self.kept = 0, {}, {}, []

    def see(self, value):
        for tensor in tree_leaves(value):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                first = self.spans.setdefault(storage.data_ptr(), (self.step, 0))[0]
                self.spans[storage.data_ptr()] = (first, self.step)
                self.bytes[storage.data_ptr()] = storage.nbytes()
                self.kept.append(tensor)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.step += 1
        result = func(*args, **(kwargs or {}))
        self.see((args, kwargs, result))
        return result


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=7))
def test_what_is_written_in_place_takes_no_new_memory(steps):
    model, x = Program(steps).eval().requires_grad_(False), torch.randn(1, 2, 4)
    seen = Storages()
    seen.see(copied := x.clone())
    with seen:
        result = model(copied)
    seen.step += 1
    seen.see(result)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    spans = [(first, last, seen.bytes[at]) for at, (first, last) in seen.spans.items() if at not in own]
    alive = [sum(b for first, last, b in spans if first <= step <= last) for step in range(seen.step + 1)]
    assert peak_memory(trace(model, x)) == max(alive)


def test_numbers_that_are_added_up_are_no_memory():
    def halves(x):
        rows = x.size(0)
        rows += 1
        return x.view(rows - 1, 2, -1) + rows

    graph = trace(Function(halves), torch.zeros(1, 8))
    assert (graph.method, peak_memory(graph)) == ("fx", 4 * 16)
