"""One trial: its record, and the pipeline that turns a configuration into metrics."""

from __future__ import annotations

import copy
import math
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

from torch import nn

from paretobit.errors import BadInput, MetricError, ParetoBitError
from paretobit.graph import ModelGraph
from paretobit.models import SavedModel
from paretobit.runtime import derive_seed, seed_everything
from paretobit.spaces import BoundSpace
from paretobit.spaces.knobs import Config
from paretobit.studies.trial import State
from paretobit.training import Epoch
from paretobit.trials.evaluation.restore import Restorer
from paretobit.trials.pipeline.halving import Bar
from paretobit.trials.runners import Candidate, Runner
from paretobit.wanted.objectives import Metrics

_KEPT_SHAPES = 8


@dataclass(frozen=True)
class Outcome:
    """What evaluating a configuration gave; `saved` is the model, where it was trained."""

    state: State
    metrics: Mapping[str, float]
    error: str | None = None
    curve: tuple[Epoch, ...] = ()
    saved: SavedModel | None = None


class Workbench:
    """Evaluates configurations on one private copy of the model, one after the other.

    Every evaluation seeds the global generators; whoever runs it puts their states back. What a runner
    that may change the model did to it is undone after each configuration.

    Args:
        space: Makes the copy and applies configurations to it.
        runners: What to measure; those that need no model run first.
        violation: Sum of constraint violations of the metrics known so far; more than zero stops a trial.
        seed: The study's seed.
        eval_mode: False measures in training mode; running statistics are put back afterwards.
    """

    def __init__(
        self,
        space: BoundSpace,
        runners: Sequence[Runner],
        violation: Callable[[Metrics], float],
        seed: int,
        eval_mode: bool = True,
    ) -> None:
        self._space = space
        self._cheap = [runner for runner in runners if runner.cheap]
        self._expensive = [runner for runner in runners if not runner.cheap]
        self._violation = violation
        self._seed = seed
        self._model = space.prepare()
        self._last: tuple[Config | None, Candidate] | None = None
        self._seeded: tuple[Config, int] | None = None
        self._shaped: OrderedDict[int, tuple[ModelGraph, list[Runner]]] = OrderedDict()
        changing = next((runner for runner in runners if runner.may_change_model), None)
        self._restorer = None if changing is None else Restorer(self._model, changing.evidence.graph.model)
        self._eval_mode = eval_mode

    def seed_of(self, config: Config) -> int:
        """The seed of a configuration's trial."""
        if self._seeded is None or self._seeded[0] is not config:
            self._seeded = (config, derive_seed(self._seed, list(config.items())))
        return self._seeded[1]

    def evaluate(self, config: Config, bar: Bar | None = None) -> Outcome:
        """Measure a configuration. An exception becomes a failed outcome; interrupts pass through.

        Args:
            config: The configuration.
            bar: What a training is compared with while it runs.
        """
        try:
            return self._evaluate(config, bar)
        except (Exception, SystemExit):
            return Outcome("failed", {}, traceback.format_exc())

    def baseline(self) -> dict[str, float]:
        """Metrics of the unmodified model, measured by the same code as every trial."""
        metrics = self.cheap_metrics(None)
        try:
            metrics.update(self._run(None, derive_seed(self._seed, "baseline")))
        except MetricError as error:
            raise MetricError(f"the unmodified model cannot be measured: {error}") from error
        except ParetoBitError:
            raise
        except Exception as error:
            what = f"the unmodified model cannot be measured: {type(error).__name__}: {error}"
            raise BadInput(what, key="baseline") from error
        return metrics

    def recall(self) -> None:
        """Learn what a user's functions return, where the baseline is known already."""
        self.baseline()

    def cheap_metrics(self, config: Config | None) -> dict[str, float]:
        """The metrics that need no model; None: those of the unmodified one."""
        return measure(self._cheap_for(config), self._candidate(config))

    def _candidate(self, config: Config | None) -> Candidate:
        """What a configuration means; that of the last one is kept."""
        if self._last is None or self._last[0] is not config:
            known = (
                Candidate({}, None)
                if config is None
                else Candidate(self._space.formats(config), None, 0, self._space.sparsity(config))
            )
            self._last = (config, known)
        return self._last[1]

    def _cheap_for(self, config: Config | None) -> Sequence[Runner]:
        """The runners that need no model, on the shapes of a configuration."""
        if config is None or not self._space.changes_shapes:
            return self._cheap
        graph = self._space.graph(config)
        if id(graph) not in self._shaped:
            self._shaped[id(graph)] = (graph, [runner.on(graph) for runner in self._cheap])
            if len(self._shaped) > _KEPT_SHAPES:
                self._shaped.popitem(last=False)
        return self._shaped[id(graph)][1]

    def _evaluate(self, config: Config, bar: Bar | None) -> Outcome:
        metrics = self.cheap_metrics(config)
        if self._violation(metrics) > 0:
            return Outcome("infeasible", metrics)
        metrics.update(self._run(config, self.seed_of(config)))
        return Outcome("infeasible" if self._violation(metrics) > 0 else "complete", metrics)

    def _run(self, config: Config | None, seed: int) -> dict[str, float]:
        model = self._space.apply(self._model, config)
        if self._restorer is None and self._eval_mode:  # the fast path: nothing to put back
            seed_everything(seed)
            return measure(self._expensive, replace(self._candidate(config), model=model, seed=seed))
        with self._as_it_was(model) as model:
            seed_everything(seed)
            with nullcontext() if self._eval_mode else _training_mode(model):
                return measure(self._expensive, replace(self._candidate(config), model=model, seed=seed))

    @contextmanager
    def _as_it_was(self, model: nn.Module) -> Iterator[nn.Module]:
        """The model, to be changed in the block by runners that may: nothing of that is left after it."""
        if self._restorer is None:
            yield model
        elif model is not self._model:  # of another shape, and soon forgotten
            yield copy.deepcopy(model)
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
