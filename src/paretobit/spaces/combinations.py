"""Which combinations of values of a configuration are networks, and different ones."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from paretobit.errors import BadInput
from paretobit.spaces.base import Dropped
from paretobit.spaces.knobs import Value
from paretobit.spaces.nesting import Row
from paretobit.spaces.transformer import Impossible, Network, Transformer

MOST = 5000
"""Combinations that are looked at one by one."""
_PLACES = 3


@dataclass(frozen=True)
class NetworkShape:
    """What a network looks like without its numbers.

    Attributes:
        parameters: Name and shape of each.
        layers: Paths of those that run, in order of execution.
        linear: Path of each `nn.Linear` among them to its features in and out.
    """

    parameters: tuple[tuple[str, tuple[int, ...]], ...]
    layers: tuple[str, ...]
    linear: tuple[tuple[str, int, int], ...]

    def sizes(self) -> dict[str, tuple[tuple[str, tuple[int, ...]], ...]]:
        """Path of each layer to its own parameters and their shapes."""
        own: dict[str, list[tuple[str, tuple[int, ...]]]] = {path: [] for path in self.layers}
        for name, shape in self.parameters:
            own.setdefault(name.rpartition(".")[0], []).append((name, shape))
        return {path: tuple(found) for path, found in own.items()}

    @property
    def weights(self) -> int:
        """How many."""
        return sum(math.prod(shape) for _, shape in self.parameters)


class Combinations:
    """The possible combinations of the values of some keys.

    Args:
        pattern: Makes the models.
        choices: Key to its values, each given once.
        seed: Of the weights with which outputs are compared.

    Attributes:
        names: Keys that vary.
        values: Of each, in order.
        shapes: Possible combination, as positions of its values, to its network.
        fixed: The other keys and their value.
        listed: How many combinations there were.
        excluded: How many of them are impossible.
        reason: Why the first of those is; empty where none is.
        repeated: How many are the same network as one before.
        dropped: Keys and values without effect.

    Raises:
        BadInput: More combinations than `MOST`, or none that is possible.
    """

    def __init__(self, pattern: Transformer, choices: Mapping[str, Sequence[Value]], seed: int) -> None:
        self._pattern, self._seed = pattern, seed
        self._keys, self._choices = tuple(choices), [tuple(own) for own in choices.values()]
        self.listed = math.prod(map(len, self._choices))
        if self.listed > MOST:
            problem = f"{self.listed:,} combinations are too many to look at one by one"
            raise BadInput(problem, key="seed", allowed=f"{MOST:,} at most")
        self.excluded, self.repeated, self.reason = 0, 0, ""
        self.dropped: tuple[Dropped, ...] = ()
        self._digests: dict[Row, str] = {}
        shapes = self._look()
        if not shapes:
            problem = f"none of the {self.listed:,} combinations is possible: {self.reason}"
            raise BadInput(problem, key="seed")
        shapes = self._without_repeats(self._with_effect(shapes))
        self._finish(shapes)

    def chosen(self, row: Row) -> dict[str, Value]:
        """Every key and its value in a combination of `shapes`."""
        varied = {name: own[at] for name, own, at in zip(self.names, self.values, row, strict=True)}
        return {key: varied.get(key, self.fixed.get(key)) for key in self._keys}

    def _given(self, row: Row) -> dict[str, Value]:
        return {key: own[at] for key, own, at in zip(self._keys, self._choices, row, strict=True)}

    def _look(self) -> dict[Row, NetworkShape]:
        """Try every combination; networks of one shape share the object that says so."""
        found: dict[Row, NetworkShape] = {}
        known: dict[NetworkShape, NetworkShape] = {}
        for row in itertools.product(*(range(len(own)) for own in self._choices)):
            try:
                shape = _shape(self._pattern.network(self._given(row)))
            except Impossible as error:
                self.excluded += 1
                said = ", ".join(f"{key} = {value}" for key, value in self._given(row).items())
                self.reason = self.reason or f"{said}: {error}"
            else:
                found[row] = known.setdefault(shape, shape)
        return found

    def _with_effect(self, shapes: dict[Row, NetworkShape]) -> dict[Row, NetworkShape]:
        """Without values that give, wherever it was looked, the network of another value of the key.

        A key that changes shapes somewhere is judged by combination later on.
        """
        for column, key in enumerate(self._keys):
            lines = list(self._lines(shapes, column))
            if not lines or any(len({id(shapes[row]) for row in line}) > 1 for line in lines):
                continue
            same = self._same(lines, column)
            for at, first in same.items():
                value, other = self._choices[column][at], self._choices[column][first]
                self.dropped += (Dropped(f"{key}.{value}", f"the model is that of {key} = {other}"),)
            kept = {row: shape for row, shape in shapes.items() if row[column] not in same}
            self.repeated += len(shapes) - len(kept)
            shapes = kept
        return shapes

    def _lines(self, shapes: Mapping[Row, NetworkShape], column: int) -> Iterator[list[Row]]:
        """Combinations that differ in one key only; those with the most values of it, small models first."""
        lines: dict[Row, list[Row]] = {}
        for row in shapes:
            lines.setdefault(row[:column] + row[column + 1 :], []).append(row)
        several = [line for line in lines.values() if len(line) > 1]
        yield from sorted(several, key=lambda line: (-len(line), shapes[line[0]].weights))

    def _same(self, lines: Sequence[list[Row]], column: int) -> dict[int, int]:
        """Position of a value without effect to that of the first with the same models."""
        looked = list(dict.fromkeys([0, len(lines) // 2, len(lines) - 1]))[:_PLACES]
        same: dict[int, int] = {}
        for number, line in enumerate(lines[i] for i in looked):
            first: dict[str, int] = {}
            here = {row[column]: first.setdefault(self._digest(row), row[column]) for row in line}
            if number == 0:
                same = {at: other for at, other in here.items() if at != other}
            else:
                same = {at: o for at, o in same.items() if here.get(at, o) == here.get(o, o)}
            if not same:
                break
        return same

    def _without_repeats(self, shapes: dict[Row, NetworkShape]) -> dict[Row, NetworkShape]:
        """Without combinations that are the network of one before, by shapes and outputs."""
        shapeless = self._shapeless(shapes)
        alike: dict[tuple[int, Row], list[Row]] = {}
        for row, shape in shapes.items():
            alike.setdefault((id(shape), tuple(row[c] for c in shapeless)), []).append(row)
        kept = dict(shapes)
        for rows in (rows for rows in alike.values() if len(rows) > 1):
            seen: set[str] = set()
            for row in rows:
                if self._digest(row) in seen:
                    del kept[row]
                seen.add(self._digest(row))
        self.repeated += len(shapes) - len(kept)
        return kept

    def _shapeless(self, shapes: Mapping[Row, NetworkShape]) -> tuple[int, ...]:
        """Columns of keys that vary and change no shape: their values were compared."""
        columns = []
        for column in range(len(self._keys)):
            lines = list(self._lines(shapes, column))
            if lines and all(len({id(shapes[row]) for row in line}) == 1 for line in lines):
                columns.append(column)
        return tuple(columns)

    def _digest(self, row: Row) -> str:
        if row not in self._digests:
            self._digests[row] = self._pattern.digest(self._given(row), self._seed)
        return self._digests[row]

    def _finish(self, shapes: Mapping[Row, NetworkShape]) -> None:
        """Only the keys that still vary are knobs."""
        left = [sorted({row[c] for row in shapes}) for c in range(len(self._keys))]
        varied = [c for c, own in enumerate(left) if len(own) > 1]
        self.names = tuple(self._keys[c] for c in varied)
        self.values = [tuple(self._choices[c][at] for at in left[c]) for c in varied]
        self.fixed = {key: self._choices[c][left[c][0]] for c, key in enumerate(self._keys) if c not in varied}
        for c, key in enumerate(self._keys):
            if c not in varied and len(self._choices[c]) > 1:
                gone = {dropped.knob for dropped in self.dropped}
                without = all(f"{key}.{value}" in gone for value in self._choices[c][1:])
                reason = "no value changes the model" if without else f"only {self.fixed[key]} is possible"
                self.dropped = tuple(d for d in self.dropped if not d.knob.startswith(f"{key}."))
                self.dropped += (Dropped(key, reason),)
        self.shapes = {tuple(left[c].index(row[c]) for c in varied): shape for row, shape in shapes.items()}


def _shape(network: Network) -> NetworkShape:
    layers = network.layers.items()
    linear = tuple((p, m.in_features, m.out_features) for p, m in layers if isinstance(m, nn.Linear))
    return NetworkShape(network.parameters, tuple(network.layers), linear)
