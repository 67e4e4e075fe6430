"""Objectives, constraints and questions say what they mean, and nothing else is taken for one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretobit.errors import BadInput
from paretobit.wanted.objectives import Constraint, Objective, Question
from paretobit.wanted.wanted import Wanted

BASELINE = {"accuracy": 0.9, "size": 1000.0}


@pytest.mark.parametrize(
    ("text", "metric", "bound"),
    [
        ("accuracy >= 0.5", "accuracy", 0.5),
        ("accuracy>=.5", "accuracy", 0.5),
        ("  accuracy   >=   5e-1  ", "accuracy", 0.5),
        ("size <= 1.5E+3", "size", 1500.0),
        ("size > -3", "size", -3.0),
        ("accuracy >= baseline", "accuracy", 0.9),
        ("accuracy >= baseline - 0.01", "accuracy", 0.9 - 0.01),
        ("accuracy>=baseline-1e-2", "accuracy", 0.9 - 0.01),
        ("accuracy <= baseline + 0.05", "accuracy", 0.9 + 0.05),
        ("size < baseline * 0.25", "size", 250.0),
        ("size < baseline/4", "size", 250.0),
    ],
)
def test_a_constraint_is_read_with_its_bound(text, metric, bound):
    constraint = Constraint.parse(text)
    assert constraint.metric == metric
    assert constraint.bound(BASELINE) == bound


@pytest.mark.parametrize(
    "text",
    [
        "",
        "accuracy",
        "accuracy >=",
        ">= 0.5",
        "accuracy => 0.5",
        "accuracy == 0.5",
        "accuracy >= 0.5 0.6",
        "accuracy >= half",
        "accuracy >= baseline 0.01",
        "accuracy >= baseline_x",
        "accuracy >= 0.01 - baseline",
        "accuracy >= baseline ^ 2",
        "0.5 <= accuracy",
        "accuracy >= 0.5; drop",
        "a b >= 1",
        "accuracy >= nan",
    ],
)
def test_nonsense_is_not_a_constraint(text):
    with pytest.raises(BadInput, match="not a constraint"):
        Constraint.parse(text)


def test_dividing_the_baseline_by_zero_is_refused():
    with pytest.raises(BadInput, match="division by zero"):
        Constraint.parse("size < baseline / 0")


def test_a_baseline_without_the_metric_is_refused_and_says_what_it_has():
    with pytest.raises(BadInput, match="did you mean 'accuracy'"):
        Constraint.parse("accuracyy >= baseline").bound(BASELINE)


@pytest.mark.parametrize(
    ("relation", "below", "at", "above"),
    [(">=", False, True, True), (">", False, False, True), ("<=", True, True, False), ("<", True, False, False)],
)
@pytest.mark.parametrize("reference", [0.95, 0.91, 1 / 3, 1000.5])
def test_a_bound_is_exact_for_the_number_it_was_meant_as(relation, below, at, above, reference):
    constraint = Constraint.parse(f"accuracy {relation} baseline - 0.01")
    baseline = {"accuracy": reference}
    for value in (reference - 0.01, round(reference - 0.01, 12)):  # however the last digit was rounded
        assert constraint.holds({"accuracy": value}, baseline) is at
        assert constraint.holds({"accuracy": math.nextafter(value, math.inf)}, baseline) is at
        assert constraint.holds({"accuracy": math.nextafter(value, -math.inf)}, baseline) is at
    assert constraint.holds({"accuracy": reference - 0.01 - 1e-6}, baseline) is below
    assert constraint.holds({"accuracy": reference - 0.01 + 1e-6}, baseline) is above


def test_one_row_of_ten_thousand_decides_at_the_bound():
    constraint = Constraint.parse("accuracy >= baseline - 0.01")
    baseline = {"accuracy": 9512 / 10000}
    assert constraint.holds({"accuracy": 9412 / 10000}, baseline)
    assert not constraint.holds({"accuracy": 9411 / 10000}, baseline)


@given(st.floats(-100, 100), st.floats(-100, 100))
def test_a_violation_is_the_distance_beyond_the_bound(value, bound):
    for relation, excess in ((">=", bound - value), ("<=", value - bound)):
        violation = Constraint("m", relation, bound).violation({"m": value}, {})
        assert violation == pytest.approx(excess, abs=2e-10)
        assert (violation <= 0) == Constraint("m", relation, bound).holds({"m": value}, {})


@given(
    st.sampled_from([">=", "<=", ">", "<"]),
    st.sampled_from(["", "+", "-", "*"]),
    st.floats(-1e12, 1e12, allow_subnormal=False),
)
def test_a_constraint_written_out_reads_back_as_itself(relation, relative, number):
    constraint = Constraint("size", relation, number, relative)
    again = Constraint.parse(str(constraint))
    assert (again.metric, again.relation) == ("size", relation)
    assert again.bound(BASELINE) == constraint.bound(BASELINE)


def test_a_constraint_written_out_keeps_every_digit():
    assert str(Constraint.parse("size <= 1234567")) == "size <= 1234567.0"
    assert str(Constraint.parse("accuracy >= baseline - 0.01")) == "accuracy >= baseline - 0.01"
    assert str(Constraint.parse("accuracy >= baseline")) == "accuracy >= baseline"


@pytest.mark.parametrize(
    ("text", "direction", "metric", "constraints"),
    [
        ("min size", "minimize", "size", 0),
        ("  MAX accuracy ", "maximize", "accuracy", 0),
        ("minimize size", "minimize", "size", 0),
        ("maximise accuracy", "maximize", "accuracy", 0),
        ("min size s.t. accuracy >= baseline - 0.01", "minimize", "size", 1),
        ("min size st accuracy >= 0.5", "minimize", "size", 1),
        ("min size subject to accuracy >= 0.5", "minimize", "size", 1),
        ("min size where accuracy >= 0.5 and size <= 4096 ", "minimize", "size", 2),
        ("min size s.t. accuracy >= 0.5, size <= 4096 and loss < 2", "minimize", "size", 3),
    ],
)
def test_a_question_is_read(text, direction, metric, constraints):
    question = Question.parse(text)
    assert question.objective == Objective.of(metric, direction)
    assert len(question.constraints) == constraints


@pytest.mark.parametrize(
    "text",
    [
        "",
        "size",
        "min",
        "least size",
        "min size accuracy >= 0.5",
        "min size s.t.",
        "min size s.t. ",
        "min size s.t. accuracy >= 0.5,",
        "min size s.t. accuracy >= 0.5 or size < 3",
        "min size s.t. and",
        "min sizest accuracy >= 0.5",
        "min size, accuracy",
        "minsize",
    ],
)
def test_nonsense_is_not_a_question(text):
    with pytest.raises(BadInput):
        Question.parse(text)


def test_loss_is_what_a_minimiser_minimises():
    metrics = {"accuracy": 0.8, "bitops": 2e9}
    assert Objective.of("accuracy", "maximize").loss(metrics) == -0.8
    assert Objective.of("bitops", "minimize").loss(metrics) == 2e9
    summed = Objective((("accuracy", 1.0), ("bitops", -5e-10)), "maximize")
    assert summed.scaled(metrics) == {"accuracy": 0.8, "bitops": -1.0}
    assert summed.loss(metrics) == pytest.approx(0.2)


def test_a_negative_scale_to_maximise_minimises_the_metric():
    objective = Objective.of("bitops", "maximize", -5e-10)
    cheap, dear = {"bitops": 1e6}, {"bitops": 1e9}
    assert objective.loss(cheap) < objective.loss(dear)


def test_full_names_replace_short_ones_everywhere():
    question = Question.parse("min bitops s.t. bitops <= 3").resolved({"bitops": "total_bitops"}.__getitem__)
    assert question.objective.metrics == ("total_bitops",)
    assert question.constraints[0].metric == "total_bitops"


def test_wanting_nothing_or_one_metric_twice_is_refused():
    with pytest.raises(BadInput, match="no objective"):
        Wanted.of()
    with pytest.raises(BadInput, match="twice"):
        Wanted.of(maximize=["accuracy", "accuracy"])
    with pytest.raises(BadInput, match="twice"):
        Wanted.of(maximize="accuracy", minimize="accuracy")
