"""Quantised parameters, kept once per (parameter version, format) within a byte budget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor

DEFAULT_BUDGET = 256 * 2**20


class TensorCache:
    """Least recently used tensors within a byte budget.

    Args:
        budget: Bytes the cached tensors may take together.
    """

    def __init__(self, budget: int = DEFAULT_BUDGET) -> None:
        self.budget = budget
        self.used = 0
        self._entries: OrderedDict[Hashable, tuple[Hashable, Tensor]] = OrderedDict()

    def get(self, key: Hashable, version: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """The tensor for `key`, computed anew when `version` differs from the stored one."""
        entry = self._entries.get(key)
        if entry is not None and entry[0] == version:
            self._entries.move_to_end(key)
            return entry[1]
        if entry is not None:
            self._drop(key)
        tensor = compute()
        if tensor.nbytes <= self.budget:
            self._entries[key] = (version, tensor)
            self.used += tensor.nbytes
            while self.used > self.budget:
                self._drop(next(iter(self._entries)))
        return tensor

    def _drop(self, key: Hashable) -> None:
        _, tensor = self._entries.pop(key)
        self.used -= tensor.nbytes
