"""Metrics against knobs: lines over one knob, and heatmaps over two."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from paretobit.errors import BadInput
from paretobit.report.figures import style
from paretobit.report.figures.registry import Asked, figure
from paretobit.report.knob_columns import ABSENT, KnobColumn, is_numeric, knob_named, short, values_of, varying
from paretobit.report.metrics import baseline_value, label_of, measured, metrics_of, objective_label, objective_of
from paretobit.report.runs import Runs
from paretobit.report.tables import cell
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial
from paretobit.wanted.objectives import Objective

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cells = dict[tuple[bool, Any], list[float]]
"""Values of a metric by the value of a knob."""
_MOST_LINES, _MOST_NUMBERED, _PANELS, _COLUMNS = 12, 12, 6, 3
_WIDE_TEXT, _MOST_INCHES = 24, 9.0
_ENOUGH = 2000
"""Trials that are looked at to choose knobs where none are asked for."""


@figure("knob", takes=("metric", "knob", "by"), several=True)
def knob(runs: Runs, asked: Asked) -> style.Picture:
    """A metric against a knob: medians, a line per value of a second knob or per run, and trials as dots."""
    if len(runs) > 1:
        return _of_several(runs, asked)
    study = runs.study
    objective = objective_of(study, asked.metric)
    trials = measured(study.trials, objective)
    across, by = _two_knobs(trials, study, asked)
    used = _with_value(trials, across, by)
    lines = _lines_by(used, across, by, objective)
    values = values_of(across, used)
    reading = _knob_reading(across, by, objective, used, len(trials))
    return _lines_picture(study, objective, across, values, lines, reading, baseline_value(study, objective))


def _of_several(runs: Runs, asked: Asked) -> style.Picture:
    """One line per group of runs that differ in their seed alone, over a knob that all of them have."""
    if asked.by is not None:
        raise BadInput("several runs are a line each: there is no second knob", key="by", found=asked.by)
    objective = objective_of(runs.study, asked.metric)
    first = _two_knobs(measured(runs.study.trials, objective), runs.study, replace(asked, by=None))[0]
    lines: dict[str, Cells] = {}
    told, used = [], []
    for label, group in runs.groups.items():
        studies = [run.study for run in group if run.study is not None]
        across = knob_named(studies[0], first.name)
        own = [t for study in studies for t in _with_value(measured(study.trials, objective), across)]
        if not own:
            raise BadInput(f"no feasible trial of '{label}' has a value of '{first.name}'", key="knob")
        lines |= _lines_by(own, across, None, objective, label)
        told.append(f"{label}: {_knob_reading(across, None, objective, own, len(own))}")
        used += own
    return _lines_picture(runs.study, objective, first, values_of(first, used), lines, " ".join(told), None)


@figure("stages", takes=("metric", "knob", "by"))
def stages(runs: Runs, asked: Asked) -> style.Picture:
    """A metric after each step of the trials that was evaluated, and at their end, against a knob."""
    study = runs.study
    final = objective_of(study, asked.metric)
    labels = _stages_of(study, final.label)
    trials = measured(study.trials, final)
    across, second = _two_knobs(trials, study, asked)
    by = second if asked.by else None
    used = _with_value(trials, across, by)
    lines: dict[str, Cells] = {}
    for metric, label in labels.items():
        lines |= _lines_by(used, across, by, objective_of(study, metric), label)
    told = []
    for label, cells in lines.items():
        (low, first), *_, (high, end) = cells.items()
        ends = f"{cell(statistics.median(first))} at {short(low[1])}", f"{cell(statistics.median(end))} at"
        told.append(f"{label} {ends[0]} and {ends[1]} {short(high[1])}")
    reading = f"Medians of {final.label} over {across.name}: {'; '.join(told)}."
    values = values_of(across, used)
    return _lines_picture(study, final, across, values, lines, reading, baseline_value(study, final))


def _stages_of(study: Study, metric: str) -> dict[str, str]:
    """Metrics of the stages of a trial, in order, to what a line of theirs is called.

    Raises:
        BadInput: The trials were only evaluated at their end.
    """
    known = metrics_of(study)
    after = {m: f"after {m.removeprefix(f'{metric}_after_')}" for m in known if m.startswith(f"{metric}_after_")}
    control = {m: "control: trained as long, not compressed" for m in known if m == f"{metric}_control"}
    if not after and not control:
        raise BadInput(f"{metric} was measured at the end of the trials alone", key="metric", found=metric)
    return {**after, metric: "at the end", **control}


def _lines_by(
    used: list[Trial], across: KnobColumn, by: KnobColumn | None, objective: Objective, name: str | None = None
) -> dict[str, Cells]:
    """Label to the values of a metric at each value of a knob: one line, or one per value of a second knob.

    Raises:
        BadInput: More lines than can be told apart.
    """
    kinds = values_of(by, used) if by else [None]
    if len(kinds) > _MOST_LINES:
        text = f"'{by.name if by else ''}' has {len(kinds)} values: too many lines to tell apart"
        raise BadInput(text, key="by")
    cells, lines = _grouped(used, across, by, objective), {}
    for kind in kinds:
        own = f"{by.title} = {short(kind)}" if by else None
        label = ", ".join(part for part in (name, own) if part) or "median"
        places = map(_hashed, values_of(across, used))
        lines[label] = {v: cells[v, _hashed(kind)] for v in places if (v, _hashed(kind)) in cells}
    return lines


def _lines_picture(
    study: Study,
    objective: Objective,
    across: KnobColumn,
    values: Sequence[Any],
    lines: Mapping[str, Cells],
    reading: str,
    float_value: float | None,
) -> style.Picture:
    """Medians as lines over a knob, everything behind them as dots."""
    places = _places(values)

    def paint(canvas: Figure) -> None:
        axes = canvas.subplots()
        pairs = [(places[v], value) for cells in lines.values() for v, found in cells.items() for value in found]
        xs, every = [x for x, _ in pairs], [value for _, value in pairs]
        style.points(axes, xs, every, "o", color=style.GREY, markersize=3, alpha=0.7, label="trials")
        for i, (label, cells) in enumerate(lines.items()):
            medians = [statistics.median(found) for found in cells.values()]
            look = style.line(i)
            axes.plot([places[v] for v in cells], medians, **look, marker=style.marker(i), label=label)
        if float_value is not None:
            style.reference(axes, float_value, every, "float baseline")
        _knob_axis(axes, values, places)
        if style.wants_log(every):
            axes.set_yscale("log")
        axes.set_xlabel(across.label)
        axes.set_ylabel(objective_label(study, objective))
        style.finish(canvas)

    return style.Picture(reading, paint)


@figure("heatmap", takes=("metric", "knob", "by"))
def heatmap(runs: Runs, asked: Asked) -> style.Picture:
    """Heatmaps of two knobs, data width × weight width for one: a panel per metric."""
    study = runs.study
    objectives = [objective_of(study, name) for name in ([asked.metric] if asked.metric else metrics_of(study))]
    objectives = [o for o in objectives if len({o.value(t.metrics) for t in measured(study.trials, o)}) > 1]
    if not objectives:
        raise BadInput("no metric differs between feasible trials")
    trials = measured(study.trials, objectives[0])
    across, down = _two_knobs(trials, study, asked)
    if down is None:
        raise BadInput("a heatmap takes two knobs that vary, and there is one", key="by", found=across.name)
    used = _with_value(trials, across, down)
    xs, ys = values_of(across, used), values_of(down, used)
    shown = objectives[:_PANELS]
    columns = min(len(shown), _COLUMNS)
    rows = -(-len(shown) // columns)

    def paint(canvas: Figure) -> None:
        grid = canvas.subplots(rows, columns, squeeze=False).flatten()
        for axes, objective in zip(grid, shown, strict=False):
            _heat(axes, study, objective, _grouped(used, across, down, objective), xs, ys)
            axes.set_xlabel(across.label)
            axes.set_ylabel(down.label)
        for axes in grid[len(shown) :]:
            axes.remove()
        style.finish(canvas, grid=False)

    wide = max(3.0, 0.62 * len(xs) + 2.0, 0.09 * len(short(xs[0])) * len(xs))
    tall = max(2.6, 0.42 * len(ys) + 1.2)
    reading = _heat_reading(across, down, shown[0], used, len(trials))
    left_out = [o.label for o in objectives[_PANELS:]]
    if left_out:
        reading += f" Not drawn here, to be asked for one at a time: {', '.join(left_out)}."
    return style.Picture(reading, paint, (min(wide, _MOST_INCHES) * columns, min(tall, _MOST_INCHES) * rows))


def _heat(
    axes: Axes, study: Study, objective: Objective, cells: dict[Any, list[float]], xs: list[Any], ys: list[Any]
) -> None:
    """One panel: the median of each cell's trials, written into it where there is room; empty cells blank."""
    import numpy as np
    from matplotlib.colors import LogNorm

    table = np.full((len(ys), len(xs)), np.nan)
    for i, y in enumerate(ys):
        for j, x in enumerate(xs):
            if (_hashed(x), _hashed(y)) in cells:
                table[i, j] = statistics.median(cells[_hashed(x), _hashed(y)])
    norm = LogNorm() if style.wants_log(table[np.isfinite(table)].tolist()) else None
    image = axes.imshow(table, origin="lower", aspect="auto", cmap=style.SHADES, norm=norm)
    axes.set_title(label_of(study, objective.label).replace(" [", "\n["), fontsize=10)
    axes.set_xticks(range(len(xs)), map(short, xs), rotation=_rotation(xs))
    axes.set_yticks(range(len(ys)), map(short, ys))
    bar = axes.figure.colorbar(image, ax=axes, format=lambda value, _: style.brief(value))
    if norm is not None:
        bar.set_ticks(np.geomspace(np.nanmin(table), np.nanmax(table), 4).tolist())
        bar.minorticks_off()
    if max(table.shape) > _MOST_NUMBERED:
        return
    for (i, j), value in np.ndenumerate(table):
        if np.isfinite(value):
            colour = style.ink(image.norm, value)
            axes.text(j, i, style.brief(value), ha="center", va="center", color=colour, fontsize=8)


