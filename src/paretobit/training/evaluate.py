"""Loss and accuracy of a classifier on tensors in memory: the one path that training and search share."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput


@dataclass(frozen=True)
class Evaluation:
    """What one pass over a split gave: mean cross-entropy in nats, micro accuracy in [0, 1], rows."""

    loss: float
    accuracy: float
    samples: int


def evaluate(model: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> Evaluation:
    """Run `model` over rows `x`, in the mode it is in, and compare with labels `y`.

    Args:
        model: Maps `(rows, ...)` to logits `(rows, classes)`.
        x: Inputs, rows first.
        y: Labels, int64 `(rows,)` in [0, classes).
        batch_size: Rows per forward pass.
    """
    loss = torch.zeros((), dtype=torch.float64, device=x.device)
    correct = torch.zeros((), dtype=torch.int64, device=x.device)
    with torch.no_grad():
        for start in range(0, len(x), batch_size):
            labels = y[start : start + batch_size]
            logits = run_on_view(model, x[start : start + batch_size])
            batch_loss, batch_correct = loss_and_correct(logits, labels)
            loss += batch_loss
            correct += batch_correct
    return Evaluation(loss.item() / len(x), correct.item() / len(x), len(x))


def check_classifier(model: nn.Module, x: Tensor, y: Tensor, otherwise: str = "") -> None:
    """Refuse a model that is no classifier of these rows: one row is run through it, in the mode it is in.

    Args:
        model: What should map `(rows, ...)` to logits `(rows, classes)`.
        x: Inputs, rows first.
        y: Labels.
        otherwise: What to do with other models, for messages.

    Raises:
        BadInput: It does not run on them, gives no logits, or the labels are not its classes.
    """
    try:
        with torch.no_grad():
            logits = run_on_view(model, x[:1])
    except Exception as error:  # a user's model can fail in any way at all
        problem = f"the model does not run on this data: {type(error).__name__}: {error}"
        raise BadInput(problem, key="model input", found=tuple(x[:1].shape)) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != 1:
        raise BadInput(
            f"accuracy needs a classifier{otherwise}",
            key="model output",
            found=tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__,
            allowed="logits of shape (rows, classes)",
        )
    if y.dim() != 1 or y.is_floating_point():
        raise BadInput(
            f"accuracy needs class labels{otherwise}",
            key="labels",
            found=f"{str(y.dtype).removeprefix('torch.')} of shape {tuple(y.shape)}",
            allowed="one integer a row",
        )
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= logits.shape[1]:
        allowed = f"0 to {logits.shape[1] - 1}"
        raise BadInput(
            "labels outside the model's classes", key="labels", found=f"{low} to {high}", allowed=allowed
        )


_works_in_place: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def run_on_view(model: nn.Module, batch: Tensor) -> Tensor:
    """`model(batch)` with `batch` left as it was, copied only for models that write into their input.

    A model is watched at its first call: an in-place first layer would change the data set.
    """
    known = _works_in_place.get(model)
    if known is False:
        result: Tensor = model(batch)
        return result
    copied = batch.clone()
    version = copied._version
    result = model(copied)
    if known is None:
        _works_in_place[model] = copied._version != version
    return result


def loss_and_correct(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy (0-d float64) and number of correct rows (0-d int64).

    The classes are reduced with one contiguous row per class: `cross_entropy` walks the few
    classes of each sample instead and takes about five times as long.

    >>> logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    >>> loss, correct = loss_and_correct(logits, labels)
    >>> bool(torch.isclose(loss, nn.functional.cross_entropy(logits, labels, reduction="sum").double()))
    True
    >>> correct.item()
    1
    """
    correct = (logits.argmax(1) == labels).sum()
    target = logits.gather(1, labels[:, None]).squeeze(1)
    columns = logits.t().contiguous()
    peak = columns.amax(0)
    loss = (columns - peak).exp_().sum(0).log_().add_(peak).sub_(target)
    return loss.sum(dtype=torch.float64), correct
