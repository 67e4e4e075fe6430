"""Every check, in order, and making them."""

from collections.abc import Callable

from paretobit.doctor import data, metrics, model, reach, seeds, store, trials
from paretobit.doctor.base import DEFAULT_EVALUATIONS, Check, Finding, Patient
from paretobit.errors import ParetoBitError
from paretobit.registry import Registry
from paretobit.runtime import one_thread, seeded
from paretobit.session.session import Session

CHECKS: Registry[Callable[[Patient], Finding]] = Registry("check")
"""What the doctor checks, in this order: what is measured first is what later checks compare with, and
whether anything of the caller's changed is asked last."""

for name, check in {
    "every run calls the same functions": model.every_run_calls_the_same,
    "results follow the weights": model.weights_are_followed,
    "a run leaves the model as it was": model.runs_leave_the_model_alone,
    "a row stands alone": model.rows_stand_alone,
    "configurations run": trials.configurations_run,
    "trials do not leak": trials.trials_do_not_leak,
    "a fresh copy agrees": trials.fresh_copy_agrees,
    "a worker process agrees": trials.worker_agrees,
    "seeds reproduce": seeds.seeds_reproduce,
    "the unmodified model is the baseline": metrics.full_precision_is_the_baseline,
    "formats reach the model": reach.formats_reach_the_model,
    "costs hold all operations": reach.costs_hold_all_operations,
    "the number of rows changes nothing": reach.rows_change_nothing,
    "costs fall with the widths": metrics.costs_fall,
    "every metric moves": metrics.every_metric_moves,
    "every knob has an effect": metrics.every_knob_has_an_effect,
    "splits share no rows": data.splits_share_no_rows,
    "every split has every class": data.every_split_has_every_class,
    "every number is finite": data.every_number_is_finite,
    "validation can tell": data.validation_can_tell,
    "the study gives back what it was given": store.study_gives_back,
    "nothing of the caller's changed": trials.nothing_changed,
}.items():
    CHECKS.register(name)(check)


def examine(session: Session, trials: int | None = None, *, trained: bool = True) -> list[Check]:
    """Make every check of the doctor on a search, which is not run; nothing is left on disk.

    Args:
        session: Its model is looked at with the weights that it has.
        trials: How often the model may be measured, about; unset: 20. More of them look at more
            configurations and at more of the knobs that change no cost.
        trained: Whether the weights are those that the search would have.

    Returns:
        One result a check, in order.

    Raises:
        BadInput: Too few trials, or a model that cannot be measured.
    """
    with one_thread(), seeded(session.seed):
        return examined(Patient(session, trained, DEFAULT_EVALUATIONS if trials is None else trials))


def examined(patient: Patient) -> list[Check]:
    """Make every check; one that ends in an error has failed."""
    checks: list[Check] = []
    for entry in CHECKS:
        before = sum(check.evaluations for check in checks)  # the baseline's is the first check's
        try:
            finding = entry.value(patient)
        except ParetoBitError as error:
            finding = Finding("failed", str(error))
        except Exception as error:  # what a user's runner or model raises
            finding = Finding("failed", f"{type(error).__name__}: {error}")
        made = patient.counted - before
        checks.append(Check(entry.name, finding.state, finding.said, dict(finding.evidence), made))
    return checks
