"""fx and a recorded run call an operation by the same name: a format lands on the same call in both."""

import pytest
import torch
from torch import nn

from paretobit.formats import Integer
from paretobit.graph import trace
from paretobit.passes.transform import QuantizeSettings, quantize

GRID = Integer(16, 3)


class Arithmetic(nn.Module):
    """Every way to write an operation: of either side, in place, as a method."""

    def forward(self, x):
        y = 2 - x
        x = x * 1.0
        x += y
        z = x - y
        z /= 2
        z = z / y + 3 / (z + 9)
        z.add_(x)
        z *= x
        z -= 1
        return 1 + z


class Choosy(nn.Module):
    """What fx cannot trace."""

    def __init__(self):
        super().__init__()
        self.inner = Arithmetic()

    def forward(self, x):
        return self.inner(x) if x.sum() > 0 else x


def by_hand(x):
    """`Arithmetic` with every operand on the grid."""
    q = GRID.quantize
    y = 2 - q(x)
    x = q(x) * 1.0
    x = q(x) + q(y)
    z = q(x) - q(y)
    z = q(z) / 2
    z = q(q(z) / q(y)) + q(3 / q(q(z) + 9))
    z = q(z) + q(x)
    z = q(z) * q(x)
    z = q(z) - 1
    return 1 + q(z)


@pytest.mark.parametrize(("model", "method"), [(Arithmetic(), "fx"), (Choosy(), "run")])
def test_every_spelling_of_an_operation_is_quantised(model, method):
    x = torch.rand(5) + 0.5
    graph = trace(model, x)
    assert graph.method == method
    ops = {node.op for node in graph if node.site and node.op not in ("sum", "gt")}
    quantised, _ = quantize(graph, QuantizeSettings("type", {op: {"data_in": GRID} for op in ops}))
    assert torch.allclose(quantised.model(x.clone()), by_hand(x))


@pytest.mark.parametrize("model", [Arithmetic(), Choosy()], ids=["fx", "run"])
def test_a_quantised_model_has_the_graph_of_the_float_one(model):
    x = torch.rand(5) + 0.5
    graph = trace(model, x)
    ops = {node.op for node in graph if node.site and node.op not in ("sum", "gt")}
    quantised, _ = quantize(graph, QuantizeSettings("type", {op: {"data_in": GRID} for op in ops}))
    again = trace(quantised.model, x)
    assert [(n.kind, n.op, n.site) for n in again] == [(n.kind, n.op, n.site) for n in graph]
