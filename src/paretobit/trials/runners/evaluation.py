"""Accuracy and loss on a split."""

from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from paretobit.data.text import by_length
from paretobit.graph import at_rest
from paretobit.training.evaluate import check_classifier, evaluate
from paretobit.trials.evaluation.evaluator import Evaluator
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners.base import RUNNERS, Candidate, Runner, RunnerSettings, SplitSettings
from paretobit.wanted.metric import Metric


class EvaluationSettings(SplitSettings):
    """Settings of `basic_evaluation`. The test split judges the front and never chooses it."""

    reuse_mb: int = Field(
        256,
        ge=0,
        description="memory, in MiB, for results of layers that later trials take over where what comes "
        "before them is the same; 0: every trial runs everything. Metrics are the same bits",
    )


@RUNNERS.register("basic_evaluation")
class BasicEvaluation(Runner):
    """Accuracy (micro: share of correct rows) and mean cross-entropy of the model on a split."""

    Settings: ClassVar[type[RunnerSettings]] = EvaluationSettings
    metrics: tuple[Metric, ...] = (Metric("accuracy", "maximize", "share of rows"), Metric("loss", "minimize", "nats"))

    def __init__(self, evidence: Evidence, settings: Any) -> None:
        super().__init__(evidence, settings)
        x, y = evidence.split(settings.split)
        self._x, self._y = x[: settings.num_samples], y[: settings.num_samples]
        padding = getattr(evidence.graph.model, "padding", None)
        if padding is not None:  # batches of sentences of one length are run without padding
            order = by_length(self._x, padding)
            self._x, self._y = self._x[order], self._y[order]
        self._check_labels()
        self.rows = settings.batch_size or evidence.rows_per_pass
        self._evaluate = Evaluator(evidence.graph, self._x, self._y, self.rows, settings.reuse_mb)

    @property
    def identity(self) -> dict[str, Any]:
        """Also the path, on which the last bits depend; not the memory, on which nothing does."""
        settings = self.settings.model_dump(exclude={"reuse_mb"})
        return {"runner": type(self).__name__, **settings, "path": dict(self._evaluate.path)}

    @property
    def samples(self) -> int:
        """Rows it looks at."""
        return len(self._x)

    @property
    def split(self) -> str:
        """The split whose rows they are."""
        return str(self.settings.split)

    def leaves_as_is(self, model: nn.Module) -> bool:
        return self._evaluate.leaves_as_is(model)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        result = self._evaluate(candidate.applied)
        return {"accuracy": result.accuracy, "loss": result.loss}

    def measure_once(self, candidate: Candidate) -> dict[str, float]:
        result = evaluate(candidate.applied, self._x, self._y, self.rows)
        return {"accuracy": result.accuracy, "loss": result.loss}

    def _check_labels(self) -> None:
        """Refuse labels that are no classes of the model."""
        model = self.evidence.graph.model
        with at_rest(model):
            check_classifier(model, self._x, self._y, ": give evaluate= for other tasks")
