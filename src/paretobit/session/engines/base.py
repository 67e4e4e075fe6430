"""What an engine is: it evaluates configurations, and gives them back in the order in which they came."""

from __future__ import annotations

import abc
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from paretobit.registry import Registry
from paretobit.spaces.knobs import Config
from paretobit.trials.bench import Bench
from paretobit.trials.halving import Bar
from paretobit.trials.outcome import Outcome
from paretobit.wanted.wanted import Judge, nothing_wanted


@dataclass(frozen=True)
class Finished:
    """A configuration that an engine has evaluated."""

    config: Config
    outcome: Outcome
    seconds: float


class Engine(abc.ABC):
    """Evaluates configurations; at most `workers` at a time."""

    parallel: ClassVar[bool] = False
    """Whether it runs several workers."""
    stops_late_trials: ClassVar[bool] = False
    """Whether it ends a trial that takes too long."""
    workers: int = 1

    @classmethod
    @abc.abstractmethod
    def of(cls, bench: Bench, make_bench: Callable[[], Bench], judge: Judge, execution: Execution) -> Engine:
        """An engine for one search.

        Args:
            bench: For trials in this process.
            make_bench: Makes one in each of the others.
            judge: What metrics mean; constraints end a trial, objectives a training.
            execution: How many workers, and how long a trial may take.
        """

    @abc.abstractmethod
    def submit(self, config: Config, bar: Bar | None = None) -> None:
        """Begin a configuration; its training is compared with the bar."""

    @abc.abstractmethod
    def next(self) -> Finished:
        """The oldest submitted configuration that is not yet returned, once it is finished."""

    def close(self) -> None:  # noqa: B027
        """Give back what it holds; what still runs is lost."""


ENGINES: Registry[type[Engine]] = Registry("engine")


@dataclass(frozen=True)
class Execution:
    """Where trials run, and when to stop.

    Attributes:
        workers: How many processes evaluate.
        kind: Registered name of the engine; unset: `processes` where there are several workers or a timeout
            per trial, else `serial`.
        timeout: Seconds after which no further trial starts.
        trial_timeout: Seconds a trial may take.
        max_failures: How many trials may fail.
    """

    workers: int = 1
    kind: str | None = None
    timeout: float | None = None
    trial_timeout: float | None = None
    max_failures: int | None = None

    def engine(self, bench: Bench, make_bench: Callable[[], Bench], judge: Judge) -> Engine:
        """The engine; arguments as those of `Engine.of`."""
        elsewhere = self.workers > 1 or self.trial_timeout is not None
        kind = self.kind or ("processes" if elsewhere else "serial")
        return ENGINES[kind].of(bench, make_bench, judge, self)


@ENGINES.register("serial")
class SerialEngine(Engine):
    """Evaluates in this process, one after the other."""

    @classmethod
    def of(cls, bench: Bench, make_bench: Callable[[], Bench], judge: Judge, execution: Execution) -> SerialEngine:
        return cls(bench, judge)

    def __init__(self, bench: Bench, judge: Judge = nothing_wanted) -> None:
        self._bench, self._judge = bench, judge
        self._queue: deque[tuple[Config, Bar | None]] = deque()

    def submit(self, config: Config, bar: Bar | None = None) -> None:
        self._queue.append((config, bar))

    def next(self) -> Finished:
        config, bar = self._queue.popleft()
        start = time.perf_counter()
        outcome = self._bench.evaluate(config, self._judge, bar)
        return Finished(config, outcome, time.perf_counter() - start)
