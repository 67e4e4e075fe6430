"""How a search goes on: the best so far, the error, and the hypervolume, against the number of the trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paretobit.errors import BadInput
from paretobit.report.families import family_by_trial
from paretobit.report.figures import style
from paretobit.report.figures.bands import Curve, draw_curves, last, quartiles
from paretobit.report.figures.registry import Asked, figure
from paretobit.report.metrics import baseline_value, measured, metrics_of, objective_label, objective_of
from paretobit.report.runs import Runs
from paretobit.report.tables import cell
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial
from paretobit.wanted.front import Front
from paretobit.wanted.hypervolume import hypervolume as volume_of
from paretobit.wanted.objectives import Objective

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRIAL = "trial [number]"
_CHECKPOINTS = 50
"""Beyond two objectives a volume takes time: so many are computed along a search."""


@figure("running_best", takes=("metric",), several=True)
def running_best(runs: Runs, asked: Asked) -> style.Picture:
    """The best value so far against the trial: one run with its trials, or one line per sampler."""
    objective = objective_of(runs.study, asked.metric)
    _require_values(runs, objective)
    if len(runs) == 1:
        return one_run_picture(runs.study, objective)
    curves = _curves(runs, lambda study: best_so_far(study, objective))
    better = max if objective.direction == "maximize" else min
    reading = _compare(curves, objective.label.replace("_", " "), better)
    return _overlay(curves, objective_label(runs.study, objective), reading, runs, objective)


@figure("running_best_by_format", takes=("metric",))
def running_best_by_format(runs: Runs, asked: Asked) -> style.Picture:
    """The best value so far of each format family of one search, against the trial."""
    study = runs.study
    objective = objective_of(study, asked.metric)
    _require_values(runs, objective)
    families = family_by_trial(study)
    if len(set(families)) < 2:
        raise BadInput(f"all trials are of one family of formats: {families[0]}")
    curves = {
        family: [best_so_far(study, objective, [other == family for other in families])]
        for family in dict.fromkeys(families)
    }
    curves = {family: group for family, group in curves.items() if math.isfinite(last(group[0]))}
    better = max if objective.direction == "maximize" else min
    reading = _compare(curves, objective.label.replace("_", " "), better)
    return _overlay(curves, objective_label(study, objective), reading, runs, objective)


@figure("error", takes=("metric",), several=True)
def error(runs: Runs, asked: Asked) -> style.Picture:
    """The error (1 - accuracy) against the trial, with the smallest so far."""
    metric = _share(runs, asked.metric)
    objective = Objective.of(metric, "maximize")
    _require_values(runs, objective)
    curves = _curves(runs, lambda study: [1 - value for value in best_so_far(study, objective)])
    label = f"error [1 - {metric.replace('_', ' ')}]"
    if len(runs) > 1:
        return _overlay(curves, f"smallest {label} so far", _compare(curves, "error", min), runs, objective, 1.0)
    study = runs.study
    trials = measured(study.trials, objective)
    errors = [1 - trial.metrics[metric] for trial in trials]
    return _scatter(study, trials, errors, curves, label, baseline_value(study, objective), 1.0)


@figure("hypervolume", several=True)
def hypervolume(runs: Runs, asked: Asked) -> style.Picture:
    """The share of the objectives' range that the front so far dominates, against the trial."""
    objectives = runs.study.objectives
    if len(objectives) < 2:
        raise BadInput("one objective has no hypervolume: 'running_best' shows it")
    scales = [_scale(runs, objective) for objective in objectives]
    curves = _curves(runs, lambda study: volumes(study, scales))
    flat = [o.label for o, scale in zip(objectives, scales, strict=True) if scale.high == scale.low]
    if flat:
        raise BadInput(f"all trials have the same {' and '.join(flat)}: there is no volume")
    logs = [o.label for o, scale in zip(objectives, scales, strict=True) if scale.log]
    reading = _compare(curves, "hypervolume", max)
    reading += " Each objective runs from the worst to the best value of any trial shown"
    reading += f"; of {' and '.join(logs)} the logarithm counts." if logs else "."
    return _overlay(curves, "hypervolume [share of the range of all trials]", reading, runs, None)