def _two_knobs(trials: Sequence[Trial], study: Study, asked: Asked) -> tuple[KnobColumn, KnobColumn | None]:
    """The knobs that are asked for; unset: data and weights where both vary, else the first two that do.

    Raises:
        BadInput: No knob varies, or what is asked for does not vary together in feasible trials.
    """
    first = knob_named(study, asked.knob) if asked.knob else None
    second = knob_named(study, asked.by, "by") if asked.by else None
    some = trials[:: max(1, len(trials) // _ENOUGH)]
    choices = [k for k in varying(study, some) if 2 * len(_with_value(some, k)) >= len(some)]
    if first is None and second is None:
        first, second = _usual_pair(choices, some)
    first = first or _first_of(choices, "data_in", second, some)
    if first is None:
        raise BadInput("no knob takes two values in feasible trials", key="knob")
    second = second or _first_of(choices, "weight", first, some)
    used = _with_value(trials, first, second)
    for key, one in (("knob", first), ("by", second)):
        if one is not None and len(values_of(one, used)) < 2:
            values = [short(value) for value in values_of(one, used)]
            told = f"'{one.name}' does not vary in the {len(used)} feasible trials that have a value to draw"
            raise BadInput(told, key=key, found=values)
    return first, second


def _usual_pair(choices: Sequence[KnobColumn], trials: Sequence[Trial]) -> tuple[KnobColumn | None, KnobColumn | None]:
    """Data and weights of all layers, where most trials treat them alike; else those of one layer."""
    for tied in (True, False):
        group = [knob for knob in choices if (len(knob.members) > 1) is tied]
        first = _first_of(group, "data_in", None, trials)
        second = _first_of(group, "weight", first, trials) if first else None
        if not tied or (first and second and 2 * len(_with_value(trials, first, second)) >= len(trials)):
            return first, second
    return None, None


def _with_value(trials: Sequence[Trial], *knobs: KnobColumn | None) -> list[Trial]:
    """The trials in which every knob has a value."""
    return [t for t in trials if all(knob is None or knob.value(t) is not ABSENT for knob in knobs)]


def _first_of(
    choices: Sequence[KnobColumn], slot: str, other: KnobColumn | None, trials: Sequence[Trial]
) -> KnobColumn | None:
    """The first knob of a slot's width or whole format, of anything of the slot, of anything else.

    Args:
        choices: To choose from.
        slot: `data_in` or `weight`.
        other: The knob that is chosen already.
        trials: Trials in which both shall vary.
    """

    def rank(knob: KnobColumn) -> tuple[bool, bool, bool]:
        alike = other is not None and len(knob.members) == len(other.members)
        return not knob.ending.startswith(slot), knob.ending not in (slot, f"{slot}_width"), not alike

    def both_vary(knob: KnobColumn) -> bool:
        used = _with_value(trials, knob, other)
        return all(one is None or len(values_of(one, used)) > 1 for one in (knob, other))

    free = [knob for knob in choices if not (other and set(knob.members) & set(other.members))]
    return next(filter(both_vary, sorted(free, key=rank)), None)


def _grouped(
    trials: Sequence[Trial], across: KnobColumn, by: KnobColumn | None, objective: Objective
) -> dict[tuple[Any, Any], list[float]]:
    """Values of a metric by the values of both knobs."""
    cells: dict[tuple[Any, Any], list[float]] = {}
    for trial in measured(trials, objective):
        key = (_hashed(across.value(trial)), _hashed(by.value(trial) if by else None))
        cells.setdefault(key, []).append(objective.value(trial.metrics))
    return cells


def _hashed(value: Any) -> tuple[bool, Any]:
    """A key under which `True` and 1 differ."""
    return isinstance(value, bool), value


def _places(values: Sequence[Any]) -> dict[tuple[bool, Any], float]:
    """Where a value stands on the axis: a number at itself, anything else at its rank."""
    numeric = is_numeric(values)
    return {_hashed(value): float(value) if numeric else float(i) for i, value in enumerate(values)}


def _knob_axis(axes: Axes, values: Sequence[Any], places: dict[tuple[bool, Any], float]) -> None:
    """A tick at every value; a logarithmic axis where numbers grow by factors."""
    if is_numeric(values) and _grows_by_factors(values):
        axes.set_xscale("log", base=2)
        axes.minorticks_off()
    axes.set_xticks([places[_hashed(v)] for v in values], map(short, values), rotation=_rotation(values))


def _grows_by_factors(values: Sequence[float]) -> bool:
    """Whether positive numbers, ascending, lie more evenly on a logarithmic axis: 2, 4, 8, 16."""
    steps = [b - a for a, b in itertools.pairwise(values)]
    return len(values) > 2 and values[0] > 0 and steps[-1] >= 3 * steps[0]


def _rotation(values: Sequence[Any]) -> int:
    return 30 if sum(len(short(value)) for value in values) > _WIDE_TEXT else 0


def _knob_reading(across: KnobColumn, by: KnobColumn | None, objective: Objective, used: list[Trial], of: int) -> str:
    """What the knob does to the median, and how many trials say so."""
    cells = {
        v: statistics.median(objective.value(t.metrics) for t in used if across.value(t) == v)
        for v in values_of(across, used)
    }
    (first, low), *_, (final, high) = cells.items()
    name = objective.label.replace("_", " ")
    text = f"The median {name} is {cell(low)} at {across.name} = {short(first)} and {cell(high)} at {short(final)}"
    return f"{text}, {_share_of(used, of, across, by)}."


def _heat_reading(across: KnobColumn, down: KnobColumn, objective: Objective, used: list[Trial], of: int) -> str:
    """The best cell of the first panel, and which knob moves it more."""
    cells = _grouped(used, across, down, objective)
    better = max if objective.direction == "maximize" else min
    (x, y), values = better(cells.items(), key=lambda item: statistics.median(item[1]))
    name = objective.label.replace("_", " ")
    spans = {}
    for one in (across, down):
        medians = [
            statistics.median(objective.value(t.metrics) for t in used if one.value(t) == v)
            for v in values_of(one, used)
        ]
        spans[one.name] = max(medians) - min(medians)
    more, less = sorted(spans, key=lambda n: -spans[n])
    text = f"The best median {name}, {cell(statistics.median(values))}, is at {across.name} = {short(x[1])} and "
    text += f"{down.name} = {short(y[1])}; {more} moves the median by {cell(spans[more])}, {less} by "
    return f"{text}{cell(spans[less])}, {_share_of(used, of, across, down)}."


def _share_of(used: list[Trial], of: int, *knobs: KnobColumn | None) -> str:
    """How many trials the picture rests on, and why the others are missing."""
    if len(used) == of:
        return f"over all {of} feasible trials"
    tied = any(k is not None and len(k.members) > 1 for k in knobs)
    why = "that give all layers the same value" if tied else "in which the knob is active"
    return f"over the {len(used)} of {of} feasible trials {why}"
