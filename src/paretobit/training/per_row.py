"""What a classifier makes of every single row."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from paretobit.training.evaluate import run_on_view


@dataclass(frozen=True)
class RowResults:
    """What a model does on each row of a split.

    Attributes:
        correct: Whether the row's class has the largest logit, bool `(rows,)`.
        loss: Cross-entropy of each row in nats, float64 `(rows,)`.
    """

    correct: Tensor
    loss: Tensor

    @property
    def metrics(self) -> dict[str, float]:
        """Accuracy in [0, 1] and mean loss in nats."""
        return {"accuracy": self.correct.double().mean().item(), "loss": self.loss.mean().item()}


def per_row(model: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> RowResults:
    """Run a classifier over rows, in the mode it is in.

    Args:
        model: Maps `(rows, ...)` to logits `(rows, classes)`.
        x: Inputs, rows first; left as they are.
        y: Labels, int64 `(rows,)` in [0, classes).
        batch_size: Rows per forward pass.
    """
    correct, losses = [], []
    with torch.no_grad():
        for rows, labels in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
            logits = run_on_view(model, rows)
            correct.append(logits.argmax(1) == labels)
            losses.append(cross_entropy(logits, labels, reduction="none").double())
    return RowResults(torch.cat(correct), torch.cat(losses))
