"""One thing is changed and nothing else: the bits of whole runs, of which only what follows is computed."""

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.formats import Integer
from paretobit.nn import TensorCache, instrument_at
from paretobit.passes.layers.quantizable import function_name
from paretobit.strategies.insight.alone import Change, Runs, watching

COARSE = Integer(4, 2)


def chain(depth=5, width=64):
    torch.manual_seed(0)
    layers = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.ELU(inplace=True))]
    model = nn.Sequential(*layers).eval()
    graph = pb.trace(model, torch.zeros(1, width))
    linears = [instrument_at(model, str(2 * i), TensorCache(), function_name) for i in range(depth)]
    return graph, model, linears


def counted(layers, monkeypatch):
    """How often each layer computed something."""
    counts = [0] * len(layers)
    inner = type(layers[0]).forward

    def forward(self, input):
        counts[layers.index(self)] += 1
        return inner(self, input)

    monkeypatch.setattr(type(layers[0]), "forward", forward)
    return counts


@torch.no_grad()
def test_a_run_has_the_bits_of_a_whole_one_whatever_was_run_before():
    graph, model, linears = chain()
    changes = [Change(layer, {slot: COARSE}) for layer in linears for slot in ("weight", "data_in")]
    run = Runs(graph, model)
    for batch in (torch.randn(40, 64), torch.randn(8, 64), torch.randn(1200, 64)):
        given = batch.clone()
        for change in changes * 2:
            plain = model(batch.clone())
            assert torch.equal(run(batch), plain)
            with change.applied():
                assert torch.equal(run(batch), model(batch.clone()))
                assert not torch.equal(run(batch), plain)
        assert torch.equal(batch, given)


@torch.no_grad()
def test_layers_before_a_change_are_not_computed_again(monkeypatch):
    graph, model, linears = chain(width=256)
    batch = torch.randn(256, 256)
    run = Runs(graph, model)
    for layer in linears * 3:  # which results are worth keeping is learned
        with Change(layer, {"weight": COARSE}).applied():
            run(batch)
    counts = counted(linears, monkeypatch)
    for width in (5, 6, 7):
        with Change(linears[-1], {"weight": Integer(width, 2)}).applied():
            run(batch)
    assert counts == [0, 0, 0, 0, 3]


@torch.no_grad()
def test_a_model_that_cannot_be_run_by_operations_is_called():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else -self.layer(x)

    model = Branching().eval()
    graph = pb.trace(model, torch.zeros(1, 4))
    layer = instrument_at(model, "layer", TensorCache(), function_name)
    run, batch = Runs(graph, model), torch.randn(8, 4)
    plain = run(batch)
    assert torch.equal(plain, model(batch))
    with Change(layer, {"weight": COARSE}).applied():
        assert torch.equal(run(batch), model(batch))
        assert not torch.equal(run(batch), plain)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_call_is_shown_with_what_went_in_and_what_came_out(inplace):
    model = nn.Sequential(nn.Linear(3, 3), nn.ELU(inplace=inplace))
    model = nn.Sequential(*model, nn.ReLU(inplace=inplace)).eval()
    x = torch.randn(6, 3)
    seen = []
    with torch.no_grad(), watching([model[1]], seen.append):
        model(x)
    (call,) = seen
    with torch.no_grad():
        hidden = model[0](x)
        assert torch.equal(call.args[0], hidden)
        assert torch.equal(call.outputs[0], nn.functional.elu(hidden))
        assert torch.equal(call.now()[0], call.outputs[0])
    assert not model[1]._forward_hooks
    assert not model[1]._forward_pre_hooks
