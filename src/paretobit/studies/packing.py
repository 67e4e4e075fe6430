"""Trials as rows of a table, small enough for hundreds of thousands: what repeats is written once.

A word is a knob with one of its values, or the names of metrics that are measured together. A row holds
the numbers of its words; words are only ever added.
"""

import json
import math
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from paretobit.spaces.knobs import Config
from paretobit.studies.trial import GIVEN, State, Trial

Words = dict[Any, int]


class Row(NamedTuple):
    """A trial as it is stored."""

    number: int
    config: str  # numbers of words, in the order of the knobs
    state: State
    names: int
    metrics: str  # the values, JSON
    error: str | None
    duplicate_of: int | None
    seed: int
    asked_after: int
    seconds: float


class Rows:
    """Rows of trials 0, 1, 2 …, kept by column: a third of the memory, and nothing for Python to trace."""

    def __init__(self) -> None:
        self._texts: tuple[list[str], list[State], list[str]] = ([], [], [])
        self._whole = (array("q"), array("q"), array("q"))
        self._seconds = array("d")
        self._rare: tuple[dict[int, str], dict[int, int]] = ({}, {})

    def extend(self, rows: Sequence[Row]) -> None:
        """Rows that follow on those that are there."""
        if not rows:
            return
        numbers, configs, states, names, metrics, errors, originals, seeds, asked, seconds = zip(*rows, strict=True)
        texts: tuple[list[Any], ...] = self._texts
        for column, values in zip(texts, (configs, map(sys.intern, states), metrics), strict=True):
            column.extend(values)
        for whole, numbers_in in zip(self._whole, (names, seeds, asked), strict=True):
            whole.extend(numbers_in)
        self._seconds.extend(seconds)
        rare: tuple[dict[int, Any], ...] = self._rare
        for known, column_of in zip(rare, (errors, originals), strict=True):
            known.update({n: value for n, value in zip(numbers, column_of, strict=True) if value is not None})

    def append(self, row: Row) -> None:
        """The row that follows."""
        configs, states, metrics = self._texts
        configs.append(row.config)
        states.append(row.state)
        metrics.append(row.metrics)
        for column, value in zip(self._whole, (row.names, row.seed, row.asked_after), strict=True):
            column.append(value)
        self._seconds.append(row.seconds)
        if row.error is not None:
            self._rare[0][row.number] = row.error
        if row.duplicate_of is not None:
            self._rare[1][row.number] = row.duplicate_of

    @property
    def configs(self) -> Sequence[str]:
        """How the configurations are stored."""
        return self._texts[0]

    @property
    def states(self) -> Sequence[State]:
        """The states."""
        return self._texts[1]

    @property
    def given(self) -> list[int]:
        """Numbers of the trials that no strategy asked for."""
        return [number for number, told in enumerate(self._whole[2]) if told == GIVEN]

    def __len__(self) -> int:
        return len(self._seconds)

    def __getitem__(self, number: int) -> Row:
        config, state, metrics = (column[number] for column in self._texts)
        names, seed, asked = (column[number] for column in self._whole)
        error, original = (known.get(number) for known in self._rare)
        seconds = self._seconds[number]
        return Row(number, config, state, names, metrics, error, original, seed, asked, seconds)  # type: ignore[arg-type]


class Packing:
    """Turns trials into rows and back.

    Args:
        words: What is known already: number to word, as stored.

    Raises:
        ValueError: A word cannot be read.
    """

    def __init__(self, words: Iterable[tuple[int, str]] = ()) -> None:
        self._read: dict[int, Any] = {}
        self._numbers: Words = {}
        for number, text in words:
            word = json.loads(text)
            if not isinstance(word, dict | list) or (len(word) != 1 and isinstance(word, dict)):
                raise ValueError(f"word {number} is neither a knob nor names")
            self._learn(_key(word), number)

    def pack(self, trial: Trial) -> tuple[Row, Words]:
        """A trial as a row, and the words that are new; `learn` them once they are stored."""
        new: Words = {}
        numbers = self._numbers
        try:
            config = " ".join([str(numbers[name, type(value), value]) for name, value in trial.config.items()])
        except KeyError:
            config = " ".join([str(self._number(key, new)) for key in _keys(trial.config)])
        names = self._number(tuple(trial.metrics), new)
        row = Row(
            trial.number,
            config,
            trial.state,
            names,
            _values(trial.metrics),
            trial.error,
            trial.duplicate_of,
            trial.seed,
            trial.asked_after,
            trial.seconds,
        )
        return row, new

    def learn(self, words: Words) -> None:
        """New words are stored: later rows may use them."""
        for key, number in words.items():
            self._learn(key, number)

    def find(self, config: Config) -> str | None:
        """How a configuration is stored; None where one of its values never was."""
        numbers = [self._numbers.get(key) for key in _keys(config)]
        return None if None in numbers else " ".join(map(str, numbers))

    def config(self, row: Row) -> Config:
        """The configuration of a row."""
        return Config(dict([self._read[int(number)] for number in row.config.split()]))

    def metrics(self, row: Row) -> dict[str, float]:
        """The metrics of a row."""
        values = json.loads(row.metrics)
        return {n: math.nan if v is None else v for n, v in zip(self._read[row.names], values, strict=True)}

    def unpack(self, row: Row) -> Trial:
        """The trial of a row.

        Raises:
            KeyError: It has words that are not there.
            ValueError: It has not a value for every name.
        """
        return Trial(row.number, self.config(row), row.state, self.metrics(row), *row[5:])

    def _number(self, key: Any, new: Words) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = new.setdefault(key, len(self._numbers) + len(new))
        return number

    def _learn(self, key: Any, number: int) -> None:
        self._numbers[key] = number
        self._read[number] = (key[0], key[2]) if _is_choice(key) else key


def _keys(config: Config) -> Iterable[tuple[str, type, Any]]:
    """What tells the values of knobs apart: `1`, `1.0` and `True` are three."""
    return [(name, type(value), value) for name, value in config.items()]


def written(key: Any) -> str:
    """A word as it is stored: a knob as a table of one key, names as a list."""
    return json.dumps({key[0]: key[2]} if _is_choice(key) else list(key))


def _is_choice(key: Any) -> bool:
    """Whether a word is a knob with its value, and not names."""
    return len(key) == 3 and isinstance(key[1], type)


def _key(word: Any) -> Any:
    if isinstance(word, list):
        return tuple(sys.intern(name) for name in word)
    ((name, value),) = word.items()
    return sys.intern(name), type(value), value


def _values(metrics: Mapping[str, float]) -> str:
    """The values as JSON that every reader takes: infinity is a number too large, no number is null."""
    text = json.dumps(list(metrics.values()))
    if "N" not in text and "I" not in text:
        return text
    return text.replace("-Infinity", "-1e999").replace("Infinity", "1e999").replace("NaN", "null")
