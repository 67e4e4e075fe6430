"""Configurations that are set on a model as it is, one after the other on one private copy."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

from torch import nn

from paretobit.graph.restore import Restorer
from paretobit.runtime import seed_everything
from paretobit.spaces import BoundSpace
from paretobit.spaces.knobs import Config
from paretobit.trials.halving import Bar
from paretobit.trials.outcome import Measured, measure
from paretobit.trials.runners import Candidate, Runner
from paretobit.wanted.objectives import Metrics
from paretobit.wanted.wanted import Judge


class Applied:
    """Sets configurations on one private copy of the model; each leaves no trace.

    Args:
        space: Makes the copy and applies configurations to it.
        runners: What runs the model; each is given it as the configuration has it, and what is left of a
            run is undone.
        eval_mode: False measures in training mode.
    """

    def __init__(self, space: BoundSpace, runners: Sequence[Runner], eval_mode: bool) -> None:
        self._space, self._runners, self._eval_mode = space, runners, eval_mode
        self._model = space.prepare()
        self._restorer = Restorer(self._model, runners[0].evidence.graph.model if runners else None)
        self._of_other_shape: Restorer | None = None

    def run(
        self, config: Config | None, known: Candidate, cheap: Metrics, seed: int, bar: Bar | None, judge: Judge
    ) -> Measured:
        """Measure the model of a configuration; None: the unmodified one."""
        model = self._space.apply(self._model, config)
        restorer = self._restorer_of(model)
        metrics: dict[str, float] = {}
        for runner in self._runners:
            with nullcontext() if self._eval_mode and runner.leaves_as_is(model) else restorer.kept():
                seed_everything(seed)
                if not self._eval_mode:
                    model.train()
                metrics |= measure([runner], replace(known, model=model, seed=seed))
        return Measured(metrics)

    def _restorer_of(self, model: nn.Module) -> Restorer:
        """That of the copy, or of a model of another shape, where the last one is remembered."""
        if model is self._model:
            return self._restorer
        if self._of_other_shape is None or self._of_other_shape.model is not model:
            self._of_other_shape = Restorer(model)
        return self._of_other_shape
