"""What evaluating a configuration gave."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paretobit.errors import MetricError
from paretobit.models import SavedModel
from paretobit.studies.trial import State
from paretobit.training import Epoch
from paretobit.trials.runners import Candidate, Runner


@dataclass(frozen=True)
class Outcome:
    """What evaluating a configuration gave; `saved` is the model, where it was trained."""

    state: State
    metrics: Mapping[str, float]
    error: str | None = None
    curve: tuple[Epoch, ...] = ()
    saved: SavedModel | None = None


@dataclass(frozen=True)
class Measured:
    """What running the model of a configuration gave.

    Attributes:
        metrics: Of a training that was ended, the last known ones.
        curve: Every epoch, where it was trained.
        ended: Whether it fell behind and was ended.
        saved: The model, where it was trained.
    """

    metrics: Mapping[str, float]
    curve: tuple[Epoch, ...] = ()
    ended: bool = False
    saved: SavedModel | None = None


def measure(runners: Sequence[Runner], candidate: Candidate) -> dict[str, float]:
    """What the runners measure; every metric they declare, and every one a number.

    Raises:
        MetricError: One is missing, or not a number.
    """
    metrics: dict[str, float] = {}
    for runner in runners:
        measured = runner.measure(candidate)
        for metric in runner.metrics:
            if metric.name not in measured:
                raise MetricError(f"{type(runner).__name__} did not deliver the metric '{metric.name}'")
        metrics.update(measured)
    for name, value in metrics.items():
        if math.isnan(value):
            raise MetricError(f"the metric '{name}' is not a number")
    return metrics
