"""The loop asks, evaluates, commits and tells in one fixed order, and a study cut short goes on unchanged."""

import time
from collections import deque

import pytest

from paretobit.errors import StudyError
from paretobit.runtime import derive_seed
from paretobit.session.engines.base import Finished, SerialEngine
from paretobit.session.loop import SearchLoop
from paretobit.spaces.knobs import Config, Knob, Tree
from paretobit.strategies import Strategy, StrategySettings
from paretobit.strategies.brute_force import BruteForce, BruteForceSettings
from paretobit.strategies.optuna_samplers import OptunaSettings, OptunaStrategy
from paretobit.studies.study import Study


class Scripted(Strategy):
    """Proposes a fixed list of depths and notes what happens."""

    def learn(self, trials):
        self.log.append(("learn", [trial.number for trial in trials]))

    def __init__(self, problem, depths, log):
        super().__init__(problem, 0, StrategySettings())
        self._depths, self._log = deque(depths), log

    def ask(self, n):
        if not self._depths:
            return []
        self._log.append("ask")
        return [Config({"depth": self._depths.popleft(), "kind": "x"})]

    def tell(self, trials):
        self._log += [f"tell {trial.number}" for trial in trials]


class Queue:
    """An engine of several workers that evaluates when asked for results, in order."""

    def __init__(self, bench, workers=3):
        self.bench, self.workers, self.waiting = bench, workers, deque()

    def submit(self, config, bar=None):
        assert len(self.waiting) < self.workers
        self.waiting.append(config)

    def next(self):
        config = self.waiting.popleft()
        return Finished(config, self.bench.evaluate(config), 0.0)


def seed_of(config):
    return derive_seed(4, list(config.items()))


def plain(study):
    """A study without its times."""
    return [
        (t.number, t.config, t.state, dict(t.metrics), t.error, t.duplicate_of, t.seed, t.asked_after) for t in study
    ]


MAKERS = {
    "nested": lambda problem, seed: BruteForce(problem, seed, BruteForceSettings()),
    "shuffled": lambda problem, seed: BruteForce(problem, seed, BruteForceSettings(order="shuffled")),
    "random": lambda problem, seed: OptunaStrategy(problem, seed, OptunaSettings(sampler="random")),
    "tpe": lambda problem, seed: OptunaStrategy(problem, seed, OptunaSettings(sampler="tpe")),
}


class Stop(Exception):
    pass


def stop_after(count):
    def on_trial(progress):
        if progress.done >= count:
            raise Stop

    return on_trial


def test_one_worker_asks_evaluates_commits_and_tells_in_turn(problem_of, mixed_tree, fake_bench):
    log, study, bench = [], Study(), fake_bench()
    strategy = Scripted(problem_of(mixed_tree), [1, 2, 4], log)
    seen = []

    def on_trial(progress):
        seen.append((progress.trial.number, progress.done, progress.total, len(study)))
        log.append("shown")

    SearchLoop(strategy.problem, strategy, study, SerialEngine(bench), seed_of, on_trial).run(3)
    assert log == ["ask", "tell 0", "shown", "ask", "tell 1", "shown", "ask", "tell 2", "shown"]
    assert [t.asked_after for t in study] == [0, 1, 2]
    assert [t.seed for t in study] == [seed_of(t.config) for t in study]
    assert seen == [(0, 1, 3, 1), (1, 2, 3, 2), (2, 3, 3, 3)]


def test_three_workers_keep_three_trials_in_flight(problem_of, mixed_tree, fake_bench):
    log, study = [], Study()
    strategy = Scripted(problem_of(mixed_tree), [1, 2, 4, 8, 1], log)
    SearchLoop(strategy.problem, strategy, study, Queue(fake_bench()), seed_of).run(5)
    assert log == ["ask"] * 3 + ["tell 0", "ask", "tell 1", "ask", "tell 2", "tell 3", "tell 4"]
    assert [t.asked_after for t in study] == [0, 0, 0, 1, 2]


