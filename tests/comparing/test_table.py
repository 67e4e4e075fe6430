"""A complete table answers as the search did that made it, without a model."""

import json
import math

import numpy as np
import pytest

from paretobit.comparing.replay import play
from paretobit.comparing.table import Table, rank, tree_from
from paretobit.errors import BadInput, StudyError
from paretobit.session.engines.base import SerialEngine
from paretobit.session.loop import SearchLoop
from paretobit.spaces.knobs import Config, Knob, Tree, plain_knobs
from paretobit.strategies.brute_force import BruteForce, BruteForceSettings
from paretobit.strategies.optuna_samplers import OptunaSettings, OptunaStrategy
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial
from paretobit.wanted.wanted import Wanted

METRICS = {
    "loss": {"direction": "minimize", "unit": "nats", "cheap": False},
    "cost": {"direction": "minimize", "unit": "bits", "cheap": True},
    "test_loss": {"direction": "minimize", "unit": "nats", "cheap": False},
}


def complete_study(tree, score, order=None, state=lambda config: "complete", **facts):
    """A study of every configuration of a tree."""
    study = Study()
    study.record(
        baseline={"loss": 1.0, "cost": 10.0},
        objectives=[{"terms": [["loss", 1.0]], "direction": "minimize"}],
        constraints=[],
        metrics=METRICS,
        short_names={"c": "cost"},
        samples={"val": 100},
        **facts,
    )
    for number, index in enumerate(order or range(tree.size)):
        config = tree.at(index)
        metrics = {} if state(config) == "failed" else score(config)
        study.add(Trial(number, config, state(config), metrics, seconds=0.5))
    return study


@pytest.fixture
def table(mixed_tree, scored):
    return Table.from_study(complete_study(mixed_tree, scored), mixed_tree)


def test_a_tree_survives_as_json_with_what_its_options_own(mixed_tree):
    again = tree_from(json.loads(json.dumps(plain_knobs(mixed_tree.knobs))))
    assert again == mixed_tree
    assert again.fingerprint == mixed_tree.fingerprint


def test_the_rank_of_a_configuration_is_its_number(mixed_tree):
    assert [rank(mixed_tree, mixed_tree.at(i)) for i in range(60)] == list(range(60))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"depth": 3}, "not an option"), ({"bits": 3}, "unknown knob"), ({"width": None}, "not an option")],
)
def test_what_is_no_configuration_has_no_rank(mixed_tree, change, said):
    config = {**mixed_tree.at(59), **change}
    with pytest.raises(BadInput, match=said):
        rank(mixed_tree, config)


def test_a_missing_knob_has_no_rank(mixed_tree):
    with pytest.raises(BadInput, match="lacks a knob"):
        rank(mixed_tree, {"depth": 1, "kind": "x"})


@pytest.mark.parametrize("order", [None, [*range(59, -1, -1)]], ids=["nested", "backwards"])
def test_a_table_holds_every_metric_of_every_configuration(tmp_path, mixed_tree, scored, order):
    Table.from_study(complete_study(mixed_tree, scored, order), mixed_tree).save(tmp_path / "table.npz")
    table = Table.open(tmp_path)
    assert len(table) == 60
    assert table.seconds == 0.5
    for index in range(60):
        assert table.metrics(index) == scored(mixed_tree.at(index))


def test_the_same_table_makes_the_same_file(tmp_path, table):
    table.save(tmp_path / "a.npz")
    Table.open(tmp_path / "a.npz").save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_the_file_is_read_without_pickle(tmp_path, table):
    table.save(tmp_path / "table.npz")
    with np.load(tmp_path / "table.npz", allow_pickle=False) as stored:
        assert stored["metric.loss"].dtype == np.float64
        assert json.loads(stored["about"].tobytes())["knobs"] == plain_knobs(table.tree.knobs)


def test_an_incomplete_study_makes_no_table(mixed_tree, scored):
    study = complete_study(mixed_tree, scored, order=range(50))
    with pytest.raises(BadInput, match="lacks 10 of 60 configurations"):
        Table.from_study(study, mixed_tree)


def test_the_tree_must_be_the_studys(mixed_tree, scored):
    other = Tree((Knob.of("depth", [1, 2]),))
    study = complete_study(mixed_tree, scored, space={"tree": mixed_tree.fingerprint})
    with pytest.raises(BadInput, match="another space"):
        Table.from_study(study, other)
    with pytest.raises(BadInput, match="does not say what its knobs are"):
        Table.from_study(study)
    study.record(knobs=plain_knobs(mixed_tree.knobs))
    assert len(Table.from_study(study)) == 60


