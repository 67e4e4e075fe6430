"""Learning curves: loss and accuracy against the epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from paretobit.errors import BadInput
from paretobit.report.figures import style
from paretobit.report.figures.bands import draw_curves, last, quartiles
from paretobit.report.figures.registry import Asked, figure
from paretobit.report.knob_columns import KnobColumn, knob_named, short, values_of, varying
from paretobit.report.runs import Run, Runs
from paretobit.report.tables import cell
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial
from paretobit.training.history import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_LINES = 12
LOSS, ACCURACY = "loss [nats]", "accuracy [share of rows]"


@figure("learning_curves", several=True)
def learning_curves(runs: Runs, asked: Asked) -> style.Picture:
    """Loss and accuracy against the epoch: training and validation of one run, or several trainings."""
    without = [run.name for run in runs if not run.epochs]
    if without:
        where = "its folder" if len(runs) == 1 else f"the folder of {', '.join(without)}"
        raise BadInput(f"no training is recorded in {where}: the model came trained, or from Python")
    return _one(runs[0]) if len(runs) == 1 else _several(runs)


def _one(run: Run) -> style.Picture:
    epochs = run.epochs
    best = next(epoch for epoch in reversed(epochs) if epoch.is_best)
    panels = {
        LOSS: {"training": "train_loss", "validation": "val_loss"},
        ACCURACY: {"training": "train_accuracy", "validation": "val_accuracy"},
    }
    panels = {label: {k: v for k, v in of.items() if _has(epochs, v)} for label, of in panels.items()}
    panels = {label: of for label, of in panels.items() if of}

    def paint(canvas: Figure) -> None:
        for axes, (label, of) in zip(canvas.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            draw_curves(axes, {name: [curve(epochs, f)] for name, f in of.items()}, first=1, steps=False)
            axes.axvline(best.number, color="#707070", linestyle=":", linewidth=1.2, label="best epoch")
            _label(axes, label)
        style.finish(canvas)

    told = "; ".join(
        f"{label.partition(' [')[0]} {', '.join(f'{cell(getattr(best, f))} in {n}' for n, f in of.items())}"
        for label, of in panels.items()
    )
    return style.Picture(f"Best of {len(epochs)} epochs: {best.number}, with {told}.", paint, _size(len(panels)))


def _several(runs: Runs) -> style.Picture:
    """Validation where there is some, else training, of every run."""
    everything = [epoch for run in runs for epoch in run.epochs]
    choices = {LOSS: ("val_loss", "train_loss"), ACCURACY: ("val_accuracy", "train_accuracy")}
    panels = {
        label: next((name for name in names if all(_has(run.epochs, name) for run in runs)), None)
        for label, names in choices.items()
    }
    shown = {label: name for label, name in panels.items() if name is not None}
    kinds = {name: "validation" if name.startswith("val") else "training" for name in shown.values()}

    def paint(canvas: Figure) -> None:
        grid = canvas.subplots(1, len(shown), squeeze=False)[0]
        for axes, (label, name) in zip(grid, shown.items(), strict=True):
            curves = {key: [curve(run.epochs, name) for run in group] for key, group in runs.groups.items()}
            draw_curves(axes, curves, first=1, steps=False)
            _label(axes, f"{kinds[name]} {label}")
        style.finish(canvas)

    label, name = list(shown.items())[-1]
    best = max if label == ACCURACY else min
    ends = []
    for key, group in runs.groups.items():
        middle = quartiles([curve(run.epochs, name) for run in group])[1]
        value = best(v for v in middle if math.isfinite(v))
        ends.append((value, f"{key} {cell(value)} in epoch {middle.index(value) + 1}"))
    told = "; ".join(text for _, text in sorted(ends, key=lambda e: e[0], reverse=best is max))
    reading = f"Best {kinds[name]} {label.partition(' [')[0]}: {told}. {len(everything)} epochs in all."
    return style.Picture(reading, paint, _size(len(shown)))


@figure("trial_curves", takes=("knob",))
def trial_curves(runs: Runs, asked: Asked) -> style.Picture:
    """Validation loss and accuracy of the trials against the epoch: a line per value of a knob."""
    study = runs.study
    trials = [trial for trial in study.trials if trial.curve]
    if not trials:
        raise BadInput("no trial of this search trained")
    knob, values = _knob_of_lines(study, trials, asked.knob)
    groups = {short(v): [t.curve for t in trials if knob.value(t) == v] for v in values}
    panels = {LOSS: "val_loss", ACCURACY: "val_accuracy"}
    panels = {label: name for label, name in panels.items() if all(_has(t.curve, name) for t in trials)}
    if not panels:
        raise BadInput("the trials trained without a validation split")

    def paint(canvas: Figure) -> None:
        grid = canvas.subplots(1, len(panels), squeeze=False)[0]
        for axes, (label, name) in zip(grid, panels.items(), strict=True):
            curves = {
                f"{knob.title} = {value}": [curve(epochs, name) for epochs in group] for value, group in groups.items()
            }
            draw_curves(axes, curves, first=1, steps=False)
            _label(axes, f"validation {label}")
        style.finish(canvas)

    label, name = list(panels.items())[-1]
    ends = {value: last(quartiles([curve(c, name) for c in group])[1]) for value, group in groups.items()}
    told = "; ".join(f"{cell(end)} with {value}" for value, end in ends.items())
    reading = f"Validation {label.partition(' [')[0]} after the last epoch, by {knob.title}: {told}."
    return style.Picture(reading, paint, _size(len(panels)))


def _knob_of_lines(study: Study, trials: Sequence[Trial], name: str | None) -> tuple[KnobColumn, list[Any]]:
    """The knob whose values have a line each, and these values; unset: the first with few enough of them.

    Raises:
        BadInput: No such knob, or too many values.
    """
    choices = [knob_named(study, name)] if name else varying(study, trials)
    found = next((k for k in choices if 0 < len(values_of(k, trials)) <= _MOST_LINES), None)
    if found is None:
        allowed = f"a knob of at most {_MOST_LINES} values in trials that trained"
        raise BadInput("no line for each value can be told apart", key="knob", found=name, allowed=allowed)
    return found, values_of(found, trials)


def curve(epochs: Sequence[Epoch], name: str) -> list[float]:
    """One column of the epochs; NaN where it has no value."""
    return [math.nan if (value := getattr(epoch, name)) is None else float(value) for epoch in epochs]


def _has(epochs: Sequence[Epoch], name: str) -> bool:
    return any(math.isfinite(value) for value in curve(epochs, name))


def _label(axes: Axes, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch [number]")
    axes.set_ylabel(label)


def _size(panels: int) -> tuple[float, float]:
    return (4.6 * panels + 0.6, 4.2)
