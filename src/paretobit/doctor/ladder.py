"""Knobs one at a time: where each stands in the tree, and which of its options keeps most and which least."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

from paretobit.errors import BadInput
from paretobit.formats import FULL, parse
from paretobit.graph import ModelGraph, width_groups
from paretobit.passes.layers.entries import is_float
from paretobit.spaces import BoundSpace
from paretobit.spaces.knobs import Config, Knob, Tree, Value

Standing = Literal["least", "most"]
_TENSOR = (1, 1, 64)
_NOT_BITS = ("frac_width", "exponent_width")


@dataclass(frozen=True)
class KnobPlace:
    """A knob, and the values of those above it that make it active."""

    knob: Knob
    above: Mapping[str, Value] = field(default_factory=dict)

    def to(self, value: Value) -> dict[str, Value]:
        """The values that make it active and set it."""
        return {**self.above, self.knob.name: value}


class Ladder:
    """The options of every knob of a tree, from the one that keeps least of the model to the most.

    Args:
        tree: The knobs.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._ranks: dict[int, tuple[Knob, list[Value]]] = {}  # with the knob: its address is not given out again

    @cached_property
    def places(self) -> tuple[KnobPlace, ...]:
        """Every knob with a choice once, by name, in walking order."""
        found: dict[str, KnobPlace] = {}

        def visit(knobs: tuple[Knob, ...], above: Mapping[str, Value]) -> None:
            for knob in knobs:
                if len(knob.options) > 1:
                    found.setdefault(knob.name, KnobPlace(knob, above))
                for option in knob.options:
                    if option.knobs:
                        visit(option.knobs, {**above, knob.name: option.value})

        visit(self.tree.knobs, {})
        return tuple(found.values())

    def ranked(self, knob: Knob) -> list[Value]:
        """The options from least to most.

        Numbers by size, sparsities the other way round, formats by the bits of a tensor; anything else
        in the order in which it is listed, the first option last: no better is known.
        """
        if id(knob) not in self._ranks:
            self._ranks[id(knob)] = (knob, _ranked(knob))
        return self._ranks[id(knob)][1]

    def at(self, standing: Standing, changed: Mapping[str, Value] | None = None) -> Config:
        """The configuration with every knob at its most or at its least, but for those changed."""
        end, given = (-1 if standing == "most" else 0), changed or {}

        def choose(knob: Knob) -> Value:
            value = given.get(knob.name, self.ranked(knob)[end])
            return value if value in knob.values else self.ranked(knob)[end]

        return self.tree.walk(choose)

    def steps_down(self) -> Iterator[tuple[str, Config, Config]]:
        """Pairs of configurations of which the second has one width lower; the last pair all of them."""
        widths = [place for place in self.places if is_width(place.knob)]
        for place in widths:
            falling = [self.at("most", place.to(value)) for value in reversed(self.ranked(place.knob))]
            for higher, lower in itertools.pairwise(falling):
                yield place.knob.name, higher, lower
        if widths:
            lowest = {place.knob.name: self.ranked(place.knob)[0] for place in widths}
            yield "all widths at once", self.at("most"), self.at("most", lowest)


def is_width(knob: Knob) -> bool:
    """Whether fewer bits are stored the lower a knob stands: the width of a format, or whole formats."""
    if any(option.knobs for option in knob.options):
        return False
    if knob.ordered:
        return knob.name.endswith("width") and not knob.name.endswith(_NOT_BITS)
    return all(_bits(value) is not None for value in knob.values)


def full_precision(space: BoundSpace, graph: ModelGraph) -> Config | None:
    """A configuration that leaves the model as it is; None where the space has none.

    Knobs are decided one after the other, each for the first option that changes least.

    Args:
        space: Bound to the model.
        graph: Of the model.
    """
    ladder, chosen = Ladder(space.tree), dict[str, Value]()
    own = {group.name: group.width for group in width_groups(graph)} if space.changes_shapes else {}

    def changes(values: Mapping[str, Value]) -> int:
        config = ladder.at("most", values)
        formats = sum(f is not FULL for slots in space.formats(config).values() for f in slots.values())
        resized = sum(own.get(name) != width for name, width in space.widths(config).items())
        return formats + len(space.weights(config)) + resized

    for place in ladder.places:
        options = [{**chosen, **place.to(value)} for value in place.knob.values]
        if place.above.items() <= chosen.items():
            chosen = min(options, key=changes)
    return ladder.at("most", chosen) if changes(chosen) == 0 else None


def _ranked(knob: Knob) -> list[Value]:
    values = list(knob.values)
    if knob.ordered:
        return sorted(values, key=float, reverse=knob.name.endswith("sparsity"))  # type: ignore[arg-type]
    bits = [_bits(value) for value in values]
    if all(size is not None for size in bits):
        return [values[k] for k in sorted(range(len(values)), key=lambda k: bits[k] or 0.0)]
    return values[::-1]


@lru_cache(maxsize=4096)
def _bits(value: Value) -> float | None:
    """Bits of a tensor in the format that a value names; None where it names none."""
    if is_float(value):
        return math.inf
    if not isinstance(value, str):
        return None
    try:
        return float(parse(value).bits(_TENSOR))
    except BadInput:
        return None