def test_what_is_no_table_is_said_so(tmp_path, table):
    with pytest.raises(BadInput, match="no table here"):
        Table.open(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    np.savez(tmp_path / "other.npz", numbers=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", about=np.array([{"a": 1}], dtype=object))
    for name in ("text", "other", "pickled"):
        with pytest.raises(StudyError, match="is not a table"):
            Table.open(tmp_path / f"{name}.npz")
    short = Table(table.tree, table.states[:5], table.columns, table.about)
    short.save(tmp_path / "short.npz")
    with pytest.raises(StudyError, match="not whole"):
        Table.open(tmp_path / "short.npz")


def test_a_constraint_on_cheap_metrics_keeps_the_others_back(table):
    problem = table.problem(Wanted.of(minimize="loss", subject_to="c <= 20"))
    for index in range(60):
        metrics = table.metrics(index)
        outcome = table.outcome(table.tree.at(index), problem)
        if metrics["cost"] <= 20:
            assert (outcome.state, outcome.metrics) == ("complete", metrics)
        else:
            assert (outcome.state, outcome.metrics) == ("infeasible", {"cost": metrics["cost"]})


def test_a_constraint_on_a_measured_metric_shows_all_of_them(table):
    problem = table.problem(Wanted.of(minimize="cost", subject_to="loss <= baseline"))
    states = {table.outcome(table.tree.at(i), problem).state: i for i in range(60)}
    assert set(states) == {"complete", "infeasible"}
    worst = table.outcome(table.tree.at(states["infeasible"]), problem)
    assert set(worst.metrics) == {"loss", "cost"}


def test_a_metric_that_was_never_measured_is_an_error_and_not_a_number(mixed_tree, scored):
    def partly(config):
        metrics = scored(config)
        return metrics if metrics["cost"] < 20 else {"cost": metrics["cost"]}

    table = Table.from_study(complete_study(mixed_tree, partly), mixed_tree)
    expensive = next(c for c in map(mixed_tree.at, range(60)) if scored(c)["cost"] >= 20)
    with pytest.raises(BadInput, match="the table holds no loss"):
        table.outcome(expensive, table.problem())


def test_a_failed_configuration_fails_again(mixed_tree, scored):
    def state(config):
        return "failed" if config["depth"] == 8 else "complete"

    table = Table.from_study(complete_study(mixed_tree, scored, state=state), mixed_tree)
    outcome = table.outcome(mixed_tree.at(59), table.problem())
    assert (outcome.state, outcome.metrics) == ("failed", {})
    assert math.isnan(table.columns["loss"][59])


def test_the_test_split_is_told_to_nobody(mixed_tree, scored):
    def judged(config):
        return {**scored(config), "test_loss": 2 * scored(config)["loss"]}

    table = Table.from_study(complete_study(mixed_tree, judged), mixed_tree)
    config = mixed_tree.at(17)
    assert "test_loss" not in table.outcome(config, table.problem()).metrics
    assert table.test_metrics(config) == {"loss": 2 * scored(config)["loss"]}
    with pytest.raises(BadInput, match="the table has no such metric"):
        table.problem(Wanted.of(minimize="test_loss"))


def test_other_objectives_must_be_metrics_of_the_table(table):
    assert [o.label for o in table.problem(Wanted.of(minimize=["loss", "c"])).objectives] == ["loss", "cost"]
    with pytest.raises(BadInput, match="the table has no such metric"):
        table.problem(Wanted.of(minimize="latency"))


def test_evidence_comes_back_as_it_was_stored(tmp_path, mixed_tree, scored):
    group = {"name": "a", "options": [{"depth": 1}, {"depth": 8}], "scores": [0.25, math.inf]}
    evidence = {
        "tables": {"kl": {"{}": {"groups": [group], "base": 0.5, "excluded": {}}}},
        "outer": [],
        "choices": ["kind"],
        "seconds": {"kl": {"{}": 1.5}},
    }
    table = Table.from_study(complete_study(mixed_tree, scored), mixed_tree, evidence=evidence)
    table.save(tmp_path / "table.npz")
    insight = Table.open(tmp_path).problem().insight
    assert insight.tables == ("kl",)
    assert insight.table("kl", Config({})).groups[0].scores == (0.25, math.inf)
    assert [knob.name for knob in insight.choices.knobs] == ["kind"]
    assert insight.costs(mixed_tree.at(5)) == {"cost": scored(mixed_tree.at(5))["cost"]}


def test_a_table_without_evidence_says_so(table):
    assert not table.has_evidence
    assert table.problem().insight is None
    assert table.about["evidence_absent"]


# Replay


class Recorded:
    """A strategy that keeps what it proposed."""

    def __init__(self, strategy):
        self.strategy, self.asked = strategy, []

    def ask(self, n):
        proposals = self.strategy.ask(n)
        self.asked += proposals
        return proposals

    def tell(self, trials):
        self.strategy.tell(trials)


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "random"])
@pytest.mark.parametrize("bounds", [(), ("cost <= 24",)], ids=["free", "bounded"])
def test_a_replay_proposes_what_the_live_search_proposed(table, problem_of, scored, sampler, bounds):
    settings = OptunaSettings(sampler=sampler)
    problem = table.problem(Wanted.of(minimize="loss", subject_to=bounds))

    class Replayed:
        def evaluate(self, config, judge=None, bar=None):
            return table.outcome(config, problem)

    live, study = problem_of(table.tree, constraints=bounds), Study()
    strategy = OptunaStrategy(live, 3, settings)
    SearchLoop(live, strategy, study, SerialEngine(Replayed()), lambda config: 0).run(40)

    replayed = Recorded(OptunaStrategy(problem, 3, settings))
    play(lambda _: replayed, problem, lambda config: table.outcome(config, problem), 60)
    assert replayed.asked[:40] == [trial.config for trial in study.trials]


