"""The data: splits that share no rows, labels in all of them, numbers everywhere, and how much is noise."""

import hashlib
import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from paretobit.doctor.base import Finding, Patient
from paretobit.trials.runners import BasicEvaluation
from paretobit.wanted.objectives import Constraint

_PAIRS = (("val", "train"), ("test", "train"), ("test", "val"))


def splits_share_no_rows(patient: Patient) -> Finding:
    """Rows of one split that are also in another, by their inputs.

    Real data holds some rows twice. They fail the check where they are more than the noise of the
    accuracy on so many rows, 1/sqrt(n): then what is learnt by heart shows in what is measured.
    """
    splits = patient.evidence.splits
    digests = {name: _digests(x) for name, (x, _) in splits.items()}
    evidence: dict[str, Any] = {name: {"rows": len(rows), "distinct": len({*rows})} for name, rows in digests.items()}
    said, many = [], False
    for name, other in _PAIRS:
        if name not in digests or other not in digests:
            continue
        known = set(digests[other])
        shared = sum(row in known for row in digests[name])
        evidence[f"{name} in {other}"] = shared
        said.append(f"{shared} of {len(digests[name])} rows of {name} are in {other}")
        many = many or shared > math.sqrt(len(digests[name]))
    if not said:
        return Finding("not applicable", "there are no two splits to compare", evidence)
    return Finding("failed" if many else "ok", "; ".join(said), evidence)


def every_split_has_every_class(patient: Patient) -> Finding:
    """Labels of each split: which there are, and how evenly."""
    splits = {name: y for name, (_, y) in patient.evidence.splits.items() if y.dim() == 1 and not y.is_floating_point()}
    if not splits:
        return Finding("not applicable", "the labels are no classes")
    counts = {name: Counter(y.tolist()) for name, y in splits.items()}
    classes = sorted({label for counted in counts.values() for label in counted})
    absent = [f"{name} lacks {label}" for name, counted in counts.items() for label in classes if not counted[label]]
    evidence = {name: {str(label): counted[label] for label in classes} for name, counted in counts.items()}
    if absent:
        return Finding("failed", f"of {len(classes)} classes {', '.join(absent[:8])}", evidence)
    shares = [f"{_balance(counted)} of {name}" for name, counted in counts.items()]
    return Finding("ok", f"{len(classes)} classes, each {', '.join(shares)}", evidence)


def every_number_is_finite(patient: Patient) -> Finding:
    """Inputs, weights, buffers, and the baseline's metrics."""
    tensors = {f"inputs of {name}": x for name, (x, _) in patient.evidence.splits.items()}
    tensors |= {f"targets of {name}": y for name, (_, y) in patient.evidence.splits.items()}
    tensors |= dict(patient.session.model.state_dict())
    bad = {name: _not_finite(tensor) for name, tensor in tensors.items()}
    bad |= {name: int(not math.isfinite(value)) for name, value in patient.baseline.items()}
    bad = {name: count for name, count in bad.items() if count}
    values = sum(tensor.numel() for tensor in tensors.values())
    if bad:
        listed = ", ".join(f"{count} in {name}" for name, count in list(bad.items())[:8])
        return Finding("failed", f"not finite: {listed}", {"values": values, "not_finite": bad})
    return Finding("ok", f"{values:,} values of data and model", {"values": values, "not_finite": {}})


def validation_can_tell(patient: Patient) -> Finding:
    """The smallest difference of two accuracies that is not noise: 2 sqrt(p (1 - p) / n).

    Fails where all accuracies of the sample lie within it, so that validation orders them by chance, and
    where a bound relative to the baseline is finer than one row.
    """
    runner = next((r for r in patient.runners if isinstance(r, BasicEvaluation)), None)
    if runner is None:
        return Finding("not applicable", "accuracy is not measured by basic_evaluation")
    if not patient.trained:
        return Finding("not applicable", "the model is not trained yet")
    p, n = patient.baseline["accuracy"], runner.samples
    noise = 2 * math.sqrt(p * (1 - p) / n)
    seen = [o.metrics["accuracy"] for o in patient.recorded.values() if "accuracy" in o.metrics]
    slack = {str(bound): bound.number for bound in _bounds(patient) if bound.relative in ("+", "-")}
    evidence = {"rows": n, "accuracy": p, "noise": noise, "smallest": min(seen), "largest": max(seen), "slack": slack}
    said = f"differences of accuracy below {noise:.4f} are noise: {n} rows at {p:.4f}"
    too_fine = [text for text, number in slack.items() if 0 < number < 1 / n]
    if too_fine:
        return Finding("failed", f"{too_fine[0]} asks for less than one row of {n}; {said}", evidence)
    if max(seen) - min(seen) < noise:
        spread = f"{len(seen)} accuracies lie between {min(seen):.4f} and {max(seen):.4f}"
        return Finding("failed", f"{spread}, but {said}", evidence)
    within = [text for text, number in slack.items() if 0 < number < noise]
    return Finding("ok", said + (f"; within it: {', '.join(within)}" if within else ""), evidence)


def _bounds(patient: Patient) -> list[Constraint]:
    """Constraints on the accuracy, those of the question among them."""
    question = None if patient.session.best is None else patient.problem.question(patient.session.best)
    every = (*patient.problem.constraints, *(question.constraints if question else ()))
    return [constraint for constraint in every if constraint.metric == "accuracy"]


def _digests(x: Tensor) -> list[bytes]:
    """One of each row's bytes; zeros are the same whatever their sign."""
    rows = x.detach().cpu().flatten(1) if x.dim() > 1 else x.detach().cpu()[:, None]
    values = (rows + 0 if rows.dtype != torch.bool else rows).contiguous().view(torch.uint8).numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in values]


def _balance(counted: Counter[int]) -> str:
    """Smallest and largest share of a class."""
    least, most = (end(counted.values()) / counted.total() for end in (min, max))
    return f"{least:.1%} to {most:.1%}"


def _not_finite(tensor: Tensor) -> int:
    return int((~torch.isfinite(tensor)).sum())
