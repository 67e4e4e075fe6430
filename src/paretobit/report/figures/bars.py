"""Bars: every metric of every configuration, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paretobit.errors import BadInput
from paretobit.report.figures import style
from paretobit.report.figures.registry import Asked, figure
from paretobit.report.knob_columns import ABSENT, KnobColumn, short, varying
from paretobit.report.metrics import baseline_value, label_of, measured, metrics_of, objective_of
from paretobit.report.runs import Runs
from paretobit.report.tables import cell
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 40
_PANELS, _LONGEST_LABEL = 4, 34


@figure("bars", takes=("metric",))
def bars(runs: Runs, asked: Asked) -> style.Picture:
    """Bars per configuration, a panel per metric, with the float baseline."""
    study = runs.study
    trials = [trial for trial in study.trials if trial.state in ("complete", "infeasible")]
    names = [asked.metric] if asked.metric else metrics_of(study)
    objectives = [objective_of(study, name) for name in names]
    found = {o.label: measured(trials, o) for o in objectives}
    drawable = [o for o in objectives if found[o.label]]
    if not drawable:
        raise BadInput("no feasible trial has a finite value to draw")
    moving = [o for o in drawable if len({o.value(t.metrics) for t in found[o.label]}) > 1]
    shown = (moving or drawable)[:_PANELS]
    chosen, which = _few_enough(study, found[shown[0].label])
    labels = _labels(study, chosen)

    def paint(canvas: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        rows = range(len(chosen))
        panels = canvas.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, objective in zip(panels, shown, strict=True):
            values = [trial.metrics.get(objective.label, 0.0) for trial in chosen]
            axes.barh(rows, values, height=0.72, color="#9fc3e0", edgecolor=style.BLUE, linewidth=0.8)
            if (value := baseline_value(study, objective)) is not None:
                style.reference(axes, value, values, "float baseline", of=f" of {objective.label}", upright=True)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.xaxis.set_major_formatter(lambda value, _: style.brief(value))
            axes.set_xlabel(label_of(study, objective.label).replace(" [", "\n["))
        panels[0].set_yticks(rows, labels)
        panels[0].set_ylabel("configuration (trial: what varies)")
        panels[0].invert_yaxis()
        style.finish(canvas)

    first = shown[0]
    best = min(chosen, key=lambda t: first.loss(t.metrics))
    reading = f"{which} The best {first.label.replace('_', ' ')}, {cell(best.metrics[first.label])}, has trial "
    reading += f"{labels[chosen.index(best)]}."
    left_out = [o.label for o in drawable if o not in shown]
    if left_out:
        reading += f" Not drawn here, to be asked for one at a time: {', '.join(left_out)}."
    size = (1.8 + 2.3 * len(shown) + 0.07 * max(map(len, labels)), 1.8 + 0.24 * len(chosen))
    return style.Picture(reading, paint, size)


def _few_enough(study: Study, trials: list[Trial]) -> tuple[list[Trial], str]:
    """All configurations, or the front where there are too many, or the best of it."""
    if len(trials) <= MOST:
        return trials, f"All {len(trials)} configurations that were measured."
    front = sorted((t for t in study.front() if t in trials), key=lambda t: t.number)
    if len(front) <= MOST and len(study.objectives) > 1:
        return front, f"The front, {len(front)} of {len(trials)} configurations."
    ranked = sorted(trials, key=lambda t: (study.objectives[0].loss(t.metrics), t.number))
    return ranked[:MOST], f"The best {MOST} of {len(trials)} configurations by the first objective."


def _labels(study: Study, trials: list[Trial]) -> list[str]:
    """`3: 8, 4`: the trial, and its values of the knobs that vary, where they are few and short."""
    knobs = [knob for knob in varying(study, trials) if len(knob.members) == 1]

    def told(trial: Trial, knob: KnobColumn) -> str:
        value = knob.value(trial)
        return "-" if value is ABSENT else short(value)

    texts = [", ".join(told(trial, knob) for knob in knobs) for trial in trials]
    if max(map(len, texts), default=0) > _LONGEST_LABEL:
        return [str(trial.number) for trial in trials]
    return [f"{t.number}: {text}" if text else str(t.number) for t, text in zip(trials, texts, strict=True)]
