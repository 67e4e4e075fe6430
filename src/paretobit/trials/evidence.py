"""What a search may look at: the graph of the float model, and the data."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from paretobit.data.augment import Augmentation
from paretobit.data.calibration import Calibration
from paretobit.errors import BadInput
from paretobit.graph import ModelGraph

_ELEMENTS_PER_PASS = 2**18  # beyond a few MB every result comes in fresh pages: half the speed


@dataclass(frozen=True)
class Evidence:
    """What runners may look at: the float model's graph and the data.

    Attributes:
        graph: Of the float model; shapes for one row.
        splits: `train`, `val` and, where there is one, `test`: inputs and labels, rows first.
        calibration: Rows that the search may learn from.
        augment: Changes to apply to rows that are trained on.
    """

    graph: ModelGraph
    splits: Mapping[str, tuple[Tensor, Tensor]]
    calibration: Calibration | None = None
    augment: Augmentation | None = None

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """Inputs and labels of a split.

        Raises:
            BadInput: There is no such split.
        """
        if name not in self.splits:
            raise BadInput("no such split of the data", key="split", found=name, allowed=list(self.splits))
        return self.splits[name]

    @cached_property
    def rows_per_pass(self) -> int:
        """Rows that one forward pass may take so that its largest activation stays near 1 MB."""
        rows = [math.prod(node.output_shape[1:]) for node in self.graph if node.output_shape]
        return max(1, _ELEMENTS_PER_PASS // max([1, *rows]))


def fingerprint(model: nn.Module, splits: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, str]:
    """Digests of the model's weights and of the data."""
    return {
        "model": _digest(model.state_dict().items()),
        "data": _digest(
            (f"{name}.{part}", t) for name, pair in splits.items() for part, t in zip("xy", pair, strict=True)
        ),
    }


def _digest(tensors: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        if not isinstance(tensor, Tensor):  # extra state, packed parameters
            digest.update(f"{name} {tensor!r}".encode())
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