def draw_best_error(studies: Mapping[str, Study], path: str | Path, metric: str = "accuracy") -> None:
    """Smallest error (1 - metric) so far against the trial, one line a study.

    Args:
        studies: Label to study.
        path: PNG or SVG by its suffix.
        metric: A share in [0, 1].
    """
    objective = Objective.of(metric, "maximize")
    curves = {label: [[1 - v for v in best_so_far(study, objective)]] for label, study in studies.items()}

    def paint(canvas: Figure) -> None:
        axes = canvas.subplots()
        draw_curves(axes, curves, first=0, steps=True)
        axes.set_xlabel(TRIAL)
        axes.set_ylabel(f"smallest error so far [1 - {metric}]")
        style.finish(canvas)

    style.save(style.Picture(_compare(curves, "error", min), paint), path)


def best_so_far(study: Study, objective: Objective, counts: Sequence[bool] | None = None) -> list[float]:
    """The best value of the feasible trials up to each one; NaN before the first.

    Args:
        study: Where the trials are.
        objective: What is best.
        counts: Whether each trial counts; unset: all do.
    """
    better = max if objective.direction == "maximize" else min
    counted = {t.number for t in measured(study.trials, objective) if counts is None or counts[t.number]}
    best: list[float] = []
    for trial in study.trials:
        before = best[-1] if best else math.nan
        if trial.number not in counted:
            best.append(before)
        else:
            value = objective.value(trial.metrics)
            best.append(value if math.isnan(before) else better(before, value))
    return best


def one_run_picture(study: Study, objective: Objective) -> style.Picture:
    """The trials of one run in order, the best so far, and the baseline."""
    trials = measured(study.trials, objective)
    values = [objective.value(trial.metrics) for trial in trials]
    curves = {"best so far": [best_so_far(study, objective)]}
    label = objective_label(study, objective)
    return _scatter(study, trials, values, curves, label, baseline_value(study, objective), None)


class AxisScale:
    """An objective's losses mapped to [0, 1], 0 the best seen anywhere; logarithms where they span decades."""

    def __init__(self, objective: Objective, losses: Sequence[float]) -> None:
        self.objective = objective
        self.log = style.wants_log(losses)
        mapped = [self._map(loss) for loss in losses]
        self.low, self.high = min(mapped, default=0.0), max(mapped, default=0.0)

    def share(self, trial: Trial) -> float:
        """Where a trial lies, in [0, 1]."""
        return (self._map(self.objective.loss(trial.metrics)) - self.low) / (self.high - self.low)

    def _map(self, loss: float) -> float:
        return math.log10(loss) if self.log else loss