def test_progress_counts_the_front_and_the_best_value(problem_of, mixed_tree, fake_bench, scored):
    problem = problem_of(mixed_tree, objectives=("loss", "cost"))
    strategy, shown = MAKERS["nested"](problem, 0), []
    SearchLoop(problem, strategy, Study(), SerialEngine(fake_bench()), seed_of, shown.append).run(60)
    metrics = [scored(mixed_tree.at(i)) for i in range(60)]
    assert [p.best for p in shown] == [min(m["loss"] for m in metrics[: i + 1]) for i in range(60)]
    points = [(m["loss"], m["cost"]) for m in metrics]
    front = [p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)]
    assert shown[-1].front_size == len(front)
    assert all(p.rate > 0 for p in shown)


@pytest.mark.parametrize("engine", [SerialEngine, Queue])
def test_a_duplicate_is_answered_without_evaluation(problem_of, mixed_tree, fake_bench, engine):
    study, bench = Study(), fake_bench()
    strategy = Scripted(problem_of(mixed_tree), [2, 2, 2, 4, 2], [])
    SearchLoop(strategy.problem, strategy, study, engine(bench), seed_of).run(5)
    assert [t.state for t in study] == ["complete", "duplicate", "duplicate", "complete", "duplicate"]
    assert [t.duplicate_of for t in study] == [None, 0, 0, None, 0]
    assert all(t.metrics == study[0].metrics for t in study if t.state == "duplicate")
    assert [c["depth"] for c in bench.calls] == [2, 4]


@pytest.mark.parametrize("engine", [SerialEngine, Queue])
def test_a_failed_trial_is_not_evaluated_again(problem_of, mixed_tree, fake_bench, engine):
    study, bench = Study(), fake_bench(fails=lambda config: config["depth"] == 2)
    strategy = Scripted(problem_of(mixed_tree), [2, 1, 2, 2], [])
    SearchLoop(strategy.problem, strategy, study, engine(bench), seed_of).run(4)
    assert [t.state for t in study] == ["failed", "complete", "failed", "failed"]
    assert [t.duplicate_of for t in study] == [None, None, 0, 0]
    assert {t.error for t in study if t.state == "failed"} == {"Traceback: boom"}
    assert len(bench.calls) == 2


def run(problem, kind, study, engine, n_trials, seed=3, on_trial=None):
    strategy = MAKERS[kind](problem, seed)
    SearchLoop(problem, strategy, study, engine, seed_of, on_trial).run(n_trials)
    return study


def fails_sometimes(config):
    return config["kind"] == "y" and config["depth"] == 4


@pytest.mark.parametrize("engine", [SerialEngine, Queue])
@pytest.mark.parametrize("objectives", [("loss",), ("loss", "cost")])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_study_cut_short_equals_the_uninterrupted_one(
    tmp_path, problem_of, mixed_tree, fake_bench, kind, objectives, engine
):
    problem = problem_of(mixed_tree, objectives=objectives)
    whole = run(problem, kind, Study(), engine(fake_bench(fails_sometimes)), 40)
    bench = fake_bench(fails_sometimes)
    for cut in (1, 2, 13, 27):
        with Study(tmp_path / "s.db") as study, pytest.raises(Stop):
            run(problem, kind, study, engine(bench), 40, on_trial=stop_after(cut))
    with Study(tmp_path / "s.db") as study:
        run(problem, kind, study, engine(bench), 40)
        assert plain(study) == plain(whole)
    with Study(tmp_path / "s.db") as study:
        assert plain(study) == plain(whole)
    assert len(bench.calls) == len(set(bench.calls))  # nothing ran twice


@pytest.mark.parametrize("engine", [SerialEngine, Queue])
def test_more_trials_continue_a_finished_run(problem_of, mixed_tree, fake_bench, engine):
    problem, bench = problem_of(mixed_tree), fake_bench()
    study = run(problem, "tpe", Study(), engine(bench), 12)
    assert len(study) == 12
    run(problem, "tpe", study, engine(bench), 30)
    assert plain(study) == plain(run(problem, "tpe", Study(), engine(fake_bench()), 30))


