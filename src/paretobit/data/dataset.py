"""A data set in memory: tensors, split once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from paretobit.data.augment import Augmentation
from paretobit.errors import BadInput


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and labels of one set.

    Args:
        name: `train`, `val` or `test`.
        x: Inputs, rows first: float32 features N×F or images N×C×H×W, or int64 token ids N×T.
        y: Labels (N,), int64, values in 0..C-1.
    """

    name: str
    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class Data:
    """A data set, ready to use. Validation data chooses, test data only judges.

    Args:
        name: The source it came from.
        train: What weights, and everything else that is fitted, are fitted on.
        val: What candidates are compared on.
        test: What the chosen ones are judged on, if there is one.
        classes: Class names by index.
        augment: Changes to apply to training images, if any.
        preprocessing: What was applied and fitted, JSON-able.
    """

    name: str
    train: Split
    val: Split
    test: Split | None
    classes: tuple[str, ...]
    augment: Augmentation | None = None
    preprocessing: dict[str, Any] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The sets there are, in the order train, val, test."""
        return tuple(split for split in (self.train, self.val, self.test) if split is not None)

    def split(self, name: str) -> Split:
        """The set called `name`.

        Raises:
            BadInput: There is no such set.
        """
        found = {split.name: split for split in self.splits}
        if name not in found:
            raise BadInput(f"'{self.name}' has no such split", key="split", found=name, allowed=list(found))
        return found[name]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample, without the batch."""
        return tuple(self.train.x.shape[1:])

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def tokens(self) -> dict[str, int] | None:
        """`vocab_size` and `pad` of the token ids of sentences; None for other inputs."""
        known = {key: self.preprocessing.get(key) for key in ("vocab_size", "pad")}
        numbers = {key: value for key, value in known.items() if isinstance(value, int)}
        return numbers if len(numbers) == len(known) else None

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that depend on every byte of every split, and on nothing else."""
        digest = hashlib.sha256()
        for split in self.splits:
            for tensor in (split.x, split.y):
                digest.update(f"{split.name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def flattened(self) -> Data:
        """The same values with each sample as a vector; what is flat already, token ids included, stays.

        Raises:
            BadInput: Augmentation is set, which needs images.
        """
        if len(self.input_shape) == 1:
            return self
        if self.augment is not None:
            problem = "crop_padding and flip need images, and this model takes feature vectors"
            raise BadInput(problem, key="data.crop_padding", found=self.augment)
        flat = {split.name: replace(split, x=split.x.flatten(1)) for split in self.splits}
        applied = {**self.preprocessing, "flattened_from": list(self.input_shape)}
        return replace(self, train=flat["train"], val=flat["val"], test=flat.get("test"), preprocessing=applied)

    def summary(self) -> str:
        """One line: name, sizes, shape of a sample, classes."""
        sizes = " + ".join(f"{len(split):,} {split.name}" for split in self.splits)
        shape = "×".join(map(str, self.input_shape))
        kind = self.preprocessing.get("kind", "inputs")
        return f"{self.name}: {sizes}; {kind} {shape}, {self.num_classes} classes"
