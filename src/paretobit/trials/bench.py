"""The bench: turns a configuration into metrics, and knows nothing of what is wanted."""

import traceback
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from paretobit.errors import BadInput, MetricError, ParetoBitError
from paretobit.graph import ModelGraph
from paretobit.graph.copies import copy_of
from paretobit.runtime import derive_seed
from paretobit.spaces import BoundSpace
from paretobit.spaces.knobs import Config
from paretobit.studies.trial import State
from paretobit.trials.applied import Applied
from paretobit.trials.halving import Bar
from paretobit.trials.outcome import Outcome, measure
from paretobit.trials.pipeline.pipeline import Pipeline
from paretobit.trials.pipeline.trained import Trained
from paretobit.trials.runners import Candidate, Runner
from paretobit.wanted.wanted import Judge, nothing_wanted

_KEPT_SHAPES = 8


class Bench:
    """Evaluates configurations, one after the other; none leaves a trace.

    Every evaluation seeds the global generators; whoever runs it puts their states back.

    Args:
        space: What varies, over the model.
        runners: What to measure; those that need no model run first.
        seed: The study's seed.
        eval_mode: False measures in training mode; running statistics are put back afterwards.
        pipeline: The steps of a trial, where trials train; None: configurations are set on the model as it is.
    """

    def __init__(
        self,
        space: BoundSpace,
        runners: Sequence[Runner],
        seed: int,
        eval_mode: bool = True,
        pipeline: Pipeline | None = None,
    ) -> None:
        self._space, self._seed = space, seed
        self._cheap = [runner for runner in runners if runner.cheap]
        self._expensive = [runner for runner in runners if not runner.cheap]
        self._way: Applied | Trained = (
            Applied(space, self._expensive, eval_mode) if pipeline is None else Trained(pipeline, self._cheap)
        )
        self._last: tuple[Config | None, Candidate] | None = None
        self._seeded: tuple[Config, int] | None = None
        self._shaped: OrderedDict[int, tuple[ModelGraph, list[Runner]]] = OrderedDict()

    def seed_of(self, config: Config) -> int:
        """The seed of a configuration's trial."""
        if self._seeded is None or self._seeded[0] is not config:
            self._seeded = (config, derive_seed(self._seed, list(config.items())))
        return self._seeded[1]

    def evaluate(self, config: Config, judge: Judge = nothing_wanted, bar: Bar | None = None) -> Outcome:
        """Measure a configuration. An exception becomes a failed outcome; interrupts pass through.

        Args:
            config: The configuration.
            judge: What metrics mean: a constraint that is broken ends the trial, objectives a training.
            bar: What a training is compared with while it runs.
        """
        try:
            return self._evaluate(config, judge, bar)
        except (Exception, SystemExit):
            return Outcome("failed", {}, traceback.format_exc())

    def baseline(self) -> Outcome:
        """The unmodified model, measured by the same code as every trial, and trained alike where trials train.

        Raises:
            BadInput: It cannot be measured.
            MetricError: A metric is missing, or not a number.
        """
        cheap = self.cheap_metrics(None)
        with _of_the_unmodified_model():
            seed = derive_seed(self._seed, "baseline")
            measured = self._way.run(None, self._candidate(None), cheap, seed, None, nothing_wanted)
        return Outcome("complete", {**cheap, **measured.metrics}, saved=measured.saved)

    def recall(self) -> None:
        """Learn what a user's functions return, where the baseline is known already: nothing is trained."""
        for runner in self._expensive:
            if runner.metrics_from_running:
                with _of_the_unmodified_model():
                    runner.measure(Candidate({}, copy_of(runner.evidence.graph.model).eval()))

    def cheap_metrics(self, config: Config | None) -> dict[str, float]:
        """The metrics that need no model; None: those of the unmodified one."""
        return measure(self._cheap_for(config), self._candidate(config))

    def _candidate(self, config: Config | None) -> Candidate:
        """What a configuration means; that of the last one is kept."""
        if self._last is None or self._last[0] is not config:
            known = Candidate({}, None)
            if config is not None:
                known = Candidate(self._space.formats(config), None, 0, partial(self._space.weights, config))
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

    def _evaluate(self, config: Config, judge: Judge, bar: Bar | None) -> Outcome:
        cheap = self.cheap_metrics(config)
        if judge(cheap).violation > 0:
            return Outcome("infeasible", cheap)
        measured = self._way.run(config, self._candidate(config), cheap, self.seed_of(config), bar, judge)
        if measured.ended:
            return Outcome("stopped", measured.metrics, curve=measured.curve)
        metrics = {**cheap, **measured.metrics}
        state: State = "infeasible" if judge(metrics).violation > 0 else "complete"
        return Outcome(state, metrics, None, measured.curve, measured.saved)


@contextmanager
def _of_the_unmodified_model() -> Iterator[None]:
    """Say of whatever goes wrong in the block that it was with the unmodified model."""
    try:
        yield
    except MetricError as error:
        raise MetricError(f"the unmodified model cannot be measured: {error}") from error
    except ParetoBitError:
        raise
    except Exception as error:
        what = f"the unmodified model cannot be measured: {type(error).__name__}: {error}"
        raise BadInput(what, key="baseline") from error
