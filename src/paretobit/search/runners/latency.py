"""Wall-clock latency of the emulated model."""

from __future__ import annotations

import statistics
import time
from typing import Any, ClassVar

import torch
from pydantic import Field

from paretobit.search.runners.base import RUNNERS, Candidate, Evidence, Metric, Runner, RunnerSettings
from paretobit.training.evaluate import run_on_view


class LatencySettings(RunnerSettings):
    """Settings of `latency`.

    Attributes:
        batch_size: Rows per timed pass.
        warmup: Passes before the clock starts.
        repeats: Timed passes; the median counts.
    """

    batch_size: int = Field(default=1, gt=0)
    warmup: int = Field(default=5, ge=0)
    repeats: int = Field(default=20, gt=0)


@RUNNERS.register("latency")
class Latency(Runner):
    """Median time of one forward pass of the emulated model on this machine, not of the target hardware."""

    Settings: ClassVar[type[RunnerSettings]] = LatencySettings
    kind = "hardware"
    metrics = (Metric("latency", "minimize", "ms per batch, emulated"),)

    def __init__(self, evidence: Evidence, settings: Any) -> None:
        super().__init__(evidence, settings)
        x, _ = evidence.split("val")
        self._x = x[: settings.batch_size]

    def measure(self, candidate: Candidate) -> dict[str, float]:
        """Time the passes one by one."""
        times = []
        with torch.no_grad():
            for i in range(self.settings.warmup + self.settings.repeats):
                start = time.perf_counter()
                run_on_view(candidate.applied, self._x)
                if i >= self.settings.warmup:
                    times.append(time.perf_counter() - start)
        return {"latency": 1e3 * statistics.median(times)}
