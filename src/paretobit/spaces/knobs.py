"""The space tree: knobs, their options, and the configurations they make."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from paretobit.errors import BadInput

Value = str | int | float | bool | None


class Config(Mapping[str, Value]):
    """The active knobs of one configuration: ordered, hashable, unchanged by JSON.

    Two are equal when the same knobs, in the same order, have the same values of the same types.

    >>> config = Config({"linear.weight_width": 8})
    >>> config == Config.from_json(config.to_json())
    True
    """

    __slots__ = ("_key", "_values")

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(values)
        self._key: tuple[tuple[str, type, Value], ...] | None = None

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(self._identity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self._identity == other._identity

    @property
    def _identity(self) -> tuple[tuple[str, type, Value], ...]:
        if self._key is None:
            self._key = tuple([(name, type(value), value) for name, value in self._values.items()])
        return self._key

    def __reduce__(self) -> tuple[type[Config], tuple[dict[str, Value]]]:
        return Config, (self._values,)  # the hash of a string differs from process to process

    def __repr__(self) -> str:
        return f"Config({self._values!r})"

    def to_json(self) -> str:
        """One line of JSON, knobs in order."""
        return json.dumps(self._values)

    @classmethod
    def from_json(cls, text: str) -> Config:
        """What `to_json` wrote."""
        return cls(json.loads(text))


@dataclass(frozen=True)
class Option:
    """One value of a knob, and the knobs that are active only while it is chosen."""

    value: Value
    knobs: tuple[Knob, ...] = ()

    @cached_property
    def size(self) -> int:
        """Configurations of the knobs it owns."""
        return math.prod(knob.size for knob in self.knobs)


@dataclass(frozen=True)
class Knob:
    """One named choice.

    Raises:
        BadInput: No option, or two options of the same value (`1` and `1.0` are, `1` and `True` are not).
    """

    name: str
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        if not self.options:
            raise BadInput("a knob needs at least one option", key=self.name, found=[])
        seen: set[tuple[bool, Value]] = set()
        for option in self.options:
            if _told_apart(option.value) in seen:
                raise BadInput("an option is listed twice", key=self.name, found=option.value)
            seen.add(_told_apart(option.value))

    @classmethod
    def of(cls, name: str, values: list[Any]) -> Knob:
        """A knob whose options own no further knobs."""
        return cls(name, tuple(Option(value) for value in values))

    @property
    def values(self) -> tuple[Value, ...]:
        """The values of its options."""
        return tuple(option.value for option in self.options)

    @cached_property
    def size(self) -> int:
        """Configurations of this knob and those it owns."""
        return sum(option.size for option in self.options)

    @cached_property
    def ordered(self) -> bool:
        """Whether the values are numbers: their order means something."""
        return all(type(value) in (int, float) for value in self.values)

    def option(self, value: Value) -> Option:
        """The option of this value.

        Raises:
            BadInput: There is none.
        """
        for option in self.options:
            if _told_apart(option.value) == _told_apart(value):
                return option
        raise BadInput("not an option of this knob", key=self.name, found=value, allowed=map(str, self.values))


def _told_apart(value: Value) -> tuple[bool, Value]:
    """What makes an option's value its own: `True` is not `1`."""
    return isinstance(value, bool), value


Choose = Callable[[Knob], Value]


@dataclass(frozen=True)
class Tree:
    """An ordered tree of knobs. Everything walks it in the same order.

    Raises:
        BadInput: Two knobs that can be active together have the same name.

    >>> tree = Tree((Knob.of("a", [1, 2]), Knob.of("b", ["x", "y", "z"])))
    >>> tree.size, tree.at(4)
    (6, Config({'a': 2, 'b': 'y'}))
    """

    knobs: tuple[Knob, ...]

    def __post_init__(self) -> None:
        _distinct_names(self.knobs)

    @cached_property
    def size(self) -> int:
        """Number of configurations; counted, never enumerated."""
        return math.prod(knob.size for knob in self.knobs)

    def walk(self, choose: Choose) -> Config:
        """The configuration that `choose` makes, asked once for every active knob in order."""
        values: dict[str, Value] = {}

        def visit(knobs: tuple[Knob, ...]) -> None:
            for knob in knobs:
                values[knob.name] = value = choose(knob)
                visit(knob.option(value).knobs)

        visit(self.knobs)
        return Config(values)

    def at(self, index: int) -> Config:
        """Configuration number `index` of 0 … size-1; the last knob varies fastest."""
        if not 0 <= index < self.size:
            raise IndexError(index)
        values: dict[str, Value] = {}
        _unrank(self.knobs, index, values)
        return Config(values)

    def check(self, values: Mapping[str, Value]) -> Config:
        """A stored configuration, if it is one of this tree.

        Raises:
            BadInput: A knob is missing, unknown, or has a value that is no option.
        """

        def stored(knob: Knob) -> Value:
            if knob.name not in values:
                raise BadInput("the configuration lacks a knob", key=knob.name)
            return knob.option(values[knob.name]).value

        config = self.walk(stored)
        for name in values:
            if name not in config:
                raise BadInput("the configuration has an unknown knob", found=name, allowed=list(config))
        return config

    def all_knobs(self) -> Iterator[Knob]:
        """Every knob, owned ones included, in walking order; each name once."""
        seen: set[str] = set()

        def visit(knobs: tuple[Knob, ...]) -> Iterator[Knob]:
            for knob in knobs:
                if knob.name not in seen:
                    seen.add(knob.name)
                    yield knob
                for option in knob.options:
                    yield from visit(option.knobs)

        return visit(self.knobs)

    @property
    def fingerprint(self) -> str:
        """Changes when any knob, option or order does."""
        return hashlib.sha256(json.dumps(plain_knobs(self.knobs)).encode()).hexdigest()[:16]


def plain_knobs(knobs: tuple[Knob, ...]) -> list[Any]:
    """Knobs as JSON: `[[knob, [[value, owned knobs], ...]], ...]`."""
    return [[knob.name, [[o.value, plain_knobs(o.knobs)] for o in knob.options]] for knob in knobs]


def _distinct_names(knobs: tuple[Knob, ...]) -> set[str]:
    """Names of these knobs and those they own; only options of one knob may use a name alike."""
    taken: set[str] = set()
    for knob in knobs:
        names = {name for option in knob.options for name in _distinct_names(option.knobs)}
        for name in [knob.name, *names]:
            if name in taken or (name == knob.name and name in names):
                raise BadInput("two knobs have the same name", found=name)
        taken |= {knob.name, *names}
    return taken


def _unrank(knobs: tuple[Knob, ...], index: int, values: dict[str, Value]) -> None:
    """Write the configuration of rank `index`: the first knob is the most significant digit."""
    remaining = math.prod(knob.size for knob in knobs)
    for knob in knobs:
        remaining //= knob.size
        digit, index = divmod(index, remaining)
        for option in knob.options:
            if digit < option.size:
                values[knob.name] = option.value
                _unrank(option.knobs, digit, values)
                break
            digit -= option.size
