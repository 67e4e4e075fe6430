"""A format stays on the call it was given to, whatever else a run of the model calls."""

import functools
import textwrap
from collections import Counter

import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from paretobit.formats import Integer
from paretobit.graph import places_called, trace
from paretobit.nn import SiteNotReached
from paretobit.passes.transform import QuantizeSettings, quantize

COARSE = Integer(6, 1)
FLAGS = {"flag": (False, True), "n": (0, 1, 3), "rows": (1, 3)}

STATEMENTS = {  # as a user writes them, and with every call told by a name and the line: {i}
    "one": ("x = x + 0.3", "x = add('{i}', x, 0.3)"),
    "two on a line": (
        "x = (x + 0.3) * 1.1 + (x + 0.7)",
        "x = add('{i}a', mul('{i}b', add('{i}c', x, 0.3), 1.1), add('{i}d', x, 0.7))",
    ),
    "flag": ("if flag: x = x + 0.2", "if flag: x = add('{i}', x, 0.2)"),
    "rows": ("if x.shape[0] > 2: x = x * 1.2", "if x.shape[0] > 2: x = mul('{i}', x, 1.2)"),
    "data": ("if x.sum() > 0: x = torch.relu(x)", "if x.sum() > 0: x = relu('{i}', x)"),
    "first call": ("if self.seen == 1: x = x + 0.1", "if self.seen == 1: x = add('{i}', x, 0.1)"),
    "loop": ("for _ in range(n): x = x * 1.1", "for _ in range(n): x = mul('{i}', x, 1.1)"),
    "helper": ("x = helper(x)", "x = helper(x, '{i}')"),
    "decorated": ("x = decorated(x) + 0.4", "x = add('{i}', decorated(x, '{i}'), 0.4)"),
    "method": ("x = self.method(x)", "x = self.method(x, '{i}')"),
    "checkpoint": (
        "x = checkpoint(helper, x, use_reentrant=False)",
        "x = checkpoint(helper, x, '{i}', use_reentrant=False)",
    ),
    "comprehension": (
        "x = torch.stack([t + 0.3 for t in (x, x * 0.9)]).mean(0)",
        "x = torch.stack([add('{i}a', t, 0.3) for t in (x, mul('{i}b', x, 0.9))]).mean(0)",
    ),
    "child": ("x = self.child(x)", "x = self.child(x)"),
}

SOURCE = """
def helper(x{tag}):
    return {helper}

@around
def decorated(x{tag}):
    return {decorated}

class Child(nn.Module):
    def forward(self, x):
        return {child}

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.child, self.seen = Child(), 0

    def method(self, x{tag}):
        return {method}

    def forward(self, x, flag=False, n=1):
        self.seen = self.seen + 1
{body}
        return x
"""
PLAIN = {
    "tag": "",
    "helper": "torch.relu(x) + 0.1",
    "decorated": "x * 1.3",
    "child": "x * 0.8 + 0.2",
    "method": "helper(x + 0.2)",
}
TOLD = {
    "tag": ", tag",
    "helper": "add(tag + 'h+', relu(tag + 'hr', x), 0.1)",
    "decorated": "mul(tag + 'd', x, 1.3)",
    "child": "add('c+', mul('c*', x, 0.8), 0.2)",
    "method": "helper(add(tag + 'm', x, 0.2), tag + 'm')",
}


