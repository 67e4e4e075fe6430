"""Where trials run, and when a search stops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from paretobit.errors import BadInput
from paretobit.session.engines.base import Engine, SerialEngine
from paretobit.session.engines.processes import ProcessEngine
from paretobit.trials.bench import Workbench

ENGINES = ("serial", "processes")


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

    def __post_init__(self) -> None:
        if type(self.workers) is not int or self.workers < 1:
            raise BadInput("a search needs a worker", key="workers", found=self.workers, allowed="1 or more")
        for key in ("timeout", "trial_timeout"):
            seconds = getattr(self, key)
            if seconds is not None and not (0 < seconds < math.inf):
                raise BadInput("not a duration", key=key, found=seconds, allowed="seconds above 0")
        failures = self.max_failures
        if failures is not None and (type(failures) is not int or failures < 0):
            raise BadInput("not a number of trials", key="max_failures", found=failures, allowed="0 or more")
        if self.kind is not None and self.kind not in ENGINES:
            raise BadInput("unknown engine", key="engine", found=self.kind, allowed=ENGINES)
        if self.kind == "serial" and (self.workers > 1 or self.trial_timeout is not None):
            needs = "several workers" if self.workers > 1 else "trial_timeout"
            raise BadInput(f"{needs} need other processes", key="engine", found="serial", allowed=["processes"])

    def engine(self, workbench: Workbench, make_workbench: Callable[[], Workbench]) -> Engine:
        """The engine.

        Args:
            workbench: For trials in this process.
            make_workbench: Makes one in each of the others.
        """
        if self.kind != "processes" and self.workers == 1 and self.trial_timeout is None:
            return SerialEngine(workbench)
        return ProcessEngine(make_workbench, self.workers, self.trial_timeout)
