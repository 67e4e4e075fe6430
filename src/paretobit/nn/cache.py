"""Quantised parameters, kept once per (layer, slot, format) while the parameter stays the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

DEFAULT_BUDGET = 256 * 2**20
_ENTERS = 8


class TensorCache:
    """Tensors computed from other tensors, the least recently used dropped beyond a byte budget.

    Of what comes when the budget is used up, every eighth enters.

    A change of the source is seen by its identity and version: an in-place change through `.data`
    or NumPy, which torch hides from the version, is not. Copies and pickles start empty.

    Args:
        budget: Bytes the cached tensors may take together.
    """

    def __init__(self, budget: int = DEFAULT_BUDGET) -> None:
        self.budget = budget
        self.used = 0
        self._turned_away = 0
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def __reduce__(self) -> tuple[type[TensorCache], tuple[int]]:
        return TensorCache, (self.budget,)

    def get(self, key: Hashable, source: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """The tensor for `key`, computed anew when `source` is another tensor or was changed."""
        if source.is_inference():  # has no version
            return compute(source)
        version = (id(source), source._version, source.data_ptr())
        entry = self._entries.get(key)
        if entry is not None and entry.version == version:
            self._entries.move_to_end(key)
            return entry.tensor
        if entry is not None:
            self._drop(key)
        with torch.inference_mode(False), torch.no_grad():  # usable by whoever asks next
            tensor = compute(source)
        if tensor.nbytes <= self.budget and self._may_enter(tensor.nbytes):
            self._entries[key] = _Entry(version, (source, source.detach()), tensor)
            self.used += tensor.nbytes
            while self.used > self.budget:
                self._drop(next(iter(self._entries)))
        return tensor

    def _may_enter(self, size: int) -> bool:
        """Into a full cache one in eight: who walks through more than fits would find nothing again."""
        if self.used + size <= self.budget:
            return True
        self._turned_away += 1
        return self._turned_away % _ENTERS == 0

    def keep_only(self, sources: Collection[int]) -> None:
        """Drop what was computed from other tensors than those of these addresses, or from an earlier state."""
        for key, entry in list(self._entries.items()):
            source = entry.alive[0]
            now = (id(source), source._version, source.data_ptr())
            if id(source) not in sources or entry.version != now:
                self._drop(key)

    def _drop(self, key: Hashable) -> None:
        self.used -= self._entries.pop(key).tensor.nbytes


class _Entry(NamedTuple):
    version: tuple[int, int, int]
    alive: tuple[Tensor, Tensor]  # the source and its memory: neither address can be given out again
    tensor: Tensor
