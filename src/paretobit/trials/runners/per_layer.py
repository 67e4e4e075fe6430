"""Sums over layers that are known from the formats alone, each term computed once."""

from collections.abc import Callable, Sequence

from paretobit.passes.analysis.cost import NO_FORMATS, Slots
from paretobit.passes.layers.assignment import Assignment

_KEPT = 2**16  # answers: a search of days stays within some 100 MB


class LayerSum:
    """Adds a tuple of numbers per layer; terms are remembered per (layer, formats).

    Args:
        owners: Path of each layer.
        term: `(index of the layer, its formats) -> numbers`.
    """

    def __init__(self, owners: Sequence[str], term: Callable[[int, Slots], tuple[float, ...]]) -> None:
        self._term = term
        fixed = [term(i, NO_FORMATS) for i in range(len(owners))]
        self._base: tuple[float, ...] = tuple(map(sum, zip(*fixed, strict=True)))
        self._fixed = fixed
        self._calls: dict[str, list[int]] = {}
        for i, owner in enumerate(owners):
            self._calls.setdefault(owner, []).append(i)
        self._known: dict[tuple[str, tuple[object, ...]], tuple[float, ...]] = {}

    def __call__(self, formats: Assignment) -> tuple[float, ...]:
        """The sum under an assignment; layers it does not name are at full precision."""
        total: tuple[float, ...] = self._base
        for owner, slots in formats.items():
            key = (owner, tuple(slots.items()))
            change = self._known.get(key)
            if change is None:
                if len(self._known) >= _KEPT:
                    self._known.clear()
                change = self._known[key] = self._change(owner, slots)
            total = tuple([a + b for a, b in zip(total, change, strict=True)])
        return total

    def _change(self, owner: str, slots: Slots) -> tuple[float, ...]:
        """What these formats change against full precision, over all calls of the layer."""
        change: tuple[float, ...] = (0,) * len(self._base)
        for i in self._calls.get(owner, ()):
            terms = zip(change, self._term(i, slots), self._fixed[i], strict=True)
            change = tuple(c + now - before for c, now, before in terms)
        return change
