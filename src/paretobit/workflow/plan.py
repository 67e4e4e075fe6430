"""What a search would do, without doing it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from paretobit.graph.copies import copy_of
from paretobit.passes.analysis import cost
from paretobit.runtime import one_thread, seeded
from paretobit.session.session import Session
from paretobit.spaces.knobs import Config, Tree, Value
from paretobit.training import fit
from paretobit.trials.pipeline.pipeline import Pipeline
from paretobit.trials.steps import TRAINS, TrainingStep
from paretobit.wanted.objectives import Metrics

_LOOKED_AT = 4096
_TIMED = 3
_BATCHES = 4


@dataclass(frozen=True)
class Plan:
    """What is known before the first trial.

    Attributes:
        configurations: Size of the space.
        knobs: Name of each knob and its values.
        dropped: Knobs without effect, and why.
        impossible: How many combinations cannot be, and why; empty where all can.
        matched: Layers the space varies.
        unmatched: Layers it leaves alone.
        ranges: Smallest and largest value of every metric that needs no model.
        baseline: Those metrics of the float model.
        seconds_per_trial: Median of a few evaluations of the float model.
        untraced: What the graph lacks, and why.
        uncounted: Operations whose cost is not known.
        notes: What stays in float, what is not counted, and what depends on the number of rows.
    """

    configurations: int
    trials: int
    strategy: str
    knobs: Mapping[str, tuple[object, ...]]
    dropped: Mapping[str, str]
    impossible: str
    matched: tuple[str, ...]
    unmatched: tuple[str, ...]
    ranges: Mapping[str, tuple[float, float]]
    baseline: Mapping[str, float]
    seconds_per_trial: float
    trains: bool
    untraced: str | None
    uncounted: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Estimated time of all trials."""
        return self.trials * self.seconds_per_trial


def plan(session: Session) -> Plan:
    """Look at a search without running it; three evaluations of the float model set the pace."""
    space, graph = session.space, session.evidence.graph
    bench = session.make_bench()
    with one_thread(), seeded(session.seed):
        times, baseline = [], bench.cheap_metrics(None)
        for _ in range(_TIMED):
            start = time.perf_counter()
            if session.pipeline is None:
                bench.baseline()
            times.append(time.perf_counter() - start)
        training = 0.0 if session.pipeline is None else seconds_of_training(session.pipeline)
    names = tuple(bench.cheap_metrics(space.tree.at(0)))
    exhaustive = session.strategy == "brute_force"
    return Plan(
        configurations=space.tree.size,
        trials=min(session.n_trials, space.tree.size) if exhaustive else session.n_trials,
        strategy=session.strategy,
        knobs={knob.name: knob.values for knob in space.tree.all_knobs()},
        dropped={dropped.knob: dropped.reason for dropped in space.dropped},
        impossible=space.impossible,
        matched=space.matched,
        unmatched=space.unmatched,
        ranges=extremes(space.tree, bench.cheap_metrics),
        baseline={name: baseline[name] for name in names},
        seconds_per_trial=sorted(times)[_TIMED // 2] + training,
        trains=session.pipeline is not None,
        untraced=graph.untraced,
        uncounted=cost(graph).uncounted if graph.batch is not None else (),
        notes=session.coverage.said,
    )


def seconds_of_training(pipeline: Pipeline) -> float:
    """Estimated time of the epochs of a trial: a few batches of each step that trains are tried out."""
    x, y = pipeline.evidence.split("train")
    val = pipeline.evidence.splits.get("val")
    loss = None if pipeline.evidence.calibration is None else pipeline.evidence.calibration.loss
    seconds = 0.0
    for step in pipeline.settings.steps:
        if step not in TRAINS:
            continue
        settings: TrainingStep = getattr(pipeline.settings, step)
        rows = min(len(x), _BATCHES * settings.batch_size)
        short = settings.plain.model_copy(update={"max_epochs": 1, "early_stopping": None, "learned_scales": False})
        start = time.perf_counter()
        fit(copy_of(pipeline.evidence.graph.model), (x[:rows], y[:rows]), val, short, loss=loss)
        seconds += (time.perf_counter() - start) * settings.max_epochs * len(x) / rows
    return seconds


def extremes(tree: Tree, measure: Callable[[Config], Metrics]) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of every metric over a tree.

    Each top-level knob is varied alone and the best options are put together: exact for metrics
    that a knob moves in one direction whatever the others say, as costs do. Of a knob with more than
    4,096 configurations below it, so many are looked at.
    """
    parts = [Tree((knob,)) for knob in tree.knobs]
    start = [dict(part.at(0)) for part in parts]
    lowest: dict[str, list[tuple[float, dict[str, Value]]]] = {}
    highest: dict[str, list[tuple[float, dict[str, Value]]]] = {}
    for i, part in enumerate(parts):
        for index in range(0, part.size, -(-part.size // _LOOKED_AT)):
            option = dict(part.at(index))
            for name, value in measure(_joined([*start[:i], option, *start[i + 1 :]])).items():
                _keep(lowest.setdefault(name, []), i, value, option)
                _keep(highest.setdefault(name, []), i, -value, option)

    def combined(best: Mapping[str, list[tuple[float, dict[str, Value]]]], name: str) -> float:
        return measure(_joined([option for _, option in best[name]]))[name]

    return {name: (combined(lowest, name), combined(highest, name)) for name in lowest}


def _keep(best: list[tuple[float, dict[str, Value]]], i: int, value: float, option: dict[str, Value]) -> None:
    if len(best) == i:
        best.append((value, option))
    elif value < best[i][0]:
        best[i] = (value, option)


def _joined(parts: Sequence[Mapping[str, Value]]) -> Config:
    return Config({name: value for part in parts for name, value in part.items()})
