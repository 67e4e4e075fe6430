"""Configurations whose models are trained: each takes every step of a pipeline."""

from collections.abc import Sequence
from dataclasses import replace

from paretobit.models import SavedModel
from paretobit.passes.layers.assignment import carried_formats
from paretobit.spaces.knobs import Config
from paretobit.trials.halving import Bar
from paretobit.trials.outcome import Measured, measure
from paretobit.trials.pipeline.pipeline import Pipeline
from paretobit.trials.runners import Candidate, Runner
from paretobit.wanted.objectives import Metrics
from paretobit.wanted.wanted import Judge


class Trained:
    """Takes every configuration through the steps of a pipeline, on a copy of its own.

    Args:
        pipeline: The steps.
        cheap: The runners that need no run: they look at the weights that were trained.
    """

    def __init__(self, pipeline: Pipeline, cheap: Sequence[Runner]) -> None:
        self._pipeline, self._cheap = pipeline, cheap

    def run(
        self, config: Config | None, known: Candidate, cheap: Metrics, seed: int, bar: Bar | None, judge: Judge
    ) -> Measured:
        """Train and measure the model of a configuration; None: the unmodified one, compressed by nothing."""
        made = self._pipeline.run(config, seed, cheap, bar, lambda metrics: judge(metrics).losses)
        if made.ended:
            return Measured(made.metrics, made.curve, ended=True)
        carried = carried_formats(made.graph.with_model(made.model))
        of_trained = replace(known, carried=carried, look=dict)  # what was pruned is zero in the graph's weights
        costs = measure([runner.on(made.graph) for runner in self._cheap], of_trained)
        return Measured({**costs, **made.metrics}, made.curve, saved=SavedModel.of(made.model))
