"""A choice within budgets is the least harmful one there is, and its budgets hold to the last bit."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from paretobit.spaces.knobs import Config
from paretobit.strategies.insight.allocation import Allocation
from paretobit.strategies.insight.insight import Group, ScoreTable


def allocation_of(scores, cost_of, metrics):
    """Of scores by group, and metrics as functions of a choice."""
    groups = tuple(
        Group(f"g{g}", tuple(Config({f"k{g}": i}) for i in range(len(own))), tuple(map(float, own)))
        for g, own in enumerate(scores)
    )

    def costs(values):
        choice = tuple(values[f"k{g}"] for g in range(len(scores)))
        return {name: cost(choice) for name, cost in cost_of.items()}

    return Allocation(ScoreTable(groups, 0.0, {}), costs, metrics)


def added(parts, base=0.0):
    return lambda choice: base + sum(part[k] for part, k in zip(parts, choice, strict=True))


def inverse(cost):
    return lambda choice: 1e3 / cost(choice)


def best_by_hand(allocation, bounds, avoid=()):
    """The smallest harm over everything within bounds; infinity where there is nothing."""
    harms = [
        sum(allocation.scores[g][k] for g, k in enumerate(choice))
        for choice in itertools.product(*map(range, allocation.sizes))
        if choice not in avoid and all(low <= allocation.exact(choice)[m] <= high for m, (low, high) in bounds.items())
    ]
    return min(harms, default=math.inf)


HARM = st.one_of(st.floats(-1, 10), st.just(0.0), st.just(math.inf))
PART = st.one_of(st.integers(0, 1000).map(float), st.floats(1e-3, 1e6))


@st.composite
def instances(draw):
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    scores = [draw(st.lists(HARM, min_size=n, max_size=n)) for n in sizes]
    names = draw(st.sampled_from([["cost"], ["cost", "density"], ["cost", "other"], ["density"]]))
    metrics, costs, bounds = {}, {}, {}
    for name in names:
        parts = [draw(st.lists(PART, min_size=n, max_size=n)) for n in sizes]
        cost = added(parts, base=draw(st.sampled_from([1.0, 5e6])))
        costs[name] = inverse(cost) if name == "density" else cost
        metrics[name] = draw(st.sampled_from([0, -1 if name == "density" else 1]))
        all_values = [costs[name](c) for c in itertools.product(*map(range, sizes))]
        ends = sorted([draw(st.sampled_from(all_values)) for _ in range(2)])
        if metrics[name] == 1:
            ends[0] = -math.inf
        elif metrics[name] == -1:
            ends[1] = math.inf
        if draw(st.booleans()):
            bounds[name] = tuple(ends)
    return scores, costs, metrics, bounds


@settings(max_examples=150, deadline=None)
@given(instances(), st.data())
def test_it_is_the_least_harmful_of_all_within_the_bounds(instance, data):
    scores, costs, metrics, bounds = instance
    allocation = allocation_of(scores, costs, metrics)
    assert set(allocation.additive) == set(metrics)
    choice = allocation.within(bounds)
    least = best_by_hand(allocation, bounds)
    if math.isinf(least):
        assert choice is None
        return
    assert choice is not None
    assert all(low <= allocation.exact(choice)[m] <= high for m, (low, high) in bounds.items())
    slack = 1e-4 * abs(least) + 1e-6 * max(abs(s) for own in scores for s in own if math.isfinite(s))
    assert allocation.predicted(choice) <= least + slack
    if data.draw(st.booleans()):
        other = allocation.within(bounds, [choice])
        assert other != choice
        if other is not None:
            assert all(low <= allocation.exact(other)[m] <= high for m, (low, high) in bounds.items())
            assert allocation.predicted(other) >= allocation.predicted(choice) - slack


def test_choices_to_avoid_leave_the_next_best():
    scores, parts = [[3.0, 1.0, 0.0], [5.0, 2.0, 0.0]], [[1.0, 2.0, 4.0]] * 2
    allocation = allocation_of(scores, {"cost": added(parts)}, {"cost": 1})
    order, avoid = [], []
    while (choice := allocation.within({"cost": (-math.inf, 6.0)}, avoid)) is not None:
        order.append(allocation.predicted(choice))
        avoid.append(choice)
    every = itertools.product(range(3), range(3))
    fitting = [c for c in every if parts[0][c[0]] + parts[1][c[1]] <= 6.0]
    assert len(order) == len(fitting) == 8
    assert order == sorted(scores[0][a] + scores[1][b] for a, b in fitting)


def test_a_bound_that_a_choice_meets_exactly_is_met_and_one_below_it_is_not():
    generator = np.random.default_rng(1)
    parts = [np.sort(generator.random(6)) * 1e9 / 3 for _ in range(8)]
    scores = [-part / 1e9 for part in parts]  # what costs most harms least
    allocation = allocation_of(scores, {"cost": added(parts, 7e9)}, {"cost": 1})
    for _ in range(10):
        cost = allocation.exact(tuple(generator.integers(6, size=8)))["cost"]
        for budget in (cost, math.nextafter(cost, 0)):
            choice = allocation.within({"cost": (-math.inf, budget)})
            assert allocation.exact(choice)["cost"] <= budget


def test_nothing_within_a_budget_is_none():
    allocation = allocation_of([[0.0, 1.0]], {"cost": added([[2.0, 1.0]])}, {"cost": 1})
    assert allocation.within({"cost": (-math.inf, 0.999)}) is None
    assert allocation.within({"cost": (1.4, 1.6)}) is None
    assert allocation.within({"cost": (2.0, 1.0)}) is None
    assert allocation.within({}) == (0,)


def test_a_density_bounded_by_nothing_positive_is_none():
    sums = added([[2.0, 1.0], [2.0, 0.5]])
    allocation = allocation_of([[0.0, 1.0]] * 2, {"density": lambda c: 1 / sums(c)}, {"density": 0})
    assert allocation.additive["density"].reciprocal
    assert allocation.within({"density": (-math.inf, -1.0)}) is None
    assert allocation.within({"density": (-1.0, math.inf)}) == (0, 0)
    assert allocation.within({"density": (0.35, math.inf)}) == (0, 1)


def test_options_of_infinite_harm_are_never_taken():
    scores = [[math.inf, 4.0, 1.0], [0.0, math.inf]]
    allocation = allocation_of(scores, {"cost": added([[0.0, 1.0, 2.0], [5.0, 0.0]])}, {"cost": 1})
    assert allocation.within({}) == allocation.least_harmful() == (2, 0)
    assert allocation.within({"cost": (-math.inf, 6.0)}) == allocation.cheapest("cost") == (1, 0)
    assert allocation.within({"cost": (-math.inf, 5.0)}) is None


def test_a_group_without_any_finite_option_leaves_nothing():
    allocation = allocation_of([[math.inf] * 2, [0.0]], {"cost": added([[1.0, 2.0], [0.0]])}, {"cost": 1})
    assert allocation.within({}) is None


def test_without_groups_there_is_one_choice():
    allocation = allocation_of([], {"cost": lambda _: 7.0}, {"cost": 1})
    assert allocation.exact(()) == {"cost": 7.0}
    assert allocation.within({"cost": (-math.inf, 7.0)}) == allocation.least_harmful() == ()
    assert allocation.within({"cost": (-math.inf, 6.0)}) is None


@pytest.mark.parametrize("base", [0.0, 1e9])
def test_a_metric_that_does_not_add_up_is_recognised(base):
    parts = [[1.0, 5.0], [2.0, 3.0], [1.0, 4.0]]
    metrics = {
        "sum": added(parts, base),
        "density": lambda c: 32 / added(parts)(c),
        "largest": lambda c: base + max(part[k] for part, k in zip(parts, c, strict=True)),
        "product": lambda c: base + math.prod(part[k] for part, k in zip(parts, c, strict=True)),
    }
    allocation = allocation_of([[0.0, 0.0]] * 3, metrics, dict.fromkeys(metrics, 1))
    assert {name: cost.reciprocal for name, cost in allocation.additive.items()} == {"sum": False, "density": True}
    assert allocation.remaining == ("largest", "product")
    for choice in itertools.product(range(2), repeat=3):
        for name, cost in allocation.additive.items():
            assert cost.total(choice) == pytest.approx(metrics[name](choice), rel=1e-12)


def test_the_cheapest_is_the_best_in_the_wanted_direction():
    sums = added([[4.0, 2.0, 2.0], [8.0, 1.0, 1.0]], 1.0)
    costs = {"bits": sums, "density": lambda c: 32 / sums(c)}
    scores = [[0.0, 3.0, 2.0], [0.0, 1.0, 5.0]]
    allocation = allocation_of(scores, costs, {"bits": 1, "density": -1})
    assert allocation.cheapest("bits") == allocation.cheapest("density") == (2, 1)
    upward = allocation_of(scores, costs, {"bits": -1, "density": 1})
    assert upward.cheapest("bits") == upward.cheapest("density") == (0, 0)


def test_rescored_keeps_costs_and_what_is_excluded():
    scores = [[0.0, 1.0, math.inf], [0.0, 2.0]]
    allocation = allocation_of(scores, {"cost": added([[3.0, 2.0, 0.0], [1.0, 0.0]])}, {"cost": 1})
    other = allocation.rescored([np.array([5.0, 0.0, -9.0]), np.array([1.0, 0.0])])
    assert other.within({}) == (1, 1)
    assert other.scores[0][2] == math.inf
    assert allocation.within({}) == (0, 0)  # as it was
    assert other.additive is allocation.additive


def test_a_configuration_is_found_again_by_its_values():
    options = (
        Config({"a.name": "float"}),
        Config({"a.name": "integer", "a.width": 4}),
        Config({"a.name": "integer", "a.width": 8}),
    )
    table = ScoreTable((Group("a", options, (0.0, 1.0, 2.0)),), 0.0, {})
    allocation = Allocation(table, lambda values: {"cost": float(len(values))}, {"cost": 1})
    for k, option in enumerate(options):
        assert allocation.choice_of({"b.width": 4, **option}) == (k,)
        assert allocation.values((k,)) == dict(option)
    assert allocation.choice_of({"a.name": "integer", "a.width": 6}) == (-1,)
    assert allocation.choice_of({"a.name": "binary"}) == (-1,)


def test_100_groups_of_20_options_are_solved_close_to_the_linear_bound():
    generator = np.random.default_rng(0)
    groups, options = 100, 20
    scores = np.sort(generator.lognormal(0, 2, (groups, options)), axis=1)[:, ::-1]
    parts = np.sort(generator.lognormal(0, 1, (groups, options)), axis=1)
    allocation = allocation_of(scores.tolist(), {"cost": added(parts.tolist())}, {"cost": 1})
    for share in (0.2, 0.5, 0.8):
        budget = parts[:, 0].sum() * (1 - share) + parts[:, -1].sum() * share
        choice = allocation.within({"cost": (-math.inf, budget)})
        assert allocation.exact(choice)["cost"] <= budget
        one_each = np.kron(np.eye(groups), np.ones(options))
        linear = linprog(
            scores.ravel(), A_ub=parts.reshape(1, -1), b_ub=[budget], A_eq=one_each, b_eq=np.ones(groups), bounds=(0, 1)
        )
        assert allocation.predicted(choice) <= linear.fun * (1 + 2e-3)
        assert allocation.predicted(choice) >= linear.fun * (1 - 1e-9)


def test_two_budgets_hold_at_once_on_a_large_instance():
    generator = np.random.default_rng(2)
    scores, bits, memory = (generator.random((40, 16)) for _ in range(3))
    costs = {"bits": added(bits.tolist()), "density": lambda c: 40 / added(memory.tolist(), 1.0)(c)}
    allocation = allocation_of(scores.tolist(), costs, {"bits": 1, "density": -1})
    bounds = {"bits": (-math.inf, 6.0), "density": (4.0, math.inf)}
    choice = allocation.within(bounds)
    found = SimpleNamespace(**allocation.exact(choice))
    assert found.bits <= 6.0
    assert found.density >= 4.0
    assert allocation.within(bounds) == choice
