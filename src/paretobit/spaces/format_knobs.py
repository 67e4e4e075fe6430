"""Knobs over number formats: from an entry with choices to knobs, and from their values to formats."""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar

from paretobit.errors import BadInput, under
from paretobit.formats import FORMATS, FULL, Format, parse_block_size
from paretobit.passes.layers.entries import (
    DEFAULT_FORMAT,
    DEFAULT_SLOTS,
    NOT_SET,
    SLOTS,
    EntrySettings,
    LayerEntry,
    is_float,
    parameter_names,
    slot_format,
    slot_whole,
    split_entry,
)
from paretobit.spaces.knobs import Config, Knob, Option, Tree, Value

FLOAT = "float"
_MOST_COMBINATIONS = 4096


@dataclass(frozen=True)
class SearchEntry(LayerEntry):
    """An entry whose values may be choices.

    Attributes:
        families: Format to what holds for it alone, beside or in place of what holds for all.
    """

    families: Mapping[str, LayerEntry] = field(default_factory=dict)

    @property
    def names(self) -> list[Any]:
        """The formats it chooses from."""
        return as_list(self.name) if self.name is not None else [DEFAULT_FORMAT]

    def under(self, name: str) -> LayerEntry:
        """What holds once the format's name is chosen; a slot is as the family's table says, if it does."""
        own = self.families.get(name)
        if own is None:
            return self
        whole = {s: v for s, v in self.whole.items() if s not in own.parameters} | dict(own.whole)
        parameters = {s: dict(v) for s, v in self.parameters.items() if s not in own.whole}
        for slot, values in own.parameters.items():
            parameters[slot] = {**parameters.get(slot, {}), **values}
        return LayerEntry(self.name, whole, parameters, self.written)

    def restricted(self, slots: Container[str]) -> SearchEntry:
        """The same for these slots alone; nothing at all where it says nothing of them."""
        families = {name: _only(own, slots) for name, own in self.families.items()}
        shared = _only(self, slots)
        if not (shared.whole or shared.parameters or any(f.whole or f.parameters for f in families.values())):
            return SearchEntry()
        return SearchEntry(self.name, shared.whole, shared.parameters, self.written, families)

    def says(self, slot: str) -> bool:
        """Whether it says anything of a slot."""
        return any(slot in e.whole or slot in e.parameters for e in (self, *self.families.values()))

    def knob(self, prefix: str, name: str, slot: str, parameter: str | None = None) -> str:
        """The knob of a slot's whole formats, or of a parameter, once the format's name is chosen."""
        own = self.families.get(name)
        if own is not None and (slot in own.whole or parameter in own.parameters.get(slot, ())):
            prefix = f"{prefix}.{name}"
        elif parameter is None:
            return whole_knob(prefix, slot, name, self)
        return f"{prefix}.{slot}" if parameter is None else f"{prefix}.{slot}_{parameter}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, formats as text."""
        kept = {"name": self.name, "whole": plain(self.whole), "parameters": plain(self.parameters)}
        if self.families:
            kept["families"] = {
                name: {"whole": plain(own.whole), "parameters": plain(own.parameters)}
                for name, own in self.families.items()
            }
        return kept

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> SearchEntry:
        """What `to_json` gave."""
        families = {name: LayerEntry(**own) for name, own in kept.get("families", {}).items()}
        return cls(kept["name"], kept["whole"], kept["parameters"], (), families)


def _only(entry: LayerEntry, slots: Container[str]) -> LayerEntry:
    whole = {slot: value for slot, value in entry.whole.items() if slot in slots}
    return LayerEntry(entry.name, whole, {s: v for s, v in entry.parameters.items() if s in slots}, entry.written)


@dataclass(frozen=True)
class Choices:
    """An entry under the prefix of its knobs, for layers that have these slots."""

    prefix: str
    entry: SearchEntry
    slots: tuple[str, ...]


def knobs_of(prefix: str, entry: SearchEntry) -> tuple[Knob, ...]:
    """The knobs of one target; none where the entry says nothing of any slot."""
    names = entry.names
    for name in names:
        if not is_float(name) and name not in FORMATS:
            raise BadInput(f"unknown {FORMATS.noun}", key="name", found=name, allowed=FORMATS.names())
    _check_parameters(entry, [name for name in names if not is_float(name)])
    for name in entry.families:
        if name not in names:
            raise BadInput("the entry does not choose this format", key=name, found=name, allowed=names)
        with under(name):
            _check_parameters(entry.families[name], [name])
    if not any(entry.says(slot) for slot in SLOTS):
        return ()
    if not isinstance(entry.name, list | tuple):
        return _format_knobs(prefix, names[0], entry)
    options = tuple(Option(FLOAT if is_float(n) else n, _format_knobs(prefix, n, entry)) for n in names)
    return (Knob(f"{prefix}.name", options),)


def _check_parameters(entry: LayerEntry, names: list[str]) -> None:
    """Refuse parameters that none of these formats has."""
    used = {p for name in names for p in parameter_names(name)}
    for slot, parameters in entry.parameters.items():
        for parameter in parameters:
            if parameter not in used:
                allowed = [f"{slot}_{known}" for known in sorted(used)]
                key = f"{slot}_{parameter}"
                raise BadInput("no format of this entry has the parameter", key=key, found=key, allowed=allowed)


