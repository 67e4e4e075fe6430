"""Where trials run, and the loop that asks, evaluates, records and tells."""

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass

from paretobit.errors import ParetoBitError, StudyError
from paretobit.models import SavedModel
from paretobit.session.engines.base import Engine
from paretobit.spaces.knobs import Config
from paretobit.strategies import Strategy
from paretobit.strategies.problem import Problem
from paretobit.studies.study import Study
from paretobit.studies.trial import State, Trial
from paretobit.trials.halving import Rungs
from paretobit.wanted.front import Front


@dataclass(frozen=True)
class Progress:
    """Where a search stands after a trial.

    Attributes:
        trial: The trial just finished.
        done: Trials in the study.
        total: Trials there will be, as far as is known.
        front_size: Points on the front.
        best: Best value of the first objective so far.
        rate: Trials per second since this run started.
    """

    trial: Trial
    done: int
    total: int
    front_size: int
    best: float | None
    rate: float


@dataclass(frozen=True)
class _Asked:
    """A configuration asked for, how many trials had been told then, and whether it runs."""

    config: Config
    told: int
    submitted: bool


class SearchLoop:
    """Asks a strategy, evaluates on an engine, commits to a study, and tells.

    Trial `k` is asked for when exactly the trials before `k - workers + 1` have been told, in the
    order of their numbers: nothing depends on timing. Recorded trials are asked for and told at the
    same points again, so that a study cut short goes on as if it had not been.

    Args:
        problem: Objectives and constraints.
        strategy: Fresh; finished trials in the study are replayed into it.
        study: Where trials go.
        engine: Where they run.
        seed_of: Seed of a configuration's trial.
        on_trial: Called after every commit.
        max_failures: How many trials may fail; one more ends the search.
        rungs: What earlier trials lost on their way, where those that fall behind are stopped.
        same: What two configurations share that mean the same network.
    """

    def __init__(
        self,
        problem: Problem,
        strategy: Strategy,
        study: Study,
        engine: Engine,
        seed_of: Callable[[Config], int],
        on_trial: Callable[[Progress], None] | None = None,
        max_failures: int | None = None,
        rungs: Rungs | None = None,
        same: Callable[[Config], Hashable] | None = None,
    ) -> None:
        self._problem, self._strategy, self._study = problem, strategy, study
        self._engine, self._seed_of, self._on_trial = engine, seed_of, on_trial
        self._max_failures, self._rungs = max_failures, rungs
        self._networks = _Networks(same)
        self._told = 0
        self._front = Front()
        self._best: float | None = None

    def run(self, n_trials: int, timeout: float | None = None, stopping: Callable[[], bool] = lambda: False) -> None:
        """Go on until the study holds `n_trials`, the space is exhausted, or time is up.

        Args:
            n_trials: Trials the study shall hold, those already there included, given ones not.
            timeout: Seconds after which no further trial starts.
            stopping: Once true, no further trial starts and those running are finished.

        Raises:
            StudyError: The recorded trials are not those this strategy would have asked for.
            ParetoBitError: More than `max_failures` trials failed.
        """
        n_trials += self._learn()
        start, first, total = time.perf_counter(), len(self._study), n_trials
        waiting: deque[_Asked] = deque()
        while True:
            number = self._told + len(waiting)
            if number < first:
                recorded = self._study[number]
                if self._told >= recorded.asked_after or not waiting:
                    waiting.append(self._replay(recorded))
                    start = time.perf_counter()
                    continue
            elif number < n_trials and len(waiting) < self._engine.workers:
                late = timeout is not None and time.perf_counter() - start >= timeout
                proposals = [] if late or stopping() else self._strategy.ask(1)
                if proposals:
                    waiting.append(self._begin(proposals[0], waiting))
                    continue
                total = n_trials = number
            if not waiting:
                return
            asked = waiting.popleft()
            if self._told < first:
                self._tell(self._study[self._told])
                continue
            trial, saved = self._finish(asked)
            self._study.add(trial, saved)
            self._tell(trial)
            if self._on_trial:
                rate = (len(self._study) - first) / max(time.perf_counter() - start, 1e-9)
                self._on_trial(Progress(trial, len(self._study), total, len(self._front), self._best_value, rate))
            self._check_failures(trial)

    def _learn(self) -> int:
        """Show the strategy the trials that were given; how many there are."""
        given = self._study.given
        if self._told == 0 and given:
            self._strategy.learn(given)
            for trial in given:
                self._note(trial)
            self._told = len(given)
        return len(given)

    @property
    def _best_value(self) -> float | None:
        if self._best is None:
            return None
        return -self._best if self._problem.objectives[0].direction == "maximize" else self._best

    def _begin(self, config: Config, waiting: Iterable[_Asked]) -> _Asked:
        """Submit a configuration unless the study, or a trial in flight, will answer it."""
        answer = self._networks.first(config)
        known = answer is not None or self._study.find(config) is not None
        known = known or any(self._networks.alike(asked.config, config) for asked in waiting)
        if not known:
            self._engine.submit(config, self._rungs.bar() if self._rungs else None)
        return _Asked(config, self._told, not known)

    def _finish(self, asked: _Asked) -> tuple[Trial, SavedModel | None]:
        number, seed = len(self._study), self._seed_of(asked.config)
        if not asked.submitted:
            number_of_first = self._networks.first(asked.config)
            first = self._study.find(asked.config) if number_of_first is None else self._study[number_of_first]
            assert first is not None, "trials finish in the order in which they were asked for"
            state: State = "failed" if first.state == "failed" else "duplicate"
            original = first.number if first.duplicate_of is None else first.duplicate_of
            known = (first.metrics, first.error, original, seed, asked.told)
            return Trial(number, asked.config, state, *known), None
        finished = self._engine.next()
        if finished.config != asked.config:
            raise StudyError("the engine returned trials out of order")
        outcome = finished.outcome
        trial = Trial(
            number,
            asked.config,
            outcome.state,
            outcome.metrics,
            outcome.error,
            None,
            seed,
            asked.told,
            finished.seconds,
            outcome.curve,
        )
        return trial, outcome.saved

    def _replay(self, trial: Trial) -> _Asked:
        """Have the strategy ask for a recorded trial, as it did when the trial was new."""
        asked = self._strategy.ask(1)
        if asked != [trial.config]:
            proposal = dict(asked[0]) if asked else None
            raise StudyError(
                f"trial {trial.number} of the study is {dict(trial.config)}, but its strategy now asks for "
                f"{proposal}: the study was made with other settings, seed or versions"
            )
        return _Asked(trial.config, self._told, submitted=False)

    def _check_failures(self, trial: Trial) -> None:
        failed = self._study.counts()["failed"] if trial.state == "failed" else 0
        if self._max_failures is not None and failed > self._max_failures:
            last = (trial.error or "").strip().rpartition("\n")[2]
            raise ParetoBitError(f"{failed} trials failed, max_failures is {self._max_failures}; the last: {last}")

    def _tell(self, trial: Trial) -> None:
        self._strategy.tell([trial])
        self._told += 1
        self._note(trial)

    def _note(self, trial: Trial) -> None:
        """Keep the front, the best value of the first objective, and what others are compared with."""
        self._networks.add(trial)
        if self._rungs and trial.curve:
            self._rungs.add([losses for losses in self._by_epoch(trial) if losses is not None])
        judged = self._problem.judge(trial.metrics) if trial.state == "complete" else None
        if judged is not None and judged.losses is not None:
            self._front.add(judged.losses)
            loss = judged.losses[0]
            self._best = loss if self._best is None else min(self._best, loss)

    def _by_epoch(self, trial: Trial) -> Iterator[tuple[float, ...] | None]:
        """What a trial lost by each objective after each of its epochs."""
        for epoch in trial.curve:
            known = {"accuracy": epoch.val_accuracy, "loss": epoch.val_loss, "epochs": float(epoch.number)}
            now = {name: value for name, value in known.items() if value is not None}
            yield self._problem.judge({**trial.metrics, **now}).losses


class _Networks:
    """Which trial first had the network of a configuration, where different ones can mean the same.

    Args:
        same: What configurations of one network share; None: nothing, all are different.
    """

    def __init__(self, same: Callable[[Config], Hashable] | None) -> None:
        self._same = same
        self._first: dict[Hashable, int] = {}

    def first(self, config: Config) -> int | None:
        """Number of the first trial of this network."""
        return None if self._same is None else self._first.get(self._same(config))

    def alike(self, a: Config, b: Config) -> bool:
        """Whether two configurations are one network."""
        return a == b or (self._same is not None and self._same(a) == self._same(b))

    def add(self, trial: Trial) -> None:
        """A trial that was told."""
        if self._same is not None:
            self._first.setdefault(self._same(trial.config), trial.number)
