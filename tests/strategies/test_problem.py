"""A problem resolves names against runners and turns metrics into losses and violations."""

import pickle
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from paretobit.errors import BadInput
from paretobit.spaces.knobs import Tree
from paretobit.strategies.problem import Problem
from paretobit.trials.vocabulary import Vocabulary, check_before_work
from paretobit.wanted.metric import Metric
from paretobit.wanted.objectives import Objective
from paretobit.wanted.wanted import Wanted

RUNNER = SimpleNamespace(
    metrics_from_running=False,
    metrics=(
        Metric("accuracy", "maximize", "share of rows"),
        Metric("total_bitops", "minimize", "bit operations", cheap=True, short="bitops"),
    ),
)
BASELINE = {"accuracy": 0.9, "total_bitops": 200.0}


def build(**wanted):
    return Problem.build(Tree(()), Wanted.of(**wanted), [RUNNER], BASELINE)


def test_short_names_become_full_ones():
    problem = build(maximize="accuracy", minimize="bitops", subject_to="bitops <= baseline / 2")
    assert [o.metrics for o in problem.objectives] == [("accuracy",), ("total_bitops",)]
    assert problem.constraints[0].metric == "total_bitops"
    assert problem.question("min bitops s.t. accuracy >= 0.5").objective.metrics == ("total_bitops",)


def test_one_metric_under_two_names_is_an_objective_twice():
    with pytest.raises(BadInput, match="twice"):
        build(minimize=["bitops", "total_bitops"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acuracy", "unknown metric.*did you mean 'accuracy'"),
        ("model_size", "no runner in use provides this metric: add 'model_size'"),
        ("size", "no runner in use provides this metric: add 'model_size'"),
        ("latency", "no runner in use provides this metric: add 'latency'"),
        ("memory_density", "no runner in use provides this metric: add 'average_bitwidth'"),
        ("", "unknown metric"),
    ],
)
@pytest.mark.parametrize("place", ["maximize", "minimize", "subject_to"])
def test_a_metric_that_no_runner_provides_is_refused(name, message, place):
    if place == "subject_to" and not name:
        message, wanted = "not a constraint", {"maximize": "accuracy", "subject_to": " >= 1"}
    elif place == "subject_to":
        wanted = {"maximize": "accuracy", "subject_to": f"{name} >= 1"}
    else:
        wanted = {place: name}
    with pytest.raises(BadInput, match=message):
        check_before_work(Wanted.of(**wanted), [RUNNER])


def test_two_runners_of_one_metric_are_refused():
    with pytest.raises(BadInput, match=r"two runners provide the same metric.*accuracy"):
        Vocabulary([RUNNER, RUNNER])


def test_losses_are_known_once_all_their_metrics_are():
    problem = build(maximize="accuracy", minimize="bitops")
    assert problem.judge({"accuracy": 0.8, "total_bitops": 50.0}).losses == (-0.8, 50.0)
    assert problem.judge({"total_bitops": 50.0}).losses is None
    assert problem.judge({}).losses is None


def test_violations_add_up_relative_to_their_bounds():
    problem = build(maximize="accuracy", subject_to=["accuracy >= baseline - 0.1", "bitops <= 100"])
    assert problem.violation({"accuracy": 0.8, "total_bitops": 100.0}) == 0
    assert problem.violation({"accuracy": 0.6, "total_bitops": 100.0}) == pytest.approx(0.25)
    assert problem.violation({"accuracy": 0.6, "total_bitops": 150.0}) == pytest.approx(0.75)
    assert problem.violation({"total_bitops": 150.0}) == pytest.approx(0.5)
    assert problem.violation({}) == 0


def test_doing_well_on_one_constraint_does_not_pay_for_another():
    problem = build(maximize="accuracy", subject_to=["accuracy >= 0.5", "bitops <= 100"])
    assert problem.violation({"accuracy": 1.0, "total_bitops": 101.0}) == pytest.approx(0.01)


def test_a_constraint_relative_to_a_baseline_that_lacks_the_metric_is_refused():
    wanted = Wanted(
        (Objective.of("accuracy", "maximize"),), Wanted.of("accuracy", (), "bitops <= baseline").constraints
    )
    with pytest.raises(BadInput, match="baseline has no such metric"):
        Problem.build(Tree(()), wanted, [RUNNER], {"accuracy": 1.0})


def test_a_problem_travels_to_workers_without_what_it_knows_of_the_model():
    knows = threading.Lock()  # cannot be pickled, as an open study cannot
    problem = replace(build(maximize="accuracy", subject_to="bitops <= 100"), insight=knows, runners=())
    problem = replace(problem, vocabulary=Vocabulary([]))
    there = pickle.loads(pickle.dumps(problem))
    assert there.insight is None
    assert there.violation({"total_bitops": 150.0}) == problem.violation({"total_bitops": 150.0}) == 0.5
    assert problem.insight is knows
