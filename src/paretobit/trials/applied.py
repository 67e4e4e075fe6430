"""Configurations that are set on a model as it is, one after the other on one private copy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from torch import nn

from paretobit.nn.copies import copy_of
from paretobit.runtime import seed_everything
from paretobit.spaces import BoundSpace
from paretobit.spaces.knobs import Config
from paretobit.trials.evaluation.restore import Restorer
from paretobit.trials.halving import Bar
from paretobit.trials.outcome import Measured, measure
from paretobit.trials.runners import Candidate, Runner
from paretobit.wanted.objectives import Metrics
from paretobit.wanted.wanted import Judge


class Applied:
    """Sets configurations on one private copy of the model; each leaves no trace.

    Args:
        space: Makes the copy and applies configurations to it.
        runners: What runs the model.
        eval_mode: False measures in training mode; running statistics are put back afterwards.
    """

    def __init__(self, space: BoundSpace, runners: Sequence[Runner], eval_mode: bool) -> None:
        self._space, self._runners, self._eval_mode = space, runners, eval_mode
        self._model = space.prepare()
        changing = next((runner for runner in runners if runner.may_change_model), None)
        self._restorer = None if changing is None else Restorer(self._model, changing.evidence.graph.model)

    def run(
        self, config: Config | None, known: Candidate, cheap: Metrics, seed: int, bar: Bar | None, judge: Judge
    ) -> Measured:
        """Measure the model of a configuration; None: the unmodified one."""
        model = self._space.apply(self._model, config)
        if self._restorer is None and self._eval_mode:  # the fast path: nothing to put back
            return self._measured(model, known, seed)
        with self._as_it_was(model) as model, nullcontext() if self._eval_mode else _training_mode(model):
            return self._measured(model, known, seed)

    def _measured(self, model: nn.Module, known: Candidate, seed: int) -> Measured:
        seed_everything(seed)
        return Measured(measure(self._runners, replace(known, model=model, seed=seed)))

    @contextmanager
    def _as_it_was(self, model: nn.Module) -> Iterator[nn.Module]:
        """The model, to be changed in the block by runners that may: nothing of that is left after it."""
        if self._restorer is None:
            yield model
        elif model is not self._model:  # of another shape, and soon forgotten
            yield copy_of(model)
        else:
            self._restorer.see()
            try:
                yield model
            finally:
                self._restorer.restore()


@contextmanager
def _training_mode(model: nn.Module) -> Iterator[None]:
    """Training mode inside the block; evaluation mode and the running statistics of before after it."""
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.train()
    try:
        yield
    finally:
        model.eval()
        for buffer, value in kept:
            buffer.copy_(value)
