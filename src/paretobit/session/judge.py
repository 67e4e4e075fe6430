"""The front on the untouched test split: both numbers, and what of the difference may be chance."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from paretobit.runtime import derive_seed, seed_everything
from paretobit.session.session import Session
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial
from paretobit.training.evaluate import check_classifier
from paretobit.training.per_row import RowResults, per_row
from paretobit.trials.runners import BasicEvaluation
from paretobit.wanted.paired import accuracy_change, loss_changes

OnJudged = Callable[[int, int], None]
"""Called with the points judged on the test split and their number."""
_BASELINE = "baseline"
_POINTS_AT_ONCE = 32  # of which the results of every row are in memory
_BETTER = {"accuracy": 1, "loss": -1}


def judge(session: Session, study: Study, on_judged: OnJudged = lambda done, total: None) -> None:
    """Measure baseline, front and winner on the test split and compare each with the baseline, row by row.

    What was judged before is kept, also where it left the front. Records, JSON-able:

    `test`: `{"baseline": {"accuracy": …, "loss": …}, "17": …}`, by trial number.
    `paired`: trial number to `{"accuracy": AccuracyChange, "loss": LossChange}`, as mappings; a
    comparison that is not possible is `loss_absent` with the reason.
    `paired_absent`: why nothing was compared, where nothing was.
    `optimism`: see `optimism`.
    """
    evaluation = next((r for r in session.runners if isinstance(r, BasicEvaluation)), None)
    absent = _not_judged(evaluation, session.splits)
    if absent is not None or evaluation is None:
        study.record(paired_absent=absent)
        return
    x, y = session.splits["test"]
    delivery = session.delivery
    check_classifier(delivery.build(None), x, y)
    trials = {str(trial.number): trial for trial in _points(session, study)}
    test, paired = dict(study.facts.get("test", {})), dict(study.facts.get("paired", {}))
    new = [name for name in trials if name not in test or name not in paired]
    done, total = 1 + len(trials) - len(new), 1 + len(trials)

    def results(name: str) -> RowResults:
        seed_everything(derive_seed(session.seed, "test", name))
        trial = trials.get(name)
        model = delivery.of_baseline(study) if trial is None else delivery.of_trial(study, trial)
        model.train(not session.eval_mode)
        return per_row(model, x, y, evaluation.rows)

    if new or _BASELINE not in test:
        reference = results(_BASELINE)
        test[_BASELINE] = _finite(reference.metrics)
    on_judged(done, total)
    for first in range(0, len(new), _POINTS_AT_ONCE):
        names, rows = new[first : first + _POINTS_AT_ONCE], []
        for name in names:
            rows.append(results(name))
            done += 1
            on_judged(done, total)
        changes = _changes(rows, reference, derive_seed(session.seed, "test", "bootstrap"))
        test.update(zip(names, (_finite(row.metrics) for row in rows), strict=True))
        paired.update(zip(names, changes, strict=True))
        study.record(test=test, paired=paired)
    study.record(test=test, paired=paired, optimism=optimism(study.front(), study.baseline, test))


def optimism(
    front: Sequence[Trial], baseline: Mapping[str, float], test: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """How much better the numbers that chose are than those of the test split.

    The baseline was not chosen: its figure is what the two splits differ by themselves. What the front
    shows beyond it is the price of choosing the best of many noisy numbers.

    Args:
        front: The chosen trials.
        baseline: Metrics of the float model that compare with the trials' own.
        test: Trial number, or `baseline`, to metrics on the test split.

    Returns:
        `{"points": n, "accuracy": {"baseline": …, "front": …}, "loss": …}`: accuracy chosen by minus
        accuracy judged, and loss judged minus loss chosen by, so that more than zero is too good;
        of the front the mean over its points, left out where it has none.
    """
    found: dict[str, Any] = {"points": len(front)}
    for metric, sign in _BETTER.items():
        pairs = [(trial.metrics, test[str(trial.number)]) for trial in front]
        gaps = [sign * (chosen[metric] - judged[metric]) for chosen, judged in pairs if metric in judged]
        found[metric] = {"front": sum(gaps) / len(gaps)} if gaps else {}
        if metric in test[_BASELINE]:
            found[metric][_BASELINE] = sign * (baseline[metric] - test[_BASELINE][metric])
    return found


def _not_judged(evaluation: BasicEvaluation | None, splits: Mapping[str, Any]) -> str | None:
    """Why the test split cannot judge; None where it can."""
    if "test" not in splits:
        return "the data has no test split"
    if evaluation is None:
        return "nothing in use tells rows apart: the runner 'basic_evaluation' does, a function does not"
    return None


def _points(session: Session, study: Study) -> Iterator[Trial]:
    """The front, and the winner where its question leads elsewhere."""
    front = study.front()
    yield from front
    winner = session.winner(study)
    if winner is not None and all(winner.number != trial.number for trial in front):
        yield winner


def _changes(rows: Sequence[RowResults], reference: RowResults, seed: int) -> list[dict[str, Any]]:
    """Each model compared with the reference."""
    found: list[dict[str, Any]] = [
        {"accuracy": accuracy_change(row.correct, reference.correct).to_json()} for row in rows
    ]
    comparable = []
    for row, change in zip(rows, found, strict=True):
        lost = _not_finite(row.loss), _not_finite(reference.loss)
        if any(lost):
            change["loss_absent"] = f"losses that are not finite: {lost[0]} rows, the baseline's {lost[1]}"
        else:
            comparable.append((row.loss, change))
    losses = loss_changes([loss for loss, _ in comparable], reference.loss, seed)
    for (_, change), loss in zip(comparable, losses, strict=True):
        change["loss"] = loss.to_json()
    return found


def _not_finite(values: Tensor) -> int:
    return int((~torch.isfinite(values)).sum())


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that are numbers: `loss_absent` tells of the others."""
    return {name: value for name, value in metrics.items() if value == value}
