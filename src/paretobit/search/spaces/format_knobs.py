"""Knobs over number formats: from an entry with choices to knobs, and from their values to formats."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from paretobit.errors import BadInput
from paretobit.formats import FORMATS, FULL, Format, parse_block_size
from paretobit.passes.entries import (
    DEFAULT_FORMAT,
    NOT_SET,
    SLOTS,
    Entry,
    is_float,
    parameter_names,
    slot_format,
    slot_whole,
    split_entry,
)
from paretobit.search.knobs import Config, Knob, Option, Tree, Value

FLOAT = "float"
_MOST_COMBINATIONS = 4096


@dataclass(frozen=True)
class Choices:
    """An entry under the prefix of its knobs, for layers that have these slots."""

    prefix: str
    entry: Entry
    slots: tuple[str, ...]


def knobs_of(prefix: str, entry: Entry) -> tuple[Knob, ...]:
    """The knobs of one target."""
    names = as_list(entry.name) if entry.name is not None else [DEFAULT_FORMAT]
    for name in names:
        if not is_float(name) and name not in FORMATS:
            raise BadInput(f"unknown {FORMATS.noun}", key="name", found=name, allowed=FORMATS.names())
    used = {p for name in names if not is_float(name) for p in parameter_names(name)}
    for slot, parameters in entry.parameters.items():
        for parameter in parameters:
            if parameter not in used:
                allowed = [f"{slot}_{known}" for known in sorted(used)]
                key = f"{slot}_{parameter}"
                raise BadInput("no format of this entry has the parameter", key=key, found=key, allowed=allowed)
    if not isinstance(entry.name, list | tuple):
        return _format_knobs(prefix, names[0], entry)
    options = tuple(Option(FLOAT if is_float(n) else n, _format_knobs(prefix, n, entry)) for n in names)
    return (Knob(f"{prefix}.name", options),)


def _format_knobs(prefix: str, name: str, entry: Entry) -> tuple[Knob, ...]:
    """The knobs of one target once its format is chosen."""
    if is_float(name):
        return ()
    knobs = []
    for slot in SLOTS:
        whole = entry.whole.get(slot)
        if isinstance(whole, list | tuple):
            texts = [str(slot_whole(slot, value, name)) for value in whole]
            knobs.append(Knob.of(whole_knob(prefix, slot, name, entry), texts))
        if slot in entry.parameters:
            known = {p: v for p, v in entry.parameters[slot].items() if p in parameter_names(name)}
            lists = {p: v for p, v in known.items() if isinstance(v, list | tuple)}
            knobs += [
                Knob.of(f"{prefix}.{slot}_{p}", [_value(v) for v in values]) for p, values in lists.items()
            ]
            _check_combinations(name, slot, known)
    return tuple(knobs)


def whole_knob(prefix: str, slot: str, name: str, entry: Entry) -> str:
    """The knob of whole formats; a table means another format under each name, so each has its own."""
    others = [n for n in as_list(entry.name) if not is_float(n) and n != name]
    return f"{prefix}.{slot}.{name}" if entry.name is not None and others else f"{prefix}.{slot}"


def beside(knob: str, data: Format) -> str:
    """The knob of weights that only exists beside one format of the data."""
    return f"{knob}[{data}]"


def _value(choice: Any) -> Value:
    """A choice as a plain value: a block size of several dimensions is text."""
    if isinstance(choice, list | tuple):
        return parse_block_size(choice)
    return NOT_SET if choice is None else choice


def _check_combinations(name: str, slot: str, parameters: Mapping[str, Any]) -> None:
    """Refuse parameters that do not go together, before any work."""
    choices = [as_list(values) for values in parameters.values()]
    if math.prod(map(len, choices)) <= _MOST_COMBINATIONS:
        combinations: Iterable[tuple[Any, ...]] = itertools.product(*choices)
    else:  # each on its own, beside the first of the others
        combinations = (
            tuple(value if j == i else other[0] for j, other in enumerate(choices))
            for i, values in enumerate(choices)
            for value in values
        )
    for combination in combinations:
        slot_format(name, slot, dict(zip(parameters, combination, strict=True)))


def one_of_each_name(knobs: tuple[Knob, ...]) -> Iterator[Config]:
    """The first configuration of every choice of the first knob: the format's name where it is chosen."""
    tree, index = Tree(knobs), 0
    rest = tree.size // knobs[0].size if knobs else 1
    for option in knobs[0].options if knobs else (Option(None),):
        yield tree.at(index)
        index += option.size * rest


def decode(target: Choices, config: Config) -> dict[str, Format]:
    """The format of every slot of a target under a configuration."""
    entry, prefix = target.entry, target.prefix
    given = entry.name if entry.name is not None else DEFAULT_FORMAT
    name = str(config[f"{prefix}.name"] if isinstance(given, list | tuple) else given)
    if is_float(name):
        return {}
    slots: dict[str, Format] = {}
    for slot in target.slots:
        if slot in entry.whole:
            whole = entry.whole[slot]
            listed = isinstance(whole, list | tuple)
            knob = whole_knob(prefix, slot, name, entry)
            knob = knob if knob in config else beside(knob, slots.get("data_in", FULL))
            chosen = config[knob] if listed else whole
            slots[slot] = slot_whole(slot, chosen, name)
        elif slot in entry.parameters:
            known = parameter_names(name)
            values = {p: v for p, v in entry.parameters[slot].items() if p in known}
            for parameter, value in values.items():
                if isinstance(value, list | tuple):
                    values[parameter] = config[f"{prefix}.{slot}_{parameter}"]
            slots[slot] = slot_format(name, slot, values)
    return slots


def spelt_out(formats: Mapping[str, Format]) -> dict[str, Any]:
    """The reports' keys for the formats of one layer."""
    formats = {slot: f for slot, f in formats.items() if f is not FULL}
    families = {f.name for f in formats.values()}
    config: dict[str, Any] = {"name": families.pop() if len(families) == 1 else "mixed" if families else "NA"}
    for slot, number_format in formats.items():
        if config["name"] == "mixed":
            config[f"{slot}_name"] = number_format.name
        config |= {f"{slot}_{key}": value for key, value in number_format.chosen.items()}
    return config


def read_entry(raw: Mapping[str, Any]) -> Entry:
    """An entry taken apart; a list of one choice is no choice."""

    def fixed(value: Any) -> Any:
        alone = isinstance(value, list | tuple) and len(value) == 1 and not isinstance(value[0], list | tuple)
        return value[0] if alone else value

    parts = split_entry(raw)
    return Entry(
        fixed(parts.name),
        {slot: fixed(whole) for slot, whole in parts.whole.items()},
        {slot: {p: fixed(v) for p, v in values.items()} for slot, values in parts.parameters.items()},
        parts.written,
    )


def as_list(value: Any) -> list[Any]:
    """Choices as a list; a value alone is the only choice."""
    return list(value) if isinstance(value, list | tuple) else [value]


def plain(value: Any) -> Any:
    """An entry's values as JSON has them, formats as text."""
    if isinstance(value, Format):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return NOT_SET if value is None else value