def volumes(study: Study, scales: Sequence[AxisScale]) -> list[float]:
    """The hypervolume of the scaled objectives after each trial, against the corner (1, 1, ...)."""
    if any(scale.high == scale.low for scale in scales):
        return [math.nan] * len(study)
    counted = {t.number for t in _with_all(study, [scale.objective for scale in scales])}
    steps = len(study) if len(scales) == 2 else _CHECKPOINTS
    every = max(1, len(study) // steps)
    front, found, changed = Front(), list[float](), False
    for trial in study.trials:
        if trial.number in counted:
            point = tuple(scale.share(trial) for scale in scales)
            changed = (point not in front and front.add(point)) or changed
        due = (trial.number + 1) % every == 0 or trial.number == len(study) - 1
        if changed and due:
            found.append(volume_of(front.points, [1.0] * len(scales)))
            changed = False
        else:
            found.append(found[-1] if found else 0.0)
    return found


def _scale(runs: Runs, objective: Objective) -> AxisScale:
    trials = [t for study in runs.studies.values() for t in _with_all(study, study.objectives)]
    return AxisScale(objective, [objective.loss(trial.metrics) for trial in trials])


def _with_all(study: Study, objectives: Sequence[Objective]) -> list[Trial]:
    trials = list(study.trials)
    for objective in objectives:
        trials = measured(trials, objective)
    return trials


def _curves(runs: Runs, curve: Callable[[Study], Curve]) -> dict[str, list[Curve]]:
    return {label: [curve(run.study) for run in group if run.study] for label, group in runs.groups.items()}


def _require_values(runs: Runs, objective: Objective) -> None:
    for label, study in runs.studies.items():
        if not measured(study.trials, objective):
            raise BadInput(f"no feasible trial of '{label}' has a finite {objective.label}")


def _share(runs: Runs, metric: str | None) -> str:
    """The metric that an error is taken of."""
    study = runs.study
    name = objective_of(study, metric).label if metric is not None else "accuracy"
    if metric is None and name not in metrics_of(study):
        name = study.objectives[0].label if study.objectives else name
    values = [t.metrics[name] for t in study.trials if name in t.metrics]
    direction = study.facts.get("metrics", {}).get(name, {}).get("direction", "maximize")
    if not values or direction != "maximize" or not all(0 <= value <= 1 for value in values):
        raise BadInput(f"{name} is not a share in [0, 1] to be maximised: it has no error")
    return name


def _overlay(
    curves: Mapping[str, Sequence[Curve]],
    label: str,
    reading: str,
    runs: Runs,
    objective: Objective | None,
    error_of: float | None = None,
) -> style.Picture:
    """Several lines against the trial; the baseline where all runs share it."""
    floats = {baseline_value(study, objective) for study in runs.studies.values()} if objective else {None}
    finals = [value for group in curves.values() for curve in group for value in curve if math.isfinite(value)]

    def paint(canvas: Figure) -> None:
        axes = canvas.subplots()
        draw_curves(axes, curves, first=0, steps=True)
        if len(floats) == 1 and (value := next(iter(floats))) is not None:
            style.reference(axes, value if error_of is None else error_of - value, finals, "float baseline")
        axes.set_xlabel(TRIAL)
        axes.set_ylabel(label)
        style.finish(canvas)

    return style.Picture(reading, paint)


def _scatter(
    study: Study,
    trials: Sequence[Trial],
    values: Sequence[float],
    curves: Mapping[str, Sequence[Curve]],
    label: str,
    baseline: float | None,
    error_of: float | None,
) -> style.Picture:
    """One run: every trial a dot, the best so far a line."""
    (group,) = curves.values()
    best = last(group[0])
    float_value = None if baseline is None else baseline if error_of is None else error_of - baseline

    def paint(canvas: Figure) -> None:
        axes = canvas.subplots()
        style.points(axes, [t.number for t in trials], values, "o", color=style.GREY, markersize=4, label="trials")
        draw_curves(axes, {"best so far": group}, first=0, steps=True)
        if float_value is not None:
            style.reference(axes, float_value, values, "float baseline")
        axes.set_xlabel(TRIAL)
        axes.set_ylabel(label)
        style.finish(canvas)

    if not trials:
        return style.Picture("No trial is feasible.", paint)
    number = next(t.number for t, value in zip(trials, values, strict=True) if value == best)
    reading = f"The best {label.partition(' [')[0]}, {cell(best)}, was reached by trial {number} of {len(study)}"
    reading += f"; the float model has {cell(float_value)}." if float_value is not None else "."
    return style.Picture(reading, paint)


def _compare(curves: Mapping[str, Sequence[Curve]], what: str, better: Callable[..., float]) -> str:
    """Where every line ends and when it got there, the best first."""
    ends: list[tuple[float, str]] = []
    for label, group in curves.items():
        middle = quartiles(group)[1]
        end = last(middle)
        if math.isfinite(end):
            kind = "a median of " if len(group) > 1 else ""
            at = next(i for i, value in enumerate(middle) if value == end)
            ends.append((end, f"{label} {kind}{cell(end)} at trial {at}"))
        else:
            ends.append((math.nan, f"{label} none"))
    known = sorted((e for e in ends if math.isfinite(e[0])), key=lambda e: e[0], reverse=better is max)
    told = [text for _, text in known] + [text for end, text in ends if not math.isfinite(end)]
    lengths = {len(curve) for group in curves.values() if len(group) > 1 for curve in group}
    note = " Runs of one band are compared up to the shortest." if len(lengths) > 1 else ""
    return f"Best {what} reached: {'; '.join(told)}.{note}"
