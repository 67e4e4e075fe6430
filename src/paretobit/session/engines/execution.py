"""Where trials run, and when a search stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paretobit.session.engines.base import Engine, SerialEngine
from paretobit.session.engines.processes import ProcessEngine
from paretobit.trials.bench import Bench
from paretobit.wanted.wanted import Judge


@dataclass(frozen=True)
class Execution:
    """Where trials run, and when to stop.

    Attributes:
        workers: How many processes evaluate.
        kind: `serial` or `processes`; unset: processes where there are several workers or a timeout
            per trial.
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
        """The engine.

        Args:
            bench: For trials in this process.
            make_bench: Makes one in each of the others.
            judge: What metrics mean.
        """
        if self.kind != "processes" and self.workers == 1 and self.trial_timeout is None:
            return SerialEngine(bench, judge)
        return ProcessEngine(make_bench, self.workers, self.trial_timeout, judge)
