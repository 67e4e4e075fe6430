"""The forgiving factor is the formula of AutoQKeras, and survives JSON, settings and names."""

import json
import math

import pytest

from paretobit.document import Document, validate
from paretobit.errors import BadInput, MetricError
from paretobit.spaces.knobs import Tree
from paretobit.strategies.problem import Problem
from paretobit.trials.runners import BasicComputation, BasicEvaluation
from paretobit.trials.vocabulary import Vocabulary, check_before_work
from paretobit.wanted.objectives import Forgiving, Knee, Objective, Question, parse_question
from paretobit.wanted.wanted import Wanted
from paretobit.workflow.settings import ForgivingSettings, SearchSettings


@pytest.mark.parametrize("rate", [2.0, 4.0, 10.0])
@pytest.mark.parametrize("cost", [25.0, 100.0, 400.0])
def test_the_factor_is_one_plus_delta_times_the_logarithm_of_what_is_saved(rate, cost):
    forgiving = Forgiving("cost", 0.05, rate, 100.0, 0.5, 0.2)
    saved = math.log(0.5 * 100 / cost, rate)
    assert forgiving.factor({"cost": cost}) == pytest.approx(1 + (0.05 if saved >= 0 else 0.2) * saved)


def test_eight_percent_may_go_for_half_the_cost():
    objective = Objective((("accuracy", 1.0),), "maximize", Forgiving("bitops", 0.08, reference=1e6))
    dear = objective.value({"accuracy": 0.9, "bitops": 1e6})
    assert dear == 0.9
    assert objective.value({"accuracy": 0.9 / 1.08, "bitops": 5e5}) == pytest.approx(dear)
    assert objective.value({"accuracy": 0.9 / 1.16, "bitops": 2.5e5}) == pytest.approx(dear)
    assert objective.value({"accuracy": 0.9 / 0.92, "bitops": 2e6}) == pytest.approx(dear)
    assert objective.loss({"accuracy": 0.9, "bitops": 1e6}) == -0.9
    assert objective.metrics == ("accuracy", "bitops")


@pytest.mark.parametrize(
    ("text", "delta", "rate"),
    [
        ("accuracy forgiving 8% per halved bitops", 0.08, 2.0),
        ("accuracy  forgiving 0.08 per  halved bitops", 0.08, 2.0),
        ("accuracy forgiving 2.5 % per 1/10 bitops", 0.025, 10.0),
    ],
)
def test_it_is_said_in_words_and_printed_so(text, delta, rate):
    objective = Objective.parse(text, "maximize")
    assert objective == Objective((("accuracy", 1.0),), "maximize", Forgiving("bitops", delta, rate))
    assert Objective.parse(objective.label, "maximize") == objective
    question = parse_question(f"max {text} s.t. accuracy >= 0.5")
    assert isinstance(question, Question)
    assert (question.objective, len(question.constraints)) == (objective, 1)
    assert question.metrics == ("accuracy", "bitops", "accuracy")


@pytest.mark.parametrize(
    "text", ["accuracy forgiving 8%", "accuracy forgiving per halved bitops", "accuracy forgiving 8% per bitops", "a b"]
)
def test_nonsense_is_not_an_objective(text):
    with pytest.raises(BadInput, match="not an objective"):
        Wanted.of(maximize=text)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"delta": -0.1}, "delta"),
        ({"delta": math.nan}, "delta"),
        ({"delta_above": -1.0}, "delta_above"),
        ({"rate": 1.0}, "rate"),
        ({"reference": 0.0}, "reference"),
        ({"stress": -1.0}, "stress"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, key):
    with pytest.raises(BadInput) as refused:
        Forgiving("cost", **{"delta": 0.1, **arguments})
    assert refused.value.key == f"forgiving.{key}"


def test_only_a_quality_can_be_forgiven():
    with pytest.raises(BadInput, match="only what is maximised"):
        Wanted.of(minimize="loss forgiving 8% per halved bitops")


