"""Calibration data: what fixes scales, re-estimates statistics and shows which layer matters."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from paretobit.graph import Example

Loss = Callable[[Any, Any], Tensor]
"""`loss(output of the model, target)`: the mean over the rows of a batch, a 0-d tensor."""


@dataclass(frozen=True)
class Calibration:
    """Rows that the search may learn from; they never judge.

    Attributes:
        batches: Inputs as the model takes them.
        targets: One for each batch; None where the data has none.
        loss: A user's loss. It is given the batch itself where there are no targets. None: the
            cross-entropy of logits, of labels drawn from the model's own distribution.
    """

    batches: tuple[Example, ...]
    targets: tuple[Any, ...] | None = None
    loss: Loss | None = None

    @classmethod
    def of_rows(cls, x: Tensor, y: Tensor | None, rows_per_batch: int, loss: Loss | None = None) -> Calibration:
        """Rows cut into batches of at most `rows_per_batch`, all of nearly the same size."""
        number = -(-len(x) // max(1, rows_per_batch))
        targets = None if y is None else tuple(torch.tensor_split(y, number))
        return cls(tuple(torch.tensor_split(x, number)), targets, loss)

    @property
    def fingerprint(self) -> str:
        """Changes when any input does, and any target that a user's loss looks at."""
        digest = hashlib.sha256()
        targets = () if self.loss is None else self.targets
        for tensor in tree_leaves([[_plain(batch) for batch in self.batches], targets]):
            if isinstance(tensor, Tensor):
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]


def _plain(batch: Example) -> Sequence[Any]:
    return list(batch.values()) if hasattr(batch, "values") and not isinstance(batch, Tensor) else [batch]