def shuffled(problem, seed=0):
    return BruteForce(problem, seed, BruteForceSettings(order="shuffled"))


def test_shuffled_brute_force_evaluates_each_configuration_once(table):
    problem = table.problem()
    done = play(shuffled, problem, lambda config: table.outcome(config, problem), 100)
    assert sorted(rank(table.tree, config) for config in done.configs) == list(range(60))
    assert (done.proposals, done.duplicates, done.rejected) == (60, 0, 0)
    assert done.ended == "it had no more to propose"


def test_what_cheap_metrics_reject_is_no_evaluation(table):
    problem = table.problem(Wanted.of(minimize="loss", subject_to="cost <= 20"))
    allowed = sum(table.metrics(i)["cost"] <= 20 for i in range(60))
    done = play(shuffled, problem, lambda config: table.outcome(config, problem), 100)
    assert (len(done.points), done.rejected) == (allowed, 60 - allowed)
    assert None not in done.points


def test_what_breaks_a_constraint_once_measured_was_an_evaluation_without_a_point(table):
    problem = table.problem(Wanted.of(minimize="cost", subject_to="loss <= 1"))
    done = play(shuffled, problem, lambda config: table.outcome(config, problem), 100)
    feasible = sum(table.metrics(i)["loss"] <= 1 for i in range(60))
    assert len(done.points) == 60
    assert sum(point is not None for point in done.points) == feasible


def test_a_strategy_that_repeats_itself_is_ended(table):
    class Stuck:
        def __init__(self, problem):
            self.told = []

        def ask(self, n):
            return [table.tree.at(7)]

        def tell(self, trials):
            self.told += trials

    stuck = Stuck(None)
    problem = table.problem()
    done = play(lambda _: stuck, problem, lambda config: table.outcome(config, problem), 10)
    assert (done.proposals, done.duplicates, len(done.points)) == (11, 10, 1)
    assert done.ended == "10 proposals in a row cost nothing"
    assert {trial.state for trial in stuck.told[1:]} == {"duplicate"}
    assert all(trial.duplicate_of == 0 and trial.metrics == table.metrics(7) for trial in stuck.told[1:])


def test_evidence_that_is_asked_for_is_paid_for(mixed_tree, scored):
    score_table = {"groups": [], "base": 0.5, "excluded": {}}
    evidence = {"tables": {"a": {"{}": score_table}, "b": {"{}": score_table}}, "outer": [], "choices": []}
    table = Table.from_study(complete_study(mixed_tree, scored), mixed_tree, evidence=evidence)

    class Asks(BruteForce):
        def __init__(self, problem):
            super().__init__(problem, 0, BruteForceSettings())
            for _ in range(3):  # asked again, it is known
                problem.insight.table("b", Config({}))

    problem = table.problem()
    done = play(
        Asks,
        problem,
        lambda config: table.outcome(config, problem),
        5,
        evidence_seconds={("a", "{}", None): 100.0, ("b", "{}", None): 8.0},
        evaluation_seconds=0.5,
    )
    assert done.evidence == 16.0
