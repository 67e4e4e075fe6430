"""Evaluates configurations whose models are trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

from paretobit.models import SavedModel
from paretobit.spaces.knobs import Config
from paretobit.studies.trial import State
from paretobit.trials.bench import Outcome, Workbench, measure
from paretobit.trials.pipeline.halving import Bar
from paretobit.trials.pipeline.pipeline import Made, Pipeline
from paretobit.trials.runners import Candidate, FunctionRunner, Runner
from paretobit.wanted.objectives import Metrics
from paretobit.wanted.wanted import Judgement


class TrainingBench(Workbench):
    """Takes every configuration through the steps of a pipeline.

    Args:
        pipeline: The steps.
        runners: What to measure; those that need no model run first.
        judge: What metrics mean: objectives for early stopping, and constraints.
        seed: The study's seed.

    Attributes:
        trained_baseline: The unmodified model after the same training; None before it was measured.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        runners: Sequence[Runner],
        judge: Callable[[Metrics], Judgement],
        seed: int,
    ) -> None:
        super().__init__(pipeline.bound, runners, lambda metrics: judge(metrics).violation, seed)
        self._pipeline, self._judge = pipeline, judge
        self.trained_baseline: SavedModel | None = None

    def recall(self) -> None:
        """Learn what a user's functions return, without training anything."""
        model = self._pipeline.evidence.graph.model
        for runner in self._expensive:
            if isinstance(runner, FunctionRunner):
                runner.measure(Candidate({}, copy.deepcopy(model).eval()))

    def _run(self, config: Config | None, seed: int) -> dict[str, float]:
        """The unmodified model: trained as every trial is, and compressed by nothing."""
        assert config is None, "the trials of configurations may be ended, and have curves"
        made = self._made(None, seed, self.cheap_metrics(None), None)
        self.trained_baseline = SavedModel.of(made.model)
        return {**self._costs(made, None), **made.metrics}

    def _evaluate(self, config: Config, bar: Bar | None) -> Outcome:
        cheap = self.cheap_metrics(config)
        if self._violation(cheap) > 0:
            return Outcome("infeasible", cheap)
        made = self._made(config, self.seed_of(config), cheap, bar)
        if made.ended:
            return Outcome("stopped", dict(made.metrics), curve=made.curve)
        metrics = {**self._costs(made, config), **made.metrics}
        state: State = "infeasible" if self._violation(metrics) > 0 else "complete"
        return Outcome(state, metrics, None, made.curve, SavedModel.of(made.model))

    def _costs(self, made: Made, config: Config | None) -> dict[str, float]:
        """The metrics that need no run, of the weights that were trained: some count their zeros."""
        known = replace(self._candidate(config), sparsity=made.sparsity)
        return measure([runner.on(made.graph) for runner in self._cheap], known)

    def _made(self, config: Config | None, seed: int, cheap: Metrics, bar: Bar | None) -> Made:
        return self._pipeline.run(config, seed, cheap, bar, lambda metrics: self._judge(metrics).losses)