def test_it_survives_json():
    objectives = [
        Objective((("accuracy", 1.0),), "maximize", Forgiving("total_bitops", 0.1, 4.0, 1234.5, 0.5, 0.3)),
        Objective((("accuracy", 1.0), ("total_bitops", -5e-10)), "maximize"),
        Objective.of("loss", "minimize"),
    ]
    for objective in objectives:
        assert Objective.from_json(json.loads(json.dumps(objective.to_json()))) == objective
    assert objectives[2].to_json() == {"terms": [["loss", 1.0]], "direction": "minimize"}


RUNNERS = (BasicEvaluation, BasicComputation)
BASELINE = {"accuracy": 0.9, "loss": 0.3, "total_flops": 10.0, "total_bitops": 2e6}


def problem(**wanted):
    understood = Wanted.of(**wanted).resolved(Vocabulary(RUNNERS).resolve)
    objectives = tuple(o.against(BASELINE) for o in understood.objectives)
    return Problem(Tree(()), objectives, understood.constraints, (), BASELINE, Vocabulary(RUNNERS))


def test_the_reference_is_the_baselines_unless_a_number_is_given():
    (found,) = problem(maximize="accuracy forgiving 8% per halved bitops").objectives
    assert found.forgiving == Forgiving("total_bitops", 0.08, 2.0, 2e6)
    fixed = Wanted.of(forgiving=("accuracy", Forgiving("bitops", 0.08, reference=7.0))).objectives[0]
    assert fixed.against({}).forgiving.reference == 7.0
    open_ = Objective.parse("accuracy forgiving 8% per halved bitops", "maximize")
    with pytest.raises(BadInput, match="baseline has no such metric"):
        open_.against({"accuracy": 1.0})
    with pytest.raises(BadInput, match="out of range"):
        open_.against({"bitops": 0.0})


def test_a_trial_whose_cost_is_not_above_zero_fails_and_is_not_judged():
    asked = problem(maximize="accuracy forgiving 8% per halved bitops")
    assert asked.violation({"accuracy": 0.9, "total_bitops": 5.0}) == 0
    assert asked.violation({"accuracy": 0.9}) == 0  # not known yet
    for cost in (0.0, -1.0, math.inf):
        with pytest.raises(MetricError, match="above zero"):
            asked.violation({"accuracy": 0.9, "total_bitops": cost})


def test_settings_and_words_mean_the_same():
    table = {"metric": "accuracy", "cost": "bitops", "delta": 0.08}
    words = SearchSettings(maximize="accuracy forgiving 8% per halved bitops", minimize=["loss"])
    settings = SearchSettings(forgiving=table, minimize=["loss"])
    assert settings.wanted() == words.wanted()
    more = validate(ForgivingSettings, {**table, "reference": 5.0, "rate": 4, "delta_above": 0.2}, Document())
    assert more.traded == ("accuracy", Forgiving("bitops", 0.08, 4.0, 5.0, 1.0, 0.2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forgiving": {"metric": "acuracy", "cost": "bitops"}}, "did you mean 'accuracy'"),
        ({"forgiving": {"metric": "accuracy", "cost": "bitop"}}, "did you mean"),
        ({"forgiving": {"metric": "accuracy", "cost": "bitops", "delta": -1}}, "not a share"),
        ({"forgiving": {"metric": "accuracy"}}, "missing key"),
        ({"forgiving": {"metric": "accuracy", "cost": "bitops"}, "metrics": {"loss": {}}}, "given twice"),
        ({"maximize": "accuracy forgiving 8% per halved bitop"}, "did you mean"),
        ({"maximize": "accuracy", "best": "knee"}, "two objectives or more"),
        ({"maximize": "accuracy", "minimize": "bitops", "best": "knee s.t. acuracy < 1"}, "did you mean 'accuracy'"),
        ({"maximize": "accuracy", "best": "kneee"}, "not a question"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(settings, message):
    with pytest.raises(BadInput, match=message):
        validate(SearchSettings, settings, Document(), "search").check_words()


def test_the_knee_is_a_question_that_two_objectives_can_answer():
    assert parse_question("knee where accuracy >= baseline - 0.05").metrics == ("accuracy",)
    assert problem(maximize="accuracy", minimize="bitops").question("knee") == Knee()
    check_before_work(Wanted.of("accuracy", "bitops"), RUNNERS, "knee")
    with pytest.raises(BadInput, match="two objectives or more"):
        check_before_work(Wanted.of("accuracy"), RUNNERS, "knee")
