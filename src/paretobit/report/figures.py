"""Pictures of a study. Colour-blind safe, readable in grey, axes with units."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paretobit.report.tables import cell
from paretobit.search import Study, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GREY, _BLUE, _ORANGE = "#b0b0b0", "#0b5394", "#d55e00"
_LINES = [(_BLUE, "-"), (_ORANGE, "-"), ("#000000", "--"), ("#56b4e9", ":"), ("#808080", "-.")]
_LOG_RANGE, _NEAR = 10.0, 3.0


def draw_front(study: Study, path: str | Path) -> None:
    """The front with dominated trials and the baseline; PNG or SVG by the path's suffix.

    With one objective the trials are drawn in order, with the running best.
    """
    with _axes(path) as axes:
        if len(study.objectives) == 1:
            _running_best(axes, study)
        else:
            _two_objectives(axes, study)


def draw_best_error(studies: Mapping[str, Study], path: str | Path, metric: str = "accuracy") -> None:
    """Smallest error (1 - metric) so far against the number of trials, one line a study.

    Args:
        studies: Label to study.
        path: PNG or SVG by its suffix.
        metric: A share in [0, 1].
    """
    with _axes(path) as axes:
        for (label, study), (colour, style) in zip(studies.items(), itertools.cycle(_LINES)):
            errors = [
                1 - trial.metrics[metric] if metric in trial.metrics else math.inf for trial in study.trials
            ]
            best = list(itertools.accumulate(errors, min))
            axes.step(range(1, len(best) + 1), best, where="post", color=colour, linestyle=style, label=label)
        axes.set_xlabel("trial")
        axes.set_ylabel(f"smallest error so far [1 - {metric}]")


@contextmanager
def _axes(path: str | Path) -> Iterator[Axes]:
    """Axes in the house's style, saved at the end of the block."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with mpl.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(figsize=(7.2, 4.6), layout="constrained")
        yield axes
        axes.grid(True, color="#e8e8e8", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, loc="best")
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _two_objectives(axes: Axes, study: Study) -> None:
    """Cost to the right, quality upwards: the last objective against the first."""
    quality, cost = study.objectives[0], study.objectives[-1]
    front = study.front()
    kept = {trial.number for trial in front}
    complete = [trial for trial in study.trials if trial.state == "complete"]
    infeasible = [t for t in study.trials if t.state == "infeasible" and set(quality.metrics) <= set(t.metrics)]

    def points(trials: list[Trial] | tuple[Trial, ...]) -> tuple[list[float], list[float]]:
        return [cost.value(t.metrics) for t in trials], [quality.value(t.metrics) for t in trials]

    dominated = [trial for trial in complete if trial.number not in kept]
    if infeasible:
        axes.plot(*points(infeasible), "x", color=_GREY, markersize=4, label="infeasible")
    if dominated:
        axes.plot(*points(dominated), "o", color=_GREY, markersize=4, label="dominated")
    by_cost = sorted(front, key=lambda t: cost.value(t.metrics))
    # Between two points nothing better than the cheaper one is known: steps, not slopes.
    style = "steps-post" if cost.direction == "minimize" else "steps-pre"
    axes.plot(*points(by_cost), "o-", color=_BLUE, markersize=6, linewidth=1.4, drawstyle=style, label="front")
    xs = points(complete)[0]
    if xs and min(xs) > 0 and max(xs) / min(xs) > _LOG_RANGE:
        axes.set_xscale("log")
    if set(quality.metrics + cost.metrics) <= set(study.baseline):
        _baseline(axes, cost.value(study.baseline), quality.value(study.baseline), max(xs, default=0.0))
    axes.set_xlabel(_label(study, cost))
    axes.set_ylabel(_label(study, quality))


def _baseline(axes: Axes, x: float, y: float, largest: float) -> None:
    """A star; where it would push the front into a corner, a line that says how far away it is."""
    if abs(x) <= _NEAR * abs(largest):
        axes.plot([x], [y], "*", color=_ORANGE, markersize=13, label="float baseline")
    else:
        axes.axhline(y, color=_ORANGE, linestyle="--", linewidth=1.4, label=f"float baseline, at {cell(x)}")


def _running_best(axes: Axes, study: Study) -> None:
    (objective,) = study.objectives
    complete = [trial for trial in study.trials if trial.state == "complete"]
    numbers = [trial.number for trial in complete]
    values = [objective.value(trial.metrics) for trial in complete]
    best: list[float] = []
    better = max if objective.direction == "maximize" else min
    for value in values:
        best.append(value if not best else better(best[-1], value))
    axes.plot(numbers, values, "o", color=_GREY, markersize=4, label="trials")
    axes.step(numbers, best, where="post", color=_BLUE, linewidth=1.6, label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(_label(study, objective))


def _label(study: Study, objective: Any) -> str:
    about = study.facts.get("metrics", {}).get(objective.label, {})
    name = objective.label.replace("_", " ")
    return f"{name} [{about['unit']}]" if about.get("unit") else name