def _format_knobs(prefix: str, name: str, entry: SearchEntry) -> tuple[Knob, ...]:
    """The knobs of one target once its format is chosen."""
    if is_float(name):
        return ()
    knobs, held = [], entry.under(name)
    for slot in SLOTS:
        whole = held.whole.get(slot)
        if isinstance(whole, list | tuple):
            with _of_family(entry, name, slot):
                texts = [str(slot_whole(slot, value, name)) for value in whole]
            knobs.append(Knob.of(entry.knob(prefix, name, slot), texts))
        if slot in held.parameters:
            known = {p: v for p, v in held.parameters[slot].items() if p in parameter_names(name)}
            lists = {p: v for p, v in known.items() if isinstance(v, list | tuple)}
            knobs += [
                Knob.of(entry.knob(prefix, name, slot, p), [_value(v) for v in values]) for p, values in lists.items()
            ]
            with _of_family(entry, name, slot):
                _check_combinations(name, slot, known)
    return tuple(knobs)


def _of_family(entry: SearchEntry, name: str, slot: str) -> AbstractContextManager[None]:
    """Errors about a slot that a family's own table says something of are laid to that table."""
    own = entry.families.get(name)
    said = own is not None and (slot in own.whole or slot in own.parameters)
    return under(name) if said else nullcontext()


def whole_knob(prefix: str, slot: str, name: str, entry: LayerEntry) -> str:
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
    prefix, given = target.prefix, target.entry.name if target.entry.name is not None else DEFAULT_FORMAT
    name = str(config[f"{prefix}.name"] if isinstance(given, list | tuple) else given)
    if is_float(name):
        return {}
    slots: dict[str, Format] = {}
    entry = target.entry.under(name)
    for slot in target.slots:
        if slot in entry.whole:
            whole = entry.whole[slot]
            listed = isinstance(whole, list | tuple)
            knob = target.entry.knob(prefix, name, slot)
            knob = knob if knob in config else beside(knob, slots.get("data_in", FULL))
            chosen = config[knob] if listed else whole
            slots[slot] = slot_whole(slot, chosen, name)
        elif slot in entry.parameters:
            known = parameter_names(name)
            values = {p: v for p, v in entry.parameters[slot].items() if p in known}
            for parameter, value in values.items():
                if isinstance(value, list | tuple):
                    values[parameter] = config[target.entry.knob(prefix, name, slot, parameter)]
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


class SearchEntrySettings(EntrySettings):
    """The keys of an entry; every value may be a list of choices.

    Beside those of `EntrySettings`, a table under a format's name is for that format alone.
    """

    more: ClassVar[Mapping[str, str]] = {**EntrySettings.more, "FORMAT": "the slots' keys for that format alone"}

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> None:
        read_entry(raw)


def read_entry(raw: Mapping[str, Any]) -> SearchEntry:
    """An entry taken apart; a list of one choice is no choice.

    A table under a format's name is for that format alone: `integer = {data_in_width = [4, 8]}`.
    """
    tables: dict[str, Any] = {}
    if isinstance(raw, Mapping):
        raw = raw["config"] if set(raw) == {"config"} and isinstance(raw["config"], Mapping) else raw
        tables = {key: raw[key] for key in raw if key in FORMATS}
        raw = {key: value for key, value in raw.items() if key not in FORMATS}
    shared = _read(raw)
    if not tables:
        return SearchEntry(shared.name, shared.whole, shared.parameters, shared.written)
    families = {}
    for name, table in tables.items():
        with under(name):
            if isinstance(table, Mapping) and "name" in table:
                raise BadInput("a table of one format has no name of its own", key="name", found=table["name"])
            families[name] = _read(table)
    if not shared.written:  # the slots are the families' to say; those that say none take the usual ones
        usual = LayerEntry(parameters={slot: {} for slot in DEFAULT_SLOTS})
        left = [n for n in as_list(shared.name) if isinstance(n, str) and n in FORMATS and n not in families]
        families |= dict.fromkeys(left, usual)
        shared = LayerEntry(shared.name)
    written = dict.fromkeys(slot for own in (shared, *families.values()) for slot in own.written)
    return SearchEntry(shared.name, shared.whole, shared.parameters, tuple(written), families)


def _read(raw: Mapping[str, Any]) -> LayerEntry:
    def fixed(value: Any) -> Any:
        alone = isinstance(value, list | tuple) and len(value) == 1 and not isinstance(value[0], list | tuple)
        return value[0] if alone else value

    parts = split_entry(raw)
    return LayerEntry(
        fixed(parts.name),
        {slot: fixed(whole) for slot, whole in parts.whole.items()},
        {slot: {p: fixed(v) for p, v in values.items()} for slot, values in parts.parameters.items()},
        parts.written,
    )


def as_list(value: Any) -> list[Any]:
    """Choices as a list; a value alone is the only choice."""
    return list(value) if isinstance(value, list | tuple) else [value]


def plain(value: Any) -> Any:
    """Values as JSON has them, formats and fractions as text."""
    if isinstance(value, Format | Fraction):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return NOT_SET if value is None else value
