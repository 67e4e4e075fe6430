"""What an engine is: it evaluates configurations, and gives them back in the order in which they came."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from paretobit.spaces.knobs import Config
from paretobit.trials.bench import Bench
from paretobit.trials.outcome import Outcome
from paretobit.trials.pipeline.halving import Bar
from paretobit.wanted.wanted import Judge, nothing_wanted


@dataclass(frozen=True)
class Finished:
    """A configuration that an engine has evaluated."""

    config: Config
    outcome: Outcome
    seconds: float


class Engine(Protocol):
    """Evaluates configurations; at most `workers` at a time."""

    workers: int

    def submit(self, config: Config, bar: Bar | None = None) -> None:
        """Begin a configuration; its training is compared with the bar."""

    def next(self) -> Finished:
        """The oldest submitted configuration that is not yet returned, once it is finished."""

    def close(self) -> None:
        """Give back what it holds; what still runs is lost."""


class SerialEngine:
    """Evaluates in this process, one after the other."""

    workers = 1

    def __init__(self, bench: Bench, judge: Judge = nothing_wanted) -> None:
        self._bench, self._judge = bench, judge
        self._queue: deque[tuple[Config, Bar | None]] = deque()

    def submit(self, config: Config, bar: Bar | None = None) -> None:
        """Queue a configuration."""
        self._queue.append((config, bar))

    def next(self) -> Finished:
        """Evaluate the oldest one."""
        config, bar = self._queue.popleft()
        start = time.perf_counter()
        outcome = self._bench.evaluate(config, self._judge, bar)
        return Finished(config, outcome, time.perf_counter() - start)

    def close(self) -> None:
        """Nothing to give back."""
