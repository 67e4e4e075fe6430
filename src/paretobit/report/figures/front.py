"""The front: what each further objective costs in the first one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paretobit.errors import BadInput
from paretobit.report.figures import style
from paretobit.report.figures.progress import one_run_picture
from paretobit.report.figures.registry import Asked, figure
from paretobit.report.knob_columns import uniform_trials
from paretobit.report.metrics import baseline_value, measured, objective_label
from paretobit.report.runs import Runs
from paretobit.report.tables import cell
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial
from paretobit.wanted.objectives import Objective

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS, _NEAR = 3, 3.0


def draw_front(study: Study, path: str | Path) -> None:
    """The front with dominated trials, the baseline and uniform configurations; PNG or SVG by the suffix.

    With one objective the trials are drawn in order, with the running best.
    """
    one = len(study.objectives) == 1
    style.save(one_run_picture(study, study.objectives[0]) if one else front_picture(study), path)


@figure("front")
def front(runs: Runs, asked: Asked) -> style.Picture:
    """The front with dominated and infeasible trials, the float baseline, and uniform configurations."""
    study = runs.study
    if len(study.objectives) < 2:
        raise BadInput("one objective has no front: 'running_best' shows its trials")
    if not study.front():
        raise BadInput("no trial is feasible: the front is empty")
    return front_picture(study)


def front_picture(study: Study) -> style.Picture:
    """One panel for each objective after the first, against which it is drawn."""
    quality, *costs = study.objectives
    trials = study.trials
    uniform = uniform_trials(study, trials)
    panels = [_Panel(study, trials, uniform, quality, cost) for cost in costs]
    columns = min(len(panels), _PANELS)
    rows = -(-len(panels) // columns)

    def paint(canvas: Figure) -> None:
        grid = canvas.subplots(rows, columns, squeeze=False).flatten()
        for axes, panel in zip(grid, panels, strict=False):
            panel.draw(axes)
        for axes in grid[len(panels) :]:
            axes.remove()
        style.finish(canvas)

    size = (7.2, 4.8) if columns == 1 else (4.6 * columns, 4.3 * rows)
    return style.Picture(_reading(study, panels, uniform), paint, size)


@dataclass(frozen=True)
class _Panel:
    """Cost to the right, quality upwards."""

    study: Study
    all_trials: Sequence[Trial]
    all_uniform: Sequence[Trial]
    quality: Objective
    cost: Objective

    @cached_property
    def trials(self) -> list[Trial]:
        """Feasible trials with two finite values."""
        return measured(measured(self.all_trials, self.quality), self.cost)

    @cached_property
    def front(self) -> list[Trial]:
        """By cost, the cheapest first."""
        kept = {trial.number for trial in self.study.front()}
        found = [trial for trial in self.trials if trial.number in kept]
        return sorted(found, key=lambda t: (self.cost.value(t.metrics), self.quality.loss(t.metrics)))

    def draw(self, axes: Axes) -> None:
        """Trials, front, uniform configurations and baseline."""
        kept = {trial.number for trial in self.front}
        needed = {*self.quality.metrics, *self.cost.metrics}
        infeasible = [t for t in self.all_trials if t.state == "infeasible" and needed <= set(t.metrics)]
        dominated = [trial for trial in self.trials if trial.number not in kept]
        shown = {trial.number for trial in self.trials}
        uniform = [trial for trial in self.all_uniform if trial.number in shown]
        if infeasible:
            style.points(axes, *self.values(infeasible), "x", color="#8a8a8a", markersize=4, label="infeasible")
        if dominated:
            style.points(axes, *self.values(dominated), "o", color=style.GREY, markersize=4, label="dominated")
        self._draw_front(axes)
        if uniform:
            look: Any = {"markerfacecolor": "none", "markeredgecolor": style.BLACK, "markeredgewidth": 1.0}
            style.points(axes, *self.values(uniform), "s", markersize=9, label="uniform configuration", **look)
        xs = self.values(self.trials)[0]
        if style.wants_log(xs):
            axes.set_xscale("log")
        self._draw_baseline(axes, xs)
        axes.set_xlabel(objective_label(self.study, self.cost))
        axes.set_ylabel(objective_label(self.study, self.quality))

    def _draw_front(self, axes: Axes) -> None:
        look: Any = {"color": style.BLUE, "markersize": 6, "label": "front"}
        if len(self.study.objectives) > 2:  # a projection: what lies between two points is not known
            style.points(axes, *self.values(self.front), "o", **look)
            return
        # Between two points nothing better than the cheaper one is known: steps, not slopes.
        steps = "steps-post" if self.cost.direction == "minimize" else "steps-pre"
        axes.plot(*self.values(self.front), "o-", linewidth=1.4, drawstyle=steps, **look)

    def _draw_baseline(self, axes: Axes, xs: Sequence[float]) -> None:
        """A star; where it would push the front into a corner, a line that says how far away it is."""
        x, y = (baseline_value(self.study, objective) for objective in (self.cost, self.quality))
        if x is None or y is None:
            return
        if axes.get_xscale() == "log" or abs(x) <= _NEAR * abs(max(xs, default=0.0)):
            axes.plot([x], [y], "*", color=style.ORANGE, markersize=13, label="float baseline")
        else:
            label = f"float baseline, at {cell(x)}"
            axes.axhline(y, color=style.ORANGE, linestyle="--", linewidth=1.4, label=label)

    def ends(self) -> str:
        """Between which points the front reaches."""
        cheap, dear = self.front[0], self.front[-1]
        told = [f"{self._at(trial.metrics)} (trial {trial.number})" for trial in (cheap, dear)]
        return f"between {told[0]} and {told[1]}" if cheap is not dear else f"at {told[0]}"

    def of_the_float_model(self) -> str:
        """The baseline's point; empty where it was not measured."""
        values = [baseline_value(self.study, objective) for objective in (self.cost, self.quality)]
        return "" if None in values else self._at(self.study.baseline)

    def _at(self, metrics: Mapping[str, float]) -> str:
        quality, cost = self.quality.value(metrics), self.cost.value(metrics)
        return f"{_name(self.quality)} {cell(quality)} at {_name(self.cost)} {cell(cost)}"

    def values(self, trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
        """Cost and quality of trials."""
        return [self.cost.value(t.metrics) for t in trials], [self.quality.value(t.metrics) for t in trials]


def _reading(study: Study, panels: Sequence[_Panel], uniform_ones: Sequence[Trial]) -> str:
    """Where the front begins and ends, and what lies on it."""
    front, counts = study.front(), study.counts()
    if not front:
        return "No trial is feasible: the front is empty."
    where = "; ".join(panel.ends() for panel in panels if panel.front)
    text = f"The front has {_count(len(front), 'point')}{', ' + where if where else ''}; "
    text += f"{_count(counts['complete'] - len(front), 'feasible trial')} besides, "
    text += f"{_count(counts['infeasible'], 'infeasible one')}."
    uniform = {trial.number for trial in uniform_ones if trial.state == "complete"}
    if uniform:
        on_it = sum(trial.number in uniform for trial in front)
        text += f" {_count(len(uniform), 'trial')} of uniform configuration, {on_it} of them on the front."
    known = [said for panel in panels if (said := panel.of_the_float_model())]
    return f"{text} The float model has {'; '.join(known)}." if known else text


def _name(objective: Objective) -> str:
    return objective.label.replace("_", " ")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