def test_one_loop_can_be_run_on(problem_of, mixed_tree, fake_bench):
    problem, study = problem_of(mixed_tree), Study()
    strategy = MAKERS["tpe"](problem, 3)
    loop = SearchLoop(problem, strategy, study, SerialEngine(fake_bench()), seed_of)
    loop.run(12)
    loop.run(12)
    assert len(study) == 12
    loop.run(30)
    assert plain(study) == plain(run(problem, "tpe", Study(), SerialEngine(fake_bench()), 30))


def test_fewer_trials_than_there_are_change_nothing(problem_of, mixed_tree, fake_bench):
    problem, bench = problem_of(mixed_tree), fake_bench()
    study = run(problem, "random", Study(), SerialEngine(bench), 12)
    before, calls = plain(study), len(bench.calls)
    run(problem, "random", study, SerialEngine(bench), 5)
    assert plain(study) == before
    assert len(bench.calls) == calls


@pytest.mark.parametrize("kind", ["shuffled", "random", "tpe"])
def test_a_study_of_another_seed_is_refused_and_the_trial_named(problem_of, mixed_tree, fake_bench, kind):
    problem = problem_of(mixed_tree)
    study = run(problem, kind, Study(), SerialEngine(fake_bench()), 10, seed=3)
    before = plain(study)
    with pytest.raises(StudyError, match=r"trial \d+ of the study is \{'depth'.*asks for \{'depth'.*seed"):
        run(problem, kind, study, SerialEngine(fake_bench()), 20, seed=4)
    assert plain(study) == before


def test_a_study_longer_than_its_space_is_refused(problem_of, mixed_tree, fake_bench):
    study = run(problem_of(mixed_tree), "nested", Study(), SerialEngine(fake_bench()), 60)
    first = Tree((Knob.of("depth", [1]), *mixed_tree.knobs[1:]))
    with pytest.raises(StudyError, match=r"trial 15 of the study .* asks for None"):
        run(problem_of(first), "nested", study, SerialEngine(fake_bench()), 60)


@pytest.mark.parametrize("engine", [SerialEngine, Queue])
def test_an_exhausted_space_ends_the_search(problem_of, mixed_tree, fake_bench, engine):
    bench, shown = fake_bench(), []
    study = run(problem_of(mixed_tree), "nested", Study(), engine(bench), 1000, on_trial=shown.append)
    assert [t.config for t in study] == [mixed_tree.at(i) for i in range(60)]
    assert len(bench.calls) == 60
    assert shown[-1].done == 60


def test_time_up_ends_the_search_and_keeps_what_is_there(problem_of, mixed_tree, fake_bench):
    class Slow(fake_bench):
        def evaluate(self, config, judge=None, bar=None):
            time.sleep(0.02)
            return super().evaluate(config)

    problem, study = problem_of(mixed_tree), Study()
    strategy = MAKERS["nested"](problem, 0)
    loop = SearchLoop(problem, strategy, study, SerialEngine(Slow()), seed_of)
    loop.run(60, timeout=0.1)
    assert 1 <= len(study) <= 6
    run(problem, "nested", study, SerialEngine(fake_bench()), 60)
    assert [t.config for t in study] == [mixed_tree.at(i) for i in range(60)]


def test_no_time_means_no_trials(problem_of, mixed_tree, fake_bench):
    problem, study = problem_of(mixed_tree), Study()
    loop = SearchLoop(problem, MAKERS["tpe"](problem, 0), study, SerialEngine(fake_bench()), seed_of)
    loop.run(10, timeout=0.0)
    assert len(study) == 0


def test_an_engine_that_mixes_up_trials_is_refused(problem_of, mixed_tree, fake_bench):
    class Stack(Queue):
        def next(self):
            self.waiting.rotate(1)
            return super().next()

    study = Study()
    strategy = Scripted(problem_of(mixed_tree), [1, 2, 4], [])
    with pytest.raises(StudyError, match="out of order"):
        SearchLoop(strategy.problem, strategy, study, Stack(fake_bench()), seed_of).run(3)
    assert len(study) == 0
