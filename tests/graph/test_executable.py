"""Steps say all that a model does, and whose result each of them takes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from paretobit.graph import trace
from paretobit.graph.executable import Result, filled, results_in, steps_of
from paretobit.graph.restore import undone


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.act = nn.Linear(4, 4), nn.ReLU(inplace=True)
        self.shift = nn.Parameter(torch.ones(4))

    def forward(self, x, scale=2.0):
        y = self.layer(x) + self.shift
        self.act(y)
        y = torch.cat([y, x], 1)[:, [0, 2, 4]]
        return F.softmax(y * scale, dim=-1)


def by_hand(model, steps, x):
    """Every step, one after the other, in plain Python."""
    results = []
    for step in steps:
        args = filled(step.args, Result, lambda result: results[result.step])
        kwargs = filled(step.kwargs, Result, lambda result: results[result.step])
        kind = step.node.kind
        if kind == "placeholder":
            results.append(x)
        elif kind == "get_attr":
            results.append(model.get_parameter(step.target))
        elif kind == "call_module":
            results.append(model.get_submodule(step.target)(*args, **kwargs))
        elif kind == "call_method":
            results.append(getattr(args[0], step.target)(*args[1:], **kwargs))
        else:
            results.append(args[0] if kind == "output" else step.target(*args, **kwargs))
    return results[-1]


def test_the_steps_one_after_the_other_are_the_model():
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(5, 4)
    steps = steps_of(trace(model, x[:1]), model, x[:1])
    assert steps is not None
    assert [step.node.op for step in steps if step.in_place] == ["relu"]
    assert torch.equal(by_hand(model, steps, x.clone()), model(x))


def test_who_reads_what_was_written_in_place_takes_the_result_of_the_writer():
    model, x = Net().eval(), torch.randn(5, 4)
    steps = steps_of(trace(model, x[:1]), model, x[:1])
    (writer,) = [i for i, step in enumerate(steps) if step.in_place]
    (cat,) = [step for step in steps if step.node.op == "cat"]
    assert results_in(cat.args)[0] == writer


@pytest.mark.parametrize("other", [nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU())])
def test_there_are_no_steps_for_a_model_of_other_operations_than_the_graph(other):
    x = torch.randn(1, 4)
    assert steps_of(trace(Net().eval(), x), other.eval(), x) is None


def test_there_are_no_steps_for_what_cannot_be_traced():
    class Asks(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    x = torch.randn(1, 4)
    assert steps_of(trace(Asks(), x), Asks(), x) is None


def test_what_a_run_leaves_behind_is_undone():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            self.calls += 1
            self.seen.add_(1)
            return x

    model = Counts()
    with undone(model):
        model(torch.ones(1))
    assert (model.calls, model.seen.item()) == (0, 0.0)
