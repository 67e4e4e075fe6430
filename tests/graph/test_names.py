"""Whatever modules are called, a key means one operation."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from paretobit.graph import trace
from paretobit.passes.layers.choice import meant
from paretobit.passes.layers.quantizable import unsupported
from paretobit.passes.layers.selection import candidates, path_of, select
from paretobit.passes.transform import QuantizeSettings, quantize

NAMES = st.sampled_from(
    ["a", "b", "a_b", "a_1", "a_b_1", "mul", "mul_1", "mul_0", "x", "b_mul", "a_mul_1", "relu", "output"]
)
TREES = st.recursive(st.none(), lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3), max_leaves=6)


class Tree(nn.Module):
    """Calls its children, some twice, and between them functions of its own."""

    def __init__(self, tree):
        super().__init__()
        self.order = list(tree)
        for name, inner in tree.items():
            self.add_module(name, nn.ReLU() if inner is None else Tree(inner))

    def forward(self, x):
        for name in self.order:
            x = self._modules[name](x) * 0.5
        return torch.relu(self._modules[self.order[0]](x) * x)


@settings(max_examples=40, deadline=None)
@given(tree=st.dictionaries(NAMES, TREES, min_size=1, max_size=3))
def test_a_name_or_path_means_one_operation(tree):
    graph = trace(Tree(tree), torch.ones(2, 3))
    assert len({node.name for node in graph}) == len(graph.nodes)
    nodes = candidates(graph, functions=True)
    for node in nodes:
        for key in (node.name, path_of(node)):
            assert select(graph, "name", key, functions=True) == (node,)
            assert meant(graph, key, "skip") == (node,)
    assert not unsupported(graph)


@settings(max_examples=15, deadline=None)
@given(tree=st.dictionaries(NAMES, TREES, min_size=1, max_size=3), drawn=st.integers(0, 1000))
@torch.no_grad()
def test_one_name_sets_one_format(tree, drawn):
    model, x = Tree(tree), torch.linspace(-1, 1, 6).reshape(2, 3)
    graph = trace(model, x)
    nodes = candidates(graph, functions=True)
    node = nodes[drawn % len(nodes)]
    entry = {"data_in": {"width": 4, "frac_width": 2}}
    quantised, info = quantize(graph, QuantizeSettings("name", {node.name: entry}))
    assert list(info["assignment"]) == [path_of(node)]
    again = trace(quantised.model, x)
    assert [(n.name, n.site, n.place) for n in again] == [(n.name, n.site, n.place) for n in graph]
    quantised.model(x)
