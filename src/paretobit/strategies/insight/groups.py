"""Which knobs are decided together, and which options each of these groups has."""

import math
import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from paretobit.formats import FULL
from paretobit.spaces import BoundSpace
from paretobit.spaces.knobs import Config, Knob, Tree, Value
from paretobit.strategies.insight.insight import assembled

MOST_OPTIONS = 1024
"""Of one group: each is a variable of the knapsack, and one evaluation of the costs before it. Beyond, the
best formats of each family and size are found for each slot apart."""
_ALIKE = 64  # of them for choices that go evenly through all parts: as many steps as a slot has sizes, or more

Values = dict[str, Value]
Place = tuple[str, str]
"""Path of a layer, and a slot or `PRUNED`."""
PRUNED = "pruned"
Unit = tuple[str, str, Hashable]
"""Path of a layer, a slot and the format in it; or `PRUNED` and what is done to the weights."""
Reduce = Callable[["KnobGroup", list[Values], Values, set[Place]], list[Values]]
"""Keeps some of the choices of a few knobs of a group.

It is given the values of the group's other knobs, and the places that the few knobs decide.
"""


@dataclass(frozen=True, eq=False)
class KnobGroup:
    """Local knobs of the first level that act on the same layers.

    Attributes:
        knobs: In the order of the tree.
        paths: The layers.
    """

    knobs: tuple[Knob, ...]
    paths: tuple[str, ...]

    @cached_property
    def tree(self) -> Tree:
        """The knobs, as a tree of their own."""
        return Tree(self.knobs)

    @cached_property
    def names(self) -> frozenset[str]:
        """Of all its knobs, those that others own included."""
        return frozenset(knob.name for knob in self.tree.all_knobs())

    @property
    def first(self) -> Values:
        """Its first option."""
        return dict(self.tree.at(0))


def knob_groups(space: BoundSpace) -> tuple[KnobGroup, ...]:
    """The local knobs of a space; those that act on one layer are decided together."""
    acts_on = space.acts_on()
    groups: list[tuple[list[Knob], set[str]]] = []
    for knob in space.tree.knobs:
        if knob.name not in acts_on:
            continue
        paths = set(acts_on[knob.name])
        touched = [group for group in groups if group[1] & paths]
        knobs = [known for group in touched for known in group[0]]
        places = set.union(paths, *(group[1] for group in touched))
        groups = [group for group in groups if group not in touched] + [([*knobs, knob], places)]
    order = {knob.name: i for i, knob in enumerate(space.tree.knobs)}
    groups.sort(key=lambda group: order[group[0][0].name])
    return tuple(KnobGroup(tuple(knobs), tuple(sorted(paths))) for knobs, paths in groups)


class Treatments:
    """What values of knobs do to the layers of their group.

    Args:
        space: The space.
        around: A configuration that the other knobs are taken from.
    """

    def __init__(self, space: BoundSpace, around: Config) -> None:
        self._space, self._around = space, dict(around)
        self._units: dict[tuple[KnobGroup, Config], dict[Place, Unit]] = {}

    def config(self, *values: Mapping[str, Value]) -> Config:
        """The configuration with these values."""
        return assembled(self._space.tree, self._around, *values)

    def units(self, group: KnobGroup, values: Mapping[str, Value], places: Iterable[Place] = ()) -> dict[Place, Unit]:
        """What the layers of a group carry under values of its knobs.

        Full precision, and weights as they are, are only named at `places`.
        """
        own = assembled(group.tree, self._around, values)
        if (group, own) not in self._units:
            others = {name: value for name, value in self._around.items() if name not in group.names}
            self._units[group, own] = self._carried(group, Config(others | dict(own)))
        found = dict(self._units[group, own])
        for path, slot in places:
            found.setdefault((path, slot), (path, slot, None if slot == PRUNED else FULL))
        return found

    def _carried(self, group: KnobGroup, config: Config) -> dict[Place, Unit]:
        formats, prunings = self._space.formats(config), self._space.prunings(config)
        found: dict[Place, Unit] = {}
        for path in group.paths:
            found |= {(path, slot): (path, slot, f) for slot, f in formats.get(path, {}).items()}
            if path in prunings:
                found[path, PRUNED] = (path, PRUNED, prunings[path])
        return found


