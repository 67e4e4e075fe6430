"""Metrics of a study: their names, their units, which way is better, and their values."""

import math
from collections.abc import Sequence

from paretobit.errors import BadInput
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial
from paretobit.wanted.objectives import Objective


def metric_name(study: Study, name: str) -> str:
    """The full name of a metric.

    Raises:
        BadInput: The study measured no such metric.
    """
    short, known = study.facts.get("short_names", {}), metrics_of(study)
    full = str(short.get(name, name))
    if full not in known:
        raise BadInput("the study has no such metric", key="metric", found=name, allowed=[*known, *short])
    return full


def metrics_of(study: Study) -> list[str]:
    """Every metric: those of the objectives, then of the constraints, then the others."""
    first = [metric for objective in study.objectives for metric in objective.metrics]
    constrained = [constraint.metric for constraint in study.constraints]
    return list(dict.fromkeys([*first, *constrained, *study.facts.get("metrics", {}), *study.baseline]))


def objective_of(study: Study, metric: str | None) -> Objective:
    """A metric as something to optimise; unset: the first objective.

    Raises:
        BadInput: The study has no such metric, or none of either.
    """
    if metric is not None:
        name = metric_name(study, metric)
        own = next((o.direction for o in study.objectives if o.label == name), "minimize")
        about = study.facts.get("metrics", {}).get(name, {})
        return Objective.of(name, about.get("direction", own))
    if not study.objectives:
        raise BadInput("the study has no objective")
    return study.objectives[0]


def unit_of(study: Study, metric: str) -> str:
    """The unit of a metric; empty where none was recorded."""
    return str(study.facts.get("metrics", {}).get(metric, {}).get("unit", ""))


def label_of(study: Study, metric: str) -> str:
    """Name and unit, for an axis: `total bitops [bit operations per sample]`."""
    unit, name = unit_of(study, metric), metric.replace("_", " ")
    return f"{name} [{unit}]" if unit else name


def objective_label(study: Study, objective: Objective) -> str:
    """The metric with its unit, or what it was made into written out."""
    words = objective.label.replace("_", " ")
    if objective.label in objective.metrics:
        return label_of(study, objective.label)
    return f"{words} [weighted sum]" if len(objective.terms) > 1 else f"{words} [no unit]"


def measured(trials: Sequence[Trial], objective: Objective) -> list[Trial]:
    """The feasible trials whose value is a finite number."""
    needed = set(objective.metrics)
    complete = (t for t in trials if t.state == "complete" and needed <= t.metrics.keys())
    return [trial for trial in complete if math.isfinite(objective.value(trial.metrics))]


def baseline_value(study: Study, objective: Objective) -> float | None:
    """What the float model reaches; None where it was not measured."""
    if not set(objective.metrics) <= set(study.baseline):
        return None
    value = objective.value(study.baseline)
    return value if math.isfinite(value) else None