def around(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


class Told:
    """The operations of the model that is told by hand which call is quantised."""

    def __init__(self):
        self.chosen, self.log, self.counts = None, [], Counter()

    def begin(self):
        self.log, self.counts = [], Counter()

    def _operand(self, name, *values):
        call = (name, self.counts[name])
        self.counts[name] += 1
        self.log.append(call)
        return [COARSE.quantize(v) if call == self.chosen and isinstance(v, torch.Tensor) else v for v in values]

    def add(self, name, *values):
        left, right = self._operand(name, *values)
        return left + right

    def mul(self, name, *values):
        left, right = self._operand(name, *values)
        return left * right

    def relu(self, name, value):
        return torch.relu(*self._operand(name, value))


def built(words, told=None):
    """The model of these statements; told by hand, or as a user writes it."""
    lines = [STATEMENTS[word][told is not None].format(i=i) for i, word in enumerate(words)]
    body = textwrap.indent("\n".join(lines), " " * 8)
    given = {"nn": nn, "torch": torch, "around": around, "checkpoint": checkpoint}
    if told is not None:
        given |= {"add": told.add, "mul": told.mul, "relu": told.relu}
    exec(SOURCE.format(body=body, **(PLAIN if told is None else TOLD)), given)
    return given["Model"]().eval()


def inputs(case):
    x = torch.linspace(-2.0, 2.0, 3 * case["rows"]).reshape(case["rows"], 3) + case["shift"]
    return {"x": x, "flag": case["flag"], "n": case["n"]}


CASES = st.fixed_dictionaries(
    {k: st.sampled_from(v) for k, v in FLAGS.items()} | {"shift": st.sampled_from([-1.0, 1.0])}
)
SINGLE = {"flag": False, "n": 0, "rows": 1, "shift": -1.0}


@settings(max_examples=25, deadline=None)
@given(
    words=st.lists(st.sampled_from(list(STATEMENTS)), min_size=1, max_size=6),
    traced=CASES,
    runs=st.lists(CASES, min_size=2, max_size=5),
    drawn=st.integers(0, 10**6),
)
@example(["first call", "one"], SINGLE, [SINGLE, SINGLE], 0)
@torch.no_grad()
def test_a_format_stays_on_its_call_or_the_run_is_refused(words, traced, runs, drawn):
    told = Told()
    model, reference = built(words), built(words, told)
    graph = trace(model, inputs(traced))
    told_twice = built(words, told)
    for _ in range(2):  # a graph is of what later calls do, where the first one differs
        told.begin()
        told_twice(**inputs(traced))
    calls = [node for node in graph if node.kind != "call_module" and node.op in ("add", "mul", "relu")]
    assert len(calls) == len(told.log)
    if not calls:
        return
    i = drawn % len(calls)
    told.chosen, site = told.log[i], calls[i].site
    formats = {site: {"data_in": {"width": COARSE.width, "frac_width": COARSE.frac_width}}}
    quantised = quantize(graph, QuantizeSettings("name", formats))[0].model
    for case in [traced, *runs]:
        told.begin()
        expected = reference(**inputs(case))
        if told.chosen in told.log:
            assert torch.equal(quantised(**inputs(case)), expected)
        else:
            with pytest.raises(SiteNotReached, match=f"'{site}'"):
                quantised(**inputs(case))


@torch.no_grad()
def test_a_sum_of_a_transformer_keeps_its_format_with_and_without_padding():
    config = transformers.OPTConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, ffn_dim=32, num_attention_heads=2, word_embed_proj_dim=16
    )
    model, ids = transformers.OPTModel(config).eval(), torch.arange(3, 15).reshape(2, 6)
    whole, padded = torch.ones_like(ids), torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    graph = trace(model, {"input_ids": ids, "attention_mask": whole})
    assert places_called(model, {"input_ids": ids, "attention_mask": padded}) != places_called(
        model, {"input_ids": ids}
    )
    first = next(n.site for n in graph if n.op == "add" and n.owner == "decoder")  # of embeddings and positions
    quantised = quantize(graph, QuantizeSettings("name", {first: {"data_in": {"width": 2, "frac_width": 1}}}))[0].model
    grid = Integer(2, 1).quantize
    for mask in (whole, padded):
        model.decoder.embed_tokens.register_forward_hook(lambda m, a, out: grid(out))
        model.decoder.embed_positions.register_forward_hook(lambda m, a, out: grid(out))
        expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.equal(quantised(input_ids=ids, attention_mask=mask).last_hidden_state, expected)