def options_of(treatments: Treatments, group: KnobGroup, reduce: Reduce) -> list[Values]:
    """The options of a group: all of them, or where they are too many, those that can be best.

    Args:
        treatments: What values do.
        group: The group.
        reduce: Is only asked where the options are too many.
    """
    return _options(treatments, group, group.knobs, group.first, reduce)


def _options(
    treatments: Treatments, group: KnobGroup, knobs: Sequence[Knob], around: Values, reduce: Reduce
) -> list[Values]:
    if math.prod(knob.size for knob in knobs) <= MOST_OPTIONS:
        return _some(knobs)
    parts = []
    for factor, places in _factors(treatments, group, knobs, around):
        choices = []
        if len(factor) == 1:
            for option in factor[0].options:
                chosen = {factor[0].name: option.value}
                within = {**around, **chosen, **dict(Tree(option.knobs).at(0))}
                inner = _options(treatments, group, option.knobs, within, reduce) if option.knobs else [{}]
                choices += [{**chosen, **values} for values in inner]
        else:
            choices = _some(factor)
        parts.append(reduce(group, choices, around, places))
    return _combined(parts)


def _some(knobs: Sequence[Knob]) -> list[Values]:
    """Every choice of these knobs; of more than `MOST_OPTIONS`, some, the first and the last included."""
    tree = Tree(tuple(knobs))
    return [dict(tree.at(index)) for index in _numbers(tree.size)]


def _combined(parts: Sequence[Sequence[Values]]) -> list[Values]:
    """Every choice of the one with every choice of the others.

    Of more than `MOST_OPTIONS`, some: those in which all parts are about as far from the first choice to
    the last, then others.
    """
    sizes = [len(part) for part in parts]
    numbers = _numbers(math.prod(sizes))
    if math.prod(sizes) > MOST_OPTIONS:
        shares = [i / (_ALIKE - 1) for i in range(_ALIKE)]
        alike = [_rank([round(share * (size - 1)) for size in sizes], sizes) for share in shares]
        numbers = list(dict.fromkeys([*alike, *numbers]))[:MOST_OPTIONS]
    found = []
    for number in numbers:
        values: Values = {}
        for part in reversed(parts):
            number, k = divmod(number, len(part))
            values = {**part[k], **values}
        found.append(values)
    return found


def _rank(digits: Sequence[int], sizes: Sequence[int]) -> int:
    """The number of these digits, the first the most significant."""
    number = 0
    for digit, size in zip(digits, sizes, strict=True):
        number = number * size + digit
    return number


def _numbers(size: int) -> Sequence[int]:
    """The numbers from 0 to `size - 1`; at most `MOST_OPTIONS` of them, the others drawn at random."""
    if size <= MOST_OPTIONS:
        return range(size)
    draw = random.Random(0)  # evenly spaced ones would all have the same last digits
    drawn = {0, size - 1}
    while len(drawn) < MOST_OPTIONS:
        drawn.add(draw.randrange(size))
    return sorted(drawn)


def _factors(
    treatments: Treatments, group: KnobGroup, knobs: Sequence[Knob], around: Values
) -> list[tuple[list[Knob], set[Place]]]:
    """Knobs that act on the same slots stay together; the others can be decided apart. And these slots."""
    plain = treatments.units(group, around)
    factors: list[tuple[list[Knob], set[Place]]] = []
    for knob in knobs:
        places: set[Place] = set()
        for option in knob.options:
            changed = treatments.units(group, {**around, **Tree((Knob(knob.name, (option,)),)).at(0)})
            places |= {place for place in {*plain, *changed} if plain.get(place) != changed.get(place)}
        own = {place for place in places if place[1] != "bias"}  # an accumulator's follows from the others
        places = own or places
        touched = [factor for factor in factors if factor[1] & places]
        merged = ([k for f in touched for k in f[0]] + [knob], set.union(places, *(f[1] for f in touched)))
        factors = [factor for factor in factors if factor not in touched] + [merged]
    return factors
