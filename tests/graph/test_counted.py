"""Where no rule counts a call, torch's own counter is asked around it; what it cannot tell stays uncounted."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from paretobit.graph import counted as module
from paretobit.graph import trace
from paretobit.graph.counted import needs_counter
from paretobit.passes.analysis import cost


class Call(nn.Module):
    def __init__(self, function, *shapes):
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(torch.randn(shape) for shape in shapes)

    def forward(self, x):
        return self.function(x, *self.weights)


def attention(x, inner, outer):
    x = x.transpose(0, 1)
    given = (inner, None, None, None, False, 0.0, outer, None)
    return F.multi_head_attention_forward(x, x, x, 8, 2, *given, training=False)[0]


def lstm(x, inputs, states):
    start = torch.zeros(1, x.shape[0], 5)
    return torch.lstm(x, (start, start), [inputs, states], False, 1, 0.0, False, False, True)[0]


def experts(x, weights):
    rows = x.flatten(0, 1)
    ends = torch.tensor([len(rows) // 3, len(rows)], dtype=torch.int32)
    return F.grouped_mm(rows, weights, offs=ends)


X = torch.randn(4, 6, 8)
CASES = {
    "einsum of three": (
        lambda x, u, v: torch.einsum("blc,cr,ro->blo", x, u, v),
        [(8, 3), (3, 5)],
        6 * 8 * 3 + 6 * 3 * 5,
    ),
    "a chain": (lambda x, u, v: torch.linalg.multi_dot([x[:, 0], u, v]), [(8, 3), (3, 5)], 8 * 3 + 3 * 5),
    "attention": (attention, [(24, 8), (8, 8)], 6 * 8 * 24 + 2 * (6 * 6 * 8) + 6 * 8 * 8),
    "lstm": (lstm, [(20, 8), (20, 5)], 6 * 20 * (8 + 5)),
    "experts": (experts, [(2, 8, 4)], 6 * 8 * 4),  # every token meets one of the two
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("name", CASES)
def test_what_no_rule_counts_is_counted_by_torch(name, rows):
    function, shapes, macs = CASES[name]
    report = cost(trace(Call(function, *shapes), X[:rows]))
    assert report.total("macs") == macs
    assert report.uncounted == ()


def test_the_graph_of_a_run_counts_likewise():
    def branching(x, u, v):
        return torch.einsum("blc,cr,ro->blo", x if x.sum() > 0 else -x, u, v)

    graph = trace(Call(branching, (8, 3), (3, 5)), X)
    assert (graph.method, cost(graph).total("macs")) == ("run", 6 * 8 * 3 + 6 * 3 * 5)


def test_what_torch_cannot_count_stays_uncounted():
    report = cost(trace(Call(lambda x: torch.cdist(x, x)), X))
    assert (report.uncounted, report.total("macs")) == (("cdist",), 0)


def test_only_the_calls_that_need_it_are_watched(monkeypatch):
    watched = []
    monkeypatch.setattr(module, "FlopCounterMode", lambda **_: watched.append(1) or module.torch.no_grad())

    def plain(x, w):
        return ((x @ w).relu().view(-1, 8) + 1).softmax(-1)

    trace(Call(plain, (8, 8)), X)
    assert watched == []
    assert not any(map(needs_counter, ("linear", "matmul", "add", "view", "softmax", "size", "conv2d")))
