"""What a strategy predicted of its trials, against what was measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from paretobit.errors import BadInput
from paretobit.report.figures import style
from paretobit.report.figures.registry import Asked, figure
from paretobit.report.metrics import unit_of
from paretobit.report.runs import Runs
from paretobit.studies.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREDICTED = "predicted"
"""The fact of a study: `{"metric": "loss", "values": {"<trial>": predicted increase}}`."""


@figure("predicted")
def predicted(runs: Runs, asked: Asked) -> style.Picture:
    """The predicted increase of a metric against the measured one, with the rank correlation."""
    study = runs.study
    metric, pairs = predictions(study)
    rank = rank_correlation(pairs)
    xs, ys = [list(values) for values in zip(*pairs, strict=True)]
    name, unit = metric.replace("_", " "), unit_of(study, metric)
    suffix = f" [{unit}]" if unit else ""

    def paint(canvas: Figure) -> None:
        axes = canvas.subplots()
        both = xs + ys
        label = f"trials, Spearman's rank correlation {rank:.2f}"
        style.points(axes, xs, ys, "o", color=style.BLUE, markersize=5, markerfacecolor="none", label=label)
        low, high = min(both), max(both)
        axes.plot([low, high], [low, high], color=style.BLACK, linestyle="--", linewidth=1, label="equal")
        if style.wants_log(xs) and style.wants_log(ys):
            axes.set_xscale("log")
            axes.set_yscale("log")
        axes.set_xlabel(f"predicted increase of {name}{suffix}")
        axes.set_ylabel(f"measured increase of {name}{suffix}")
        style.finish(canvas)

    below = sum(y > x for x, y in pairs)
    reading = f"Over {len(pairs)} trials Spearman's rank correlation of the predicted and the measured increase of "
    reading += f"{name} is {rank:.2f}; {below} of them rose more than predicted."
    return style.Picture(reading, paint, (5.6, 5.0))


def predictions(study: Study) -> tuple[str, list[tuple[float, float]]]:
    """The metric, and predicted and measured increase over the baseline of every trial that has both.

    Raises:
        BadInput: The strategy predicted nothing, or too few trials were measured.
    """
    said = study.facts.get(PREDICTED)
    if not said or not said.get("values"):
        raise BadInput("the strategy of this study predicts nothing")
    metric = str(said["metric"])
    if metric not in study.baseline:
        raise BadInput(f"the baseline has no {metric} to compare predictions with")
    pairs = []
    for number, value in said["values"].items():
        measured = study[int(number)].metrics.get(metric) if int(number) < len(study) else None
        if measured is not None and value is not None:
            pairs.append((float(value), measured - study.baseline[metric]))
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    if len(pairs) < 3 or len({x for x, _ in pairs}) == 1 or len({y for _, y in pairs}) == 1:
        raise BadInput(f"{len(pairs)} trials have a prediction and a measurement: too few to compare")
    return metric, pairs


def rank_correlation(pairs: list[tuple[float, float]]) -> float:
    """Spearman's rank correlation, in [-1, 1]; ties share their mean rank."""
    from scipy.stats import spearmanr

    xs, ys = zip(*pairs, strict=True)
    return float(spearmanr(xs, ys).statistic)
