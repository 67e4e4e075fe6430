"""The model itself: what it calls, what it keeps, and whether it follows its weights and its rows.

Each check runs a copy of the model on rows of the data and compares it with another copy that nothing
happened to. What the search copes with is a warning, what makes its numbers wrong is a failure.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from paretobit.doctor.base import Finding, Patient
from paretobit.graph import Example, called_in_turn
from paretobit.graph.copies import copy_of
from paretobit.passes.streaming import call, copied
from paretobit.runtime import seeded

_ROWS = 3
_EVERY_MODULES = vars(nn.Module())
_NO_ROWS = "no rows are known: neither data nor calibration was given"


def every_run_calls_the_same(patient: Patient) -> Finding:
    """The functions that a run calls do not depend on the batch, or on whether it is the first."""
    batches = _batches(patient)
    if not batches:
        return Finding("not applicable", _NO_ROWS)
    runs = called_in_turn(patient.evidence.graph.model, (batches[0], *batches))
    called = [calls for calls in runs if not isinstance(calls, Exception)]
    if not called:
        return Finding("failed", "the model does not run on its own rows")
    always, ever = frozenset.intersection(*called), frozenset.union(*called)
    apart = sorted({f"{owner}.{op}".removeprefix(".") for owner, op, _ in ever - always})
    evidence = {"runs": len(called), "functions": len(ever), "not in every run": apart}
    if apart:
        named = ", ".join(apart[:3]) + (" …" if len(apart) > 3 else "")
        said = f"{len(apart)} functions are not called in every run: {named}; formats keep to their place in the code"
        return Finding("warn", said, evidence)
    return Finding("ok", f"{len(ever)} functions called in each of {len(called)} runs", evidence)


def weights_are_followed(patient: Patient) -> Finding:
    """A run after a weight was changed gives what a copy with that weight gives that never ran before."""
    batches = _batches(patient)
    if not batches:
        return Finding("not applicable", _NO_ROWS)
    used = _fresh(patient)
    _run(used, batches[0])
    names = [name for name, p in used.named_parameters() if p.is_floating_point() and p.numel()]
    evidence = {"parameters": len(names)}
    if _follows(patient, used, names, batches[0]):
        return Finding("ok", f"{len(names)} parameters were changed: results follow", evidence)
    stale = next((name for name in names if not _follows(patient, used, [name], batches[0])), "several at once")
    said = f"the model keeps results of its weights: with {stale} changed it computes otherwise than afresh"
    return Finding("failed", said, {**evidence, "not followed": stale})


def _follows(patient: Patient, used: nn.Module, names: Sequence[str], batch: Example) -> bool:
    """Whether a model that ran before gives with other weights what a copy gives that did not."""
    changed, before = _fresh(patient), {name: used.get_parameter(name).detach().clone() for name in names}
    for model in (used, changed):
        for name in names:
            model.get_parameter(name).data.mul_(1.25)  # hidden from torch's own version counter
    same = _alike(_run(used, batch), _run(changed, batch))
    for name, value in before.items():
        used.get_parameter(name).data.copy_(value)
    return same


def runs_leave_the_model_alone(patient: Patient) -> Finding:
    """Buffers, parameters and attributes are after a run in evaluation mode what they were before."""
    batches = _batches(patient)
    if not batches:
        return Finding("not applicable", _NO_ROWS)
    used, untouched = _fresh(patient), _fresh(patient)
    first = _run(used, batches[0])
    written = sorted(name for name, value in _state(used).items() if not _alike(value, _state(untouched).get(name)))
    again = _run(used, batches[0])
    evidence = {"written": written}
    if written:
        follows = "" if _alike(first, again) else ", and the next run differs"
        said = f"a run writes {', '.join(written[:3])}{follows}: it is put back after every trial"
        return Finding("warn", said, evidence)
    if not _alike(first, again):
        return Finding("failed", "two runs on the same rows differ, and nothing in the model says why", evidence)
    return Finding("ok", f"{len(_state(used))} tensors and attributes as before; two runs agree", evidence)


def rows_stand_alone(patient: Patient) -> Finding:
    """What a row gives depends neither on how many rows there are nor on the others."""
    batches = [batch for batch in _batches(patient) if _rows_of(batch) >= _ROWS]
    if not batches:
        return Finding("not applicable", f"no batch of {_ROWS} rows is known")
    batch = _first(batches[0], _ROWS)
    model = _fresh(patient)
    whole = _run(model, batch)
    differ, refused = [], {}
    for rows in range(1, _ROWS):
        try:
            part = _run(_fresh(patient), _first(batch, rows))
        except Exception as error:  # whatever a model's forward raises
            refused[rows] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            continue
        if not _close(part, _first(whole, rows)):
            differ.append(rows)
    evidence = {"rows": _ROWS, "differ": differ, "refused": refused}
    if differ and not refused:
        number = "one row" if differ[0] == 1 else f"{differ[0]} rows"
        said = f"with {number} a row gives otherwise than among {_ROWS}: metrics depend on the batch size"
        return Finding("warn", said, evidence)
    if refused:
        return Finding("warn", f"the model does not run on one row: {next(iter(refused.values()))}", evidence)
    return Finding("ok", f"a row gives the same alone and among {_ROWS}", evidence)


def _batches(patient: Patient) -> list[Example]:
    """A few batches: the first and the last rows of each split, and the calibration's."""
    calibration = patient.evidence.calibration
    splits = [x for x, _ in patient.session.splits.values() if len(x)]
    known: list[Example] = [part for x in splits for part in (x[: 2 * _ROWS], x[-2 * _ROWS :])]
    if calibration is not None:
        known += [calibration.batches[0], calibration.batches[-1]]
    return known


def _fresh(patient: Patient) -> nn.Module:
    return copy_of(patient.evidence.graph.model).eval()


def _run(model: nn.Module, batch: Example) -> list[Any]:
    """The tensors that a run gives, on copies of the rows and the same random numbers."""
    with torch.no_grad(), seeded(0):
        result = call(model, batch)
    return [copied(leaf) for leaf in tree_leaves(_plain(result)) if isinstance(leaf, Tensor)]


def _state(model: nn.Module) -> dict[str, Any]:
    """Tensors of a model by name, and the plain attributes of its modules."""
    found: dict[str, Any] = dict(model.named_parameters()) | dict(model.named_buffers())
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name not in _EVERY_MODULES and not isinstance(value, nn.Module):
                found[f"{path}.{name}".lstrip(".")] = value
    return found


def _alike(one: Any, other: Any) -> bool:
    """Whether two values hold the same, tensors to the last bit."""
    left, right = tree_leaves(one), tree_leaves(other)
    return len(left) == len(right) and all(map(_same, left, right))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return (
            one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num())
        )
    plain = isinstance(one, int | float | str | bool | None)
    return one == other if plain else type(one) is type(other)


def _close(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether results agree as far as the order of summation lets them."""
    return len(one) == len(other) and all(
        a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-3, atol=1e-4, equal_nan=True)
        for a, b in zip(one, other, strict=True)
    )


def _rows_of(batch: Any) -> int:
    return min((len(t) for t in tree_leaves(_plain(batch)) if isinstance(t, Tensor) and t.dim()), default=0)


def _plain(batch: Any) -> Any:
    return dict(batch) if isinstance(batch, Mapping) else batch


def _first(batch: Any, rows: int) -> Any:
    return tree_map(lambda t: t[:rows] if isinstance(t, Tensor) and t.dim() else t, _plain(batch))
