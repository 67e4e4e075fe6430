"""Functions are computed with formats where they are called, and nowhere else."""

import copy
import pickle

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.formats import FULL, Integer
from paretobit.graph import trace
from paretobit.nn import SiteNotReached, TensorCache, add_site, instrument_at, layer_at, sites, why_no_site
from paretobit.passes.layers.quantizable import function_name

ROUND = Integer(8, 0)
travels = pytest.mark.parametrize("travel", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])


def quantise(model, *places, number_format=ROUND):
    """Set a format on the data of functions at these sites."""
    for site in places:
        add_site(model, site, TensorCache(), function_name).set_slots({"data_in": number_format})
    return model


class Inner(nn.Module):
    """Adds a half, and by a function of its own doubles."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.linear.weight)

    def forward(self, x):
        return self.linear(x) + x


class Outer(nn.Module):
    """Calls its child twice, and adds before, between and after."""

    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.fails = False
        self.more = False

    def forward(self, x):
        x = x + 0.25
        x = self.inner(x)
        x = x + 0.25
        x = self.inner(x)
        if self.fails:
            raise ValueError("on purpose")
        x = torch.relu(x)
        x = x + 0.25
        return x - 0.5 if self.more else x


X = torch.tensor([[0.5], [1.25]])


def by_hand(x, rounded=()):
    """What `Outer` computes with the operands of these sites rounded."""

    def r(site, value):
        return value.round() if site in rounded else value

    x = r("add", x) + 0.25
    x = r("inner.add", x) + r("inner.add", x)
    x = r("add_1", x) + 0.25
    x = r("inner.add_1", x) + r("inner.add_1", x)
    x = r("relu", x).relu()
    return r("add_2", x) + 0.25


PLACES = ("add", "add_1", "add_2", "inner.add", "inner.add_1", "relu")


@pytest.mark.parametrize("rounded", [(site,) for site in PLACES] + [PLACES, ("add_1", "inner.add")])
def test_each_call_has_formats_of_its_own_however_often_its_module_runs(rounded):
    model = quantise(Outer(), *rounded)
    for _ in range(2):
        assert torch.equal(model(X), by_hand(X, rounded))
    for site in rounded:
        layer_at(model, site).set_slots({})
    assert torch.equal(model(X), by_hand(X))


@pytest.mark.parametrize("method", ["fx", "run"])
def test_calls_are_counted_as_the_graph_counts_them(method):
    model = Outer()
    if method == "run":  # what fx cannot trace
        plain = model.forward
        model.forward = lambda x: plain(x) if x.sum() > 0 else x
    graph = trace(model, X)
    assert graph.method == method or method == "run"
    assert {node.site for node in graph if node.op in ("add", "relu")} == set(PLACES)


def test_a_call_of_a_child_is_not_the_parents():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def forward(self, x):
            return self.inner(x) + 0.25

    assert torch.equal(quantise(Twice(), "add")(X), (2 * X).round() + 0.25)
    assert torch.equal(quantise(Twice(), "inner.add")(X), 2 * X.round() + 0.25)


def test_layers_are_no_callers_of_functions():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)
            self.plain = nn.Parameter(torch.full((1, 1), 0.75))

        def forward(self, x):
            return F.linear(self.layer(x), self.plain)

    model = Both()
    expected = F.linear(model.layer(X).round(), model.plain)
    assert torch.equal(quantise(model, "linear")(X), expected)


def test_sites_are_modules_of_their_caller_and_leave_no_trace_in_the_state():
    model = Outer()
    state = list(model.state_dict())
    quantise(model, "inner.add_1")
    assert model.get_submodule("inner.add_1") is layer_at(model, "inner.add_1")
    assert list(model.state_dict()) == state
    assert repr(model.get_submodule("inner.add_1")) == "AddInteger()"
    assert type(model).__name__ == "Outer"
    assert isinstance(model.inner, Inner)
    assert list(model.parameters()) == list(model.inner.linear.parameters())
    again = instrument_at(model, "inner.add_1", TensorCache(), function_name)
    assert again is layer_at(model, "inner.add_1")
    assert layer_at(model, "inner.linear") is layer_at(model, "inner.nothing") is None


@travels
def test_a_copy_has_sites_of_its_own(travel):
    model = quantise(Outer(), "add_1", "inner.add")
    arrived = travel(model)
    expected = by_hand(X, ("add_1", "inner.add"))
    assert torch.equal(arrived(X), expected)
    layer_at(arrived, "add_1").set_slots({})
    assert torch.equal(arrived(X), by_hand(X, ("inner.add",)))
    assert torch.equal(model(X), expected)
    assert type(arrived).__name__ == "Outer"


@travels
def test_a_part_of_a_model_keeps_its_sites(travel):
    model = quantise(Outer(), "add_1", "inner.add")
    for inner in (model.inner, travel(model.inner)):
        assert torch.equal(inner(X), 2 * X.round())
    inner = quantise(travel(model.inner), "add")
    assert torch.equal(inner(X), 2 * X.round())


def test_nothing_is_intercepted_while_every_site_is_at_full_precision(monkeypatch):
    model = quantise(Outer(), *PLACES, number_format=FULL)
    monkeypatch.setattr(sites, "_Interception", None)
    assert torch.equal(model(X), by_hand(X))


def everything_is_as_before(model):
    hooks = [hook for m in model.modules() for hook in (*m._forward_hooks, *m._forward_pre_hooks)]
    return hooks == [] and not torch.overrides._get_current_function_mode_stack()


def test_a_failure_leaves_nothing_behind():
    model = quantise(Outer(), "add_1")
    model.fails = True
    with pytest.raises(ValueError, match="on purpose"):
        model(X)
    assert everything_is_as_before(model)
    model.fails = False
    assert torch.equal(model(X), by_hand(X, ("add_1",)))
    assert everything_is_as_before(model)


def test_an_interrupt_leaves_nothing_behind():
    model = quantise(Outer(), "add_1")

    def interrupt(*_):
        raise KeyboardInterrupt

    handle = model.inner.linear.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(X)
    handle.remove()
    assert everything_is_as_before(model)
    assert torch.equal(model(X), by_hand(X, ("add_1",)))


def test_a_failure_that_the_model_catches_does_not_move_the_count():
    class Catches(nn.Module):
        def __init__(self):
            super().__init__()
            self.outer = Outer()
            self.outer.fails = True

        def forward(self, x):
            try:
                x = self.outer(x)
            except ValueError:
                x = x * 2
            return x + 0.25

    assert torch.equal(quantise(Catches(), "add")(X), (2 * X).round() + 0.25)


def test_a_call_that_never_comes_is_an_error_that_names_it():
    model = quantise(Outer(), "sub")
    with pytest.raises(SiteNotReached, match="'sub' carries formats and was not called in this run"):
        model(X)
    model.more = True
    model(X)
    quantise(model, "inner.add_2")
    with pytest.raises(SiteNotReached, match=r"'inner\.add_2'"):
        model(X)
    layer_at(model, "inner.add_2").set_slots({})
    model(X)


@pytest.mark.parametrize(
    ("build", "site", "message"),
    [
        (Outer, "inner.linear", "another attribute 'linear'"),
        (Outer, "forward", "another attribute 'forward'"),
        (lambda: nn.Sequential(nn.ReLU()), "add", "a Sequential, whose modules have a meaning"),
        (lambda: fx.symbolic_trace(Inner()), "add", "copies itself in its own way"),
    ],
)
def test_a_caller_that_has_no_room_for_a_site_is_refused(build, site, message):
    model = build()
    assert message in why_no_site(model, site)
    with pytest.raises(BadInput):
        add_site(model, site, TensorCache(), function_name)


def test_a_caller_or_function_that_does_not_exist_is_refused():
    with pytest.raises(BadInput, match=r"no such layer: found 'iner\.add'.*did you mean 'inner'"):
        add_site(Outer(), "iner.add", TensorCache(), function_name)
    with pytest.raises(BadInput, match=r"no such layer: found 'inner\.addd'"):
        add_site(Outer(), "inner.addd", TensorCache(), function_name)


def test_while_sites_are_paused_a_model_is_traced_with_its_functions():
    model = quantise(Outer(), *PLACES)
    model._site_calls.paused = True
    again, before = trace(model, X), trace(Outer(), X)
    assert [(n.kind, n.op, n.site) for n in again] == [(n.kind, n.op, n.site) for n in before]
    assert torch.equal(model(X), by_hand(X))
    model._site_calls.paused = False
    assert torch.equal(model(X), by_hand(X, PLACES))


def test_fx_sees_the_functions_of_a_part_as_they_are():
    traced = fx.symbolic_trace(quantise(Outer(), *PLACES))
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["inner.linear"] * 2


def test_layers_and_functions_of_one_model_are_quantised_side_by_side():
    model = quantise(Outer(), "add")
    instrument_at(model, "inner.linear", TensorCache(), function_name).set_slots({"data_in": ROUND})
    x = X.round() + 0.25
    x = x.round() + x + 0.25
    assert torch.equal(model(X), (x.round() + x).relu() + 0.25)


def test_training_through_functions_moves_the_weights():
    torch.manual_seed(0)
    model = quantise(Outer(), *PLACES, number_format=Integer(16, 8)).train()
    before = model.inner.linear.weight.item()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(X) - 3).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert model.inner.linear.weight.item() != before
    assert not model.eval().get_submodule("add").training


def test_a_module_used_under_two_names_has_one_site():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = Inner()
            self.second = self.first

        def forward(self, x):
            return self.second(self.first(x))

    model = Shared()
    assert {n.site for n in trace(model, X) if n.op == "add"} == {"first.add", "first.add_1"}
    quantise(model, "first.add_1")
    assert torch.equal(model(X), 2 * (2 * X).round())
