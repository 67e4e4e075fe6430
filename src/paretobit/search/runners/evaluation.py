"""Accuracy and loss on a split."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from paretobit.errors import BadInput
from paretobit.search.runners.base import RUNNERS, Candidate, Evidence, Metric, Runner, RunnerSettings
from paretobit.training.evaluate import evaluate


class EvaluationSettings(RunnerSettings):
    """Settings of `basic_evaluation`.

    Attributes:
        split: Which part of the data. The test split is for judging the front, not for choosing.
        num_samples: Use only the first so many rows; unset: all.
        batch_size: Rows per forward pass; unset: as many as keep activations near 16 MB.
    """

    split: str = "val"
    num_samples: int | None = Field(default=None, gt=0)
    batch_size: int | None = Field(default=None, gt=0)


@RUNNERS.register("basic_evaluation")
class BasicEvaluation(Runner):
    """Accuracy (micro: share of correct rows) and mean cross-entropy of the model on a split."""

    Settings: ClassVar[type[RunnerSettings]] = EvaluationSettings
    metrics = (
        Metric("accuracy", "maximize", "share of rows"),
        Metric("loss", "minimize", "nats"),
    )

    def __init__(self, evidence: Evidence, settings: Any) -> None:
        super().__init__(evidence, settings)
        if settings.split == "test":
            raise BadInput("the test split judges the front; it cannot choose it", key="split", found="test",
                           allowed=[name for name in evidence.splits if name != "test"])  # fmt: skip
        x, y = evidence.split(settings.split)
        self._x, self._y = x[: settings.num_samples], y[: settings.num_samples]
        self._rows = settings.batch_size or evidence.rows_per_pass

    def measure(self, candidate: Candidate) -> dict[str, float]:
        """Run the model once over the split."""
        result = evaluate(candidate.applied, self._x, self._y, self._rows)
        return {"accuracy": result.accuracy, "loss": result.loss}
