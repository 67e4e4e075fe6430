"""Where trials run, and the loop that asks, evaluates, records and tells."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from paretobit.errors import ParetoBitError, StudyError
from paretobit.search.front import Front
from paretobit.search.knobs import Config
from paretobit.search.problem import Problem
from paretobit.search.strategies import Strategy
from paretobit.search.studies.study import Study
from paretobit.search.trial import Outcome, State, Trial, Workbench


@dataclass(frozen=True)
class Finished:
    """A configuration that an engine has evaluated."""

    config: Config
    outcome: Outcome
    seconds: float


class Engine(Protocol):
    """Evaluates configurations; at most `workers` at a time."""

    workers: int

    def submit(self, config: Config) -> None:
        """Begin a configuration."""

    def next(self) -> Finished:
        """The oldest submitted configuration that is not yet returned, once it is finished."""

    def close(self) -> None:
        """Give back what it holds; what still runs is lost."""


class SerialEngine:
    """Evaluates in this process, one after the other."""

    workers = 1

    def __init__(self, workbench: Workbench) -> None:
        self._workbench = workbench
        self._queue: deque[Config] = deque()

    def submit(self, config: Config) -> None:
        """Queue a configuration."""
        self._queue.append(config)

    def next(self) -> Finished:
        """Evaluate the oldest one."""
        config = self._queue.popleft()
        start = time.perf_counter()
        outcome = self._workbench.evaluate(config)
        return Finished(config, outcome, time.perf_counter() - start)

    def close(self) -> None:
        """Nothing to give back."""


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
    ) -> None:
        self._problem, self._strategy, self._study = problem, strategy, study
        self._engine, self._seed_of, self._on_trial = engine, seed_of, on_trial
        self._max_failures = max_failures
        self._told = 0
        self._front = Front()
        self._best: float | None = None

    def run(
        self, n_trials: int, timeout: float | None = None, stopping: Callable[[], bool] = lambda: False
    ) -> None:
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
            trial = self._finish(asked)
            self._study.add(trial)
            self._tell(trial)
            if self._on_trial:
                rate = (len(self._study) - first) / max(time.perf_counter() - start, 1e-9)
                self._on_trial(
                    Progress(trial, len(self._study), total, len(self._front), self._best_value, rate)
                )
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
        known = self._study.find(config) is not None or any(asked.config == config for asked in waiting)
        if not known:
            self._engine.submit(config)
        return _Asked(config, self._told, not known)

    def _finish(self, asked: _Asked) -> Trial:
        number, seed = len(self._study), self._seed_of(asked.config)
        if not asked.submitted:
            first = self._study.find(asked.config)
            assert first is not None, "trials finish in the order in which they were asked for"
            state: State = "failed" if first.state == "failed" else "duplicate"
            return Trial(
                number, asked.config, state, first.metrics, first.error, first.number, seed, asked.told
            )
        finished = self._engine.next()
        if finished.config != asked.config:
            raise StudyError("the engine returned trials out of order")
        outcome = finished.outcome
        return Trial(
            number,
            asked.config,
            outcome.state,
            outcome.metrics,
            outcome.error,
            None,
            seed,
            asked.told,
            finished.seconds,
        )

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
            raise ParetoBitError(
                f"{failed} trials failed, max_failures is {self._max_failures}; the last: {last}"
            )

    def _tell(self, trial: Trial) -> None:
        self._strategy.tell([trial])
        self._told += 1
        self._note(trial)

    def _note(self, trial: Trial) -> None:
        """Keep the front and the best value of the first objective."""
        judged = self._problem.judge(trial.metrics) if trial.state == "complete" else None
        if judged is not None and judged.losses is not None:
            self._front.add(judged.losses)
            loss = judged.losses[0]
            self._best = loss if self._best is None else min(self._best, loss)
