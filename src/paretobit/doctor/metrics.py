"""Every metric moves when it should, and not when it should not."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from paretobit.doctor.base import Finding, Patient
from paretobit.doctor.ladder import KnobPlace, Ladder, full_precision
from paretobit.training.evaluate import run_on_view

_KEPT_FOR_LATER = 1
_MOST_NAMED = 8
_ROWS = 64


def full_precision_is_the_baseline(patient: Patient) -> Finding:
    """The prepared copy computes what the model does, and full precision is the baseline where there is such.

    The outputs of a few rows are compared; then the metrics of the configuration that leaves every knob
    at full precision, if the space has one.
    """
    rows = _different_outputs(patient)
    config = full_precision(patient.space, patient.evidence.graph)
    evidence = {"different_outputs": rows, "config": None if config is None else dict(config)}
    if rows:
        return Finding("failed", f"the prepared copy gives other outputs than the model on {rows} rows", evidence)
    if config is None:
        said = "no configuration of the space leaves the model as it is"
        if rows is None:
            return Finding("not applicable", f"{said}, and there are no rows to run", evidence)
        return Finding("ok", f"the prepared copy gives the model's outputs to the last bit; {said}", evidence)
    different = patient.unlike(patient.recorded[None], patient.outcome(config))
    if different is not None:
        return Finding("failed", f"full precision is not the baseline: {different}", evidence)
    said = f"full precision gives the baseline's {len(patient.baseline)} metrics to the last bit"
    return Finding("ok", said, evidence)


def _different_outputs(patient: Patient) -> int | None:
    """Of a few rows, those on which the prepared copy and the model differ; None where none can be run."""
    split = next(iter(patient.evidence.splits.values()), None)
    if split is None:
        return None
    x = split[0][:_ROWS]
    models = (patient.space.apply(patient.space.prepare(), None), patient.space.private_copy())
    with torch.no_grad():
        outputs = [tree_leaves(run_on_view(model, x)) for model in models]
    pairs = [(a, b) for a, b in zip(*outputs, strict=True) if isinstance(a, Tensor) and a.dim() and len(a) == len(x)]
    unlike = [~torch.isclose(a, b, rtol=0, atol=0, equal_nan=True).reshape(len(x), -1).all(1) for a, b in pairs]
    return int(torch.stack(unlike).any(0).sum()) if unlike else None


def costs_fall(patient: Patient) -> Finding:
    """A cost that needs no model gets no worse when a width gets lower."""
    metrics = patient.problem.vocabulary.metrics
    steps, rising = 0, []
    for name, higher, lower in Ladder(patient.tree).steps_down():
        steps += 1
        before, after = (dict(patient.bench.cheap_metrics(config)) for config in (higher, lower))
        for metric, value in after.items():
            sign = -1 if metrics[metric].direction == "maximize" else 1
            if sign * (value - before[metric]) > 1e-9 * abs(before[metric]):
                rising.append(f"{metric} from {before[metric]:g} to {value:g} where {name} falls")
    if not steps:
        return Finding("not applicable", "no knob is a width")
    evidence = {"steps": steps, "rising": rising}
    if rising:
        return Finding("failed", f"{len(rising)} costs get worse: {_named(rising)}", evidence)
    return Finding("ok", f"no cost gets worse in {steps} steps to a lower width", evidence)


def every_knob_has_an_effect(patient: Patient) -> Finding:
    """Turned from end to end alone, a knob changes a metric, with the others at most or at least.

    Costs are looked at first; what changes none of them is measured while evaluations are left.
    """
    costs, results, none, untested = _effects(patient)
    evidence = {
        "knobs_that_change_costs": len(costs),
        "knobs_that_change_results": len(results),
        "without_effect": none,
        "untested": untested,
    }
    if not any((costs, results, none, untested)):
        return Finding("not applicable", "no knob has a choice")
    said = f"{len(costs)} knobs change a cost, {len(results)} more a result"
    if untested:
        said += f"; {len(untested)} that change no cost were not measured (more with --trials)"
    if none:
        return Finding("failed", f"without any effect: {_named(none)}; {said}", evidence)
    return Finding("ok", said, evidence)


def every_metric_moves(patient: Patient) -> Finding:
    """No objective or constraint is a metric that stays the same over the whole sample and all knobs."""
    ladder = Ladder(patient.tree)
    for config in (ladder.at("most"), ladder.at("least")):
        patient.outcome(config)
    seen = [outcome.metrics for config, outcome in patient.recorded.items() if config is not None]
    for place in ladder.places:
        ends = (ladder.ranked(place.knob)[0], ladder.ranked(place.knob)[-1])
        seen += [patient.bench.cheap_metrics(ladder.at("most", place.to(value))) for value in ends]
    values: dict[str, set[float]] = {name: set() for name in patient.baseline}
    for metrics in seen:
        for name, value in metrics.items():
            values.setdefault(name, set()).add(value)
    still = [name for name, different in values.items() if len(different) < 2]
    if patient.tree.size == 1:
        return Finding("not applicable", "the space has one configuration")
    problem = patient.problem
    asked = {name for objective in problem.objectives for name in objective.metrics}
    asked |= {constraint.metric for constraint in problem.constraints}
    stuck = [name for name in still if name in asked]
    evidence = {"different_values": {name: len(v) for name, v in values.items()}, "still": still}
    others = [name for name in still if name not in asked]
    note = f"; no knob moves {_named(others)}, which nothing asks for" if others else ""
    if stuck:
        return Finding("failed", f"no knob moves {_named(stuck)}{note}", evidence)
    return Finding("ok", f"{len(values) - len(still)} metrics move{note}", evidence)


def _effects(patient: Patient) -> tuple[list[str], list[str], list[str], list[str]]:
    """Knobs that change costs alone, results alone, nothing; and those that there was no time to try."""
    ladder = Ladder(patient.tree)
    costs, results, none, untested = list[str](), list[str](), list[str](), list[str]()
    silent: list[KnobPlace] = []
    for place in ladder.places:
        found = [patient.bench.cheap_metrics(ladder.at("most", place.to(v))) for v in ladder.ranked(place.knob)]
        (costs.append(place.knob.name) if any(f != found[-1] for f in found) else silent.append(place))
    for place in silent:
        moves = _moves_results(patient, ladder, place)
        (untested if moves is None else results if moves else none).append(place.knob.name)
    return costs, results, none, untested


def _moves_results(patient: Patient, ladder: Ladder, place: KnobPlace) -> bool | None:
    """Whether a knob changes what is measured; None where no evaluation is left to tell."""
    least, most = ladder.ranked(place.knob)[0], ladder.ranked(place.knob)[-1]
    for standing in ("most", "least"):
        ends = [ladder.at(standing, place.to(value)) for value in (least, most)]
        unknown = sum(config not in patient.recorded for config in dict.fromkeys(ends))
        if unknown > patient.left - _KEPT_FOR_LATER:
            return None
        first, second = (patient.outcome(config) for config in ends)
        if patient.unlike(first, second) is not None:
            return True
    return False


def _named(names: Any) -> str:
    """Names on one line, of many the first."""
    names = list(names)
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
