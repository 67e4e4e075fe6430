"""Training inside a trial: the steps from a configuration to a trained model."""

from paretobit.search.pipeline.bench import TrainingBench
from paretobit.search.pipeline.pipeline import Made, Pipeline
from paretobit.search.pipeline.stages import StageRunner

__all__ = ["Made", "Pipeline", "StageRunner", "TrainingBench"]
