"""Quantised parameters, kept once per (layer, slot, format) while the parameter stays the same."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretobit.graph.contents import Content, content_of, known_content

DEFAULT_BUDGET = 256 * 2**20
_ENTERS = 8


class TensorCache:
    """Tensors computed from other tensors, the least recently used dropped beyond a byte budget.

    Of what comes when the budget is used up, every eighth enters.

    A change of the source is seen by its bits, of which a copy is kept: also one that torch does not count.

    Args:
        budget: Bytes the cached tensors may take together.
    """

    is_no_state: ClassVar[bool] = True  # of a model

    def __init__(self, budget: int = DEFAULT_BUDGET) -> None:
        self.budget = budget
        self.used = 0
        self._turned_away = 0
        self._sharing: Counter[int] = Counter()  # content to how many entries were computed from it
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def __reduce__(self) -> tuple[type[TensorCache], tuple[int]]:
        return TensorCache, (self.budget,)

    def get(self, key: Hashable, source: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """The tensor for `key`, computed anew when `source` holds other bits."""
        if torch.compiler.is_compiling():  # what is compiled computes it in every run
            return compute(source)
        entry = self._entries.get(key)
        if entry is not None and entry.content.is_in(source):
            self._entries.move_to_end(key)
            return entry.tensor
        if entry is not None:
            self._drop(key)
        with torch.inference_mode(False), torch.no_grad():  # usable by whoever asks next
            tensor = compute(source)
        known = known_content(source)
        shared = known is not None and known.number in self._sharing
        size = tensor.nbytes + (0 if shared else source.nbytes)
        if size <= self.budget and self._may_enter(size):
            content = known or content_of(source)
            self._entries[key] = _Entry(content, tensor)
            self._count(content, tensor, 1)
            while self.used > self.budget:
                self._drop(next(iter(self._entries)))
        return tensor

    def _may_enter(self, size: int) -> bool:
        """Into a full cache one in eight: who walks through more than fits would find nothing again."""
        if self.used + size <= self.budget:
            return True
        self._turned_away += 1
        return self._turned_away % _ENTERS == 0

    def _drop(self, key: Hashable) -> None:
        self._count(*self._entries.pop(key), -1)

    def _count(self, content: Content, tensor: Tensor, sign: int) -> None:
        """Of an entry that comes or goes; the copy of a source counts once for all that come from it."""
        others = self._sharing[content.number] - (sign < 0)
        self._sharing[content.number] += sign
        self.used += sign * (tensor.nbytes + (0 if others else content.copy.nbytes))
        if not self._sharing[content.number]:
            del self._sharing[content.number]


class _Entry(NamedTuple):
    content: Content
    tensor: Tensor
