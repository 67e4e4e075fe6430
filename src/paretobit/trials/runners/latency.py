"""Wall-clock latency of the emulated model."""

import statistics
import time
from typing import Any, ClassVar

import torch
from pydantic import Field

from paretobit.graph.contents import unchanged
from paretobit.training.evaluate import run_on_view
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners.base import RUNNERS, Candidate, Runner, RunnerSettings
from paretobit.wanted.metric import Metric


class LatencySettings(RunnerSettings):
    """Settings of `latency`."""

    batch_size: int = Field(1, gt=0, description="rows per timed pass")
    warmup: int = Field(5, ge=0, description="passes before the clock starts")
    repeats: int = Field(20, gt=0, description="timed passes; the median counts")


@RUNNERS.register("latency")
class Latency(Runner):
    """Median time of one forward pass of the emulated model on this machine, not of the target hardware."""

    Settings: ClassVar[type[RunnerSettings]] = LatencySettings
    kind = "hardware"
    metrics = (Metric("latency", "minimize", "ms per batch, emulated", repeats=False),)

    def __init__(self, evidence: Evidence, settings: Any) -> None:
        super().__init__(evidence, settings)
        x, _ = evidence.split("val")
        self._x = x[: settings.batch_size]

    def measure(self, candidate: Candidate) -> dict[str, float]:
        times = []
        with torch.no_grad(), unchanged():
            for i in range(self.settings.warmup + self.settings.repeats):
                start = time.perf_counter()
                run_on_view(candidate.applied, self._x)
                if i >= self.settings.warmup:
                    times.append(time.perf_counter() - start)
        return {"latency": 1e3 * statistics.median(times)}
