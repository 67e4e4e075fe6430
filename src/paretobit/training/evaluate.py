"""Loss and accuracy of a classifier on tensors in memory: the one path that training and search share."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.graph.contents import same_bits, unchanged

Run = Callable[[Tensor, int], Tensor]
_FEW = 32  # classes


@dataclass(frozen=True)
class Evaluation:
    """What one pass over a split gave: mean cross-entropy in nats, micro accuracy in [0, 1], rows."""

    loss: float
    accuracy: float
    samples: int


class Batches:
    """Rows and labels in batches, with what their evaluation needs again every time.

    Args:
        x: Inputs, rows first.
        y: Labels, int64 `(rows,)` in [0, classes).
        batch_size: Rows per forward pass.
    """

    def __init__(self, x: Tensor, y: Tensor, batch_size: int) -> None:
        self.rows, self.device = len(x), x.device
        self.inputs = torch.split(x, batch_size)
        self.targets = [Targets(labels) for labels in torch.split(y, batch_size)]


def evaluate(model: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> Evaluation:
    """Run `model` over rows `x`, in the mode it is in, and compare with labels `y`.

    Args:
        model: Maps `(rows, ...)` to logits `(rows, classes)`.
        x: Inputs, rows first.
        y: Labels, int64 `(rows,)` in [0, classes).
        batch_size: Rows per forward pass.
    """
    return evaluate_batches(lambda batch, _: run_on_view(model, batch), Batches(x, y, batch_size))


def evaluate_batches(run: Run, batches: Batches, quiet: bool = False) -> Evaluation:
    """Compare what `run` gives for each batch with the labels.

    Args:
        run: Logits `(rows, classes)` of a batch; also given the number of the batch.
        batches: Inputs and labels.
        quiet: Nothing is written in a run: whether weights have changed is looked at once.
    """
    loss, correct = 0.0, 0
    with torch.no_grad(), unchanged() if quiet else nullcontext():
        for number, (batch, targets) in enumerate(zip(batches.inputs, batches.targets, strict=True)):
            batch_loss, batch_correct = targets.loss_and_correct(run(batch, number))
            loss, correct = loss + batch_loss.item(), correct + int(batch_correct.item())
    return Evaluation(loss / batches.rows, correct / batches.rows, batches.rows)


class Targets:
    """The labels of a batch.

    >>> logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    >>> loss, correct = Targets(labels).loss_and_correct(logits)
    >>> bool(torch.isclose(loss, nn.functional.cross_entropy(logits, labels, reduction="sum").double()))
    True
    >>> correct.item()
    1
    """

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels
        self._classes = 0
        self._place = self._before = labels  # until the number of classes is known

    def loss_and_correct(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy (0-d float64) and number of correct rows (0-d int64).

        Few classes are reduced with one contiguous row per class: `cross_entropy` and `argmax` walk
        the classes of each sample instead and take about seven times as long. A row is correct where
        `argmax` gives its label: the first of the largest.
        """
        if logits.shape[1] > _FEW:
            correct = torch.count_nonzero(logits.max(1).indices == self.labels)
            chosen = F.log_softmax(logits, 1).gather(1, self.labels[:, None])
            return -chosen.sum(dtype=torch.float64), correct
        columns = logits.t()
        if not columns.is_contiguous():
            columns = torch.stack(logits.unbind(1))  # three times as fast as contiguous()
        place, before = self._of(columns)
        own = columns.view(-1).index_select(0, place)
        earlier = torch.minimum(columns, before).amax(0)
        correct = torch.count_nonzero((own == columns.amax(0)).logical_and_(own > earlier))
        chosen = F.log_softmax(columns, 0).view(-1).index_select(0, place)
        return -chosen.sum(dtype=torch.float64), correct

    def _of(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Where each label stands in `(classes, rows)`; and a bound that leaves only the classes before it."""
        if self._classes != len(columns) or self._before.dtype != columns.dtype:
            self._classes, rows = columns.shape
            self._place = self.labels * rows + torch.arange(rows, device=columns.device)
            classes = torch.arange(self._classes, device=columns.device)[:, None]
            bound = torch.full_like(columns, -torch.inf)
            self._before = bound.masked_fill_(classes < self.labels, torch.inf)
        return self._place, self._before


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
        raise BadInput("labels outside the model's classes", key="labels", found=f"{low} to {high}", allowed=allowed)


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
        _works_in_place[model] = copied._version != version or not same_bits(copied, batch)
    return result
