"""Sums over layers that are known from the configuration alone, each term computed once."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from torch import Tensor, nn

from paretobit.passes.analysis.cost import NO_FORMATS, NO_VALUES, Slots
from paretobit.passes.layers.assignment import Assignment
from paretobit.spaces.base import Changed, Weights

_KEPT = 2**16  # answers: a search of days stays within some 100 MB
NO_WEIGHTS: Mapping[int, Changed] = {}
Values = Mapping[int, Tensor]
"""Parameters by their `id`, for those that are to have other values than they have."""


class LayerSum:
    """Adds a tuple of numbers per layer; terms are remembered per (layer, formats, weights).

    Args:
        owners: Path of each layer.
        term: `(index of the layer, its formats, values of parameters) -> numbers`.
        reads: The parameters at whose values the term of each layer looks; None: at those of none.
        model: That of the parameters.
    """

    def __init__(
        self,
        owners: Sequence[str],
        term: Callable[[int, Slots, Values], tuple[float, ...]],
        reads: Sequence[Iterable[nn.Parameter]] | None = None,
        model: nn.Module | None = None,
    ) -> None:
        self._term = term
        fixed = [term(i, NO_FORMATS, NO_VALUES) for i in range(len(owners))]
        self._base: tuple[float, ...] = tuple(map(sum, zip(*fixed, strict=True)))
        self._fixed = fixed
        self._calls: dict[str, list[int]] = {}
        self._readers: dict[int, dict[str, None]] = {}
        for i, owner in enumerate(owners):
            self._calls.setdefault(owner, []).append(i)
            for parameter in reads[i] if reads is not None else ():
                self._readers.setdefault(id(parameter), {})[owner] = None
        named = model.named_parameters(remove_duplicate=False) if model is not None else ()
        self._ids = {name: id(parameter) for name, parameter in named}
        self._known: dict[Hashable, tuple[float, ...]] = {}

    def __call__(self, formats: Assignment, weights: Weights | None = None) -> tuple[float, ...]:
        """The sum of a configuration; layers that the formats do not name are at full precision."""
        total: tuple[float, ...] = self._base
        changed = self._changed(weights) if weights else {}
        for owner, slots in ({**dict.fromkeys(changed, NO_FORMATS), **formats} if changed else formats).items():
            own = changed.get(owner, NO_WEIGHTS)
            key = (owner, tuple(slots.items()), *[(at, one.key) for at, one in own.items()])
            change = self._known.get(key)
            if change is None:
                change = self._change(owner, slots, {at: one.value() for at, one in own.items()})
                if all(one.key is not None for one in own.values()):
                    if len(self._known) >= _KEPT:
                        self._known.clear()
                    self._known[key] = change
            total = tuple([a + b for a, b in zip(total, change, strict=True)])
        return total

    def _changed(self, weights: Weights) -> dict[str, dict[int, Changed]]:
        """Path of a layer to those of its parameters whose values are others."""
        found: dict[str, dict[int, Changed]] = {}
        for name, changed in weights.items():
            for owner in self._readers.get(self._ids.get(name, 0), ()):
                found.setdefault(owner, {})[self._ids[name]] = changed
        return found

    def _change(self, owner: str, slots: Slots, values: Values) -> tuple[float, ...]:
        """What these formats and values change against full precision, over all calls of the layer."""
        change: tuple[float, ...] = (0,) * len(self._base)
        for i in self._calls.get(owner, ()):
            terms = zip(change, self._term(i, slots, values), self._fixed[i], strict=True)
            change = tuple(c + now - before for c, now, before in terms)
        return change
