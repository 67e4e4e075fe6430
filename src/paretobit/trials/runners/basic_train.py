"""The reports' runner that trains before it measures."""

from dataclasses import replace
from typing import Any, ClassVar

from paretobit.graph import ModelGraph
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners.base import RUNNERS, Runner, RunnerSettings
from paretobit.trials.runners.evaluation import BasicEvaluation, EvaluationSettings
from paretobit.trials.steps import TrainingStep


class BasicTrainSettings(TrainingStep, RunnerSettings):
    """Settings of `basic_train`: those of the step `train`."""


@RUNNERS.register("basic_train")
class BasicTrain(BasicEvaluation):
    """Accuracy and loss on the validation split, of a model that every trial trains first.

    A search with this runner has the step `train` in its pipeline, with the settings of the runner.
    """

    Settings: ClassVar[type[RunnerSettings]] = BasicTrainSettings

    def __init__(self, evidence: Evidence, settings: Any) -> None:
        super().__init__(evidence, EvaluationSettings())
        self.step: TrainingStep = settings  # `settings` are those of the measurement

    def on(self, graph: ModelGraph) -> Runner:
        """The same runner, with its step, for a model of another shape."""
        return type(self)(replace(self.evidence, graph=graph), self.step)

    @property
    def identity(self) -> dict[str, Any]:
        return {**super().identity, "train": self.step.model_dump(mode="json")}
