"""`paretobit doctor`: prove on this model, data and space that a search of them can be believed."""

from __future__ import annotations

from collections.abc import Mapping

from paretobit.doctor import Check, Patient
from paretobit.doctor import examine as make_checks
from paretobit.doctor.base import DEFAULT_EVALUATIONS
from paretobit.runtime import one_thread, seeded
from paretobit.strategies.problem import Problem
from paretobit.trials.evidence import fingerprint
from paretobit.wanted.objectives import Metrics
from paretobit.workflow.search import Search


def examine(search: Search, trials: int | None = None, *, trained: bool = True) -> list[Check]:
    """Make every check of the doctor on a search, which is not run; nothing is left on disk.

    Args:
        search: Assembled; its model is looked at with the weights that it has.
        trials: How often the model may be measured, about; unset: 20. More of them look at more
            configurations and at more of the knobs that change no cost.
        trained: Whether the weights are those that the search would have.

    Returns:
        One result a check, in order.

    Raises:
        BadInput: Too few trials, or a model that cannot be measured.
    """

    def digests() -> Mapping[str, str]:
        graph = fingerprint(search.evidence.graph.model, {})["model"]
        return {**fingerprint(search.model, search.splits), "traced model": graph}

    def problem(baseline: Metrics) -> Problem:
        return search.problem(baseline, search.workbench())

    with one_thread(), seeded(search.seed):
        patient = Patient(
            model=search.model,
            evidence=search.evidence,
            space=search.space,
            runners=search.runners,
            strategy=search.strategy,
            settings=search.strategy_settings,
            seed=search.seed,
            make_workbench=search.workbench,  # constraints would keep trials from being measured
            make_problem=problem,
            fingerprint=digests,
            question=search.best,
            trained=trained,
            evaluations=DEFAULT_EVALUATIONS if trials is None else trials,
        )
        return make_checks(patient)
