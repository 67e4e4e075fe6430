"""Knobs without the pairs of data and weight formats that a device does not multiply.

Whole formats are told apart before any trial: options that make no pair are left out, and where
the weights that are allowed depend on the data, each option of the data owns the knob of its
weights (`linear.weight[integer(width=8, frac_width=4)]`). Formats searched by parameters cannot be
told apart so, and are refused where they make a pair that is not allowed. Every configuration of
the space is therefore allowed.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from paretobit.errors import BadInput
from paretobit.formats import FULL, Format
from paretobit.passes.layers.entries import (
    DEFAULT_FORMAT,
    LayerEntry,
    is_float,
    parameter_names,
    slot_format,
    slot_whole,
)
from paretobit.passes.layers.pairs import AllowedPairs
from paretobit.spaces.format_knobs import SearchEntry, as_list, beside
from paretobit.spaces.knobs import Knob, Option


def only_allowed(prefix: str, entry: SearchEntry, knobs: tuple[Knob, ...], pairs: AllowedPairs) -> tuple[Knob, ...]:
    """The knobs of one target, without what makes a pair that is not allowed.

    Raises:
        BadInput: No pair is left, or formats that are searched by parameters make one that is not allowed.
    """
    if not isinstance(entry.name, list | tuple):
        kept = _under_name(prefix, entry.name or DEFAULT_FORMAT, entry, knobs, pairs)
        if kept is None:
            raise _no_pair(prefix, pairs)
        return kept
    (named,) = knobs
    options = []
    for option in named.options:
        inner = _under_name(prefix, str(option.value), entry, option.knobs, pairs)
        if inner is not None:
            options.append(Option(option.value, inner))
    if not options:
        raise _no_pair(prefix, pairs)
    return (Knob(named.name, tuple(options)),)


def _under_name(
    prefix: str, name: str, entry: SearchEntry, knobs: tuple[Knob, ...], pairs: AllowedPairs
) -> tuple[Knob, ...] | None:
    """The knobs once the format's name is chosen; None where no pair is left."""
    if is_float(name):
        return knobs
    held = entry.under(name)
    data, weights = dict(_formats("data_in", name, held)), dict(_formats("weight", name, held))
    allowed = {
        key: [w for w, weight in weights.items() if pairs.allow({"data_in": one, "weight": weight})]
        for key, one in data.items()
    }
    if all(len(some) == len(weights) for some in allowed.values()):
        return knobs
    if _by_parameters("data_in", name, held) or _by_parameters("weight", name, held):
        problem = f"'{prefix}' searches formats by parameters, and some make a pair that is not allowed"
        raise BadInput(problem, key="allowed", found=name, allowed="whole formats for data_in and weight")
    allowed = {key: some for key, some in allowed.items() if some}
    return _nested(prefix, name, entry, knobs, allowed) if allowed else None


def _nested(
    prefix: str, name: str, entry: SearchEntry, knobs: tuple[Knob, ...], allowed: Mapping[Any, list[Any]]
) -> tuple[Knob, ...]:
    """The knobs with the options that are left; those of weights within those of the data."""
    data_name, weight_name = (entry.knob(prefix, name, slot) for slot in ("data_in", "weight"))
    same = all(some == next(iter(allowed.values())) for some in allowed.values())
    kept = []
    for knob in knobs:
        if knob.name == data_name:
            options = []
            for option in knob.options:
                some = allowed.get(option.value)
                chosen = slot_whole(knob.name, option.value, DEFAULT_FORMAT)
                own = () if same or some is None else (Knob.of(beside(weight_name, chosen), some),)
                options += [Option(option.value, own)] if some else []
            kept.append(Knob(knob.name, tuple(options)))
        elif knob.name != weight_name:
            kept.append(knob)
        elif same:
            kept.append(Knob.of(knob.name, next(iter(allowed.values()))))
    return tuple(kept)


def _formats(slot: str, name: str, entry: LayerEntry) -> Iterator[tuple[Any, Format]]:
    """The formats that a slot may take, by the value of its knob; a fixed one stands under its text."""
    if slot in entry.whole:
        for value in as_list(entry.whole[slot]):
            chosen = slot_whole(slot, value, name)
            yield str(chosen), chosen
    elif slot in entry.parameters:
        known = {p: as_list(v) for p, v in entry.parameters[slot].items() if p in parameter_names(name)}
        for values in itertools.product(*known.values()):
            chosen = slot_format(name, slot, dict(zip(known, values, strict=True)))
            yield str(chosen), chosen
    else:
        yield str(FULL), FULL


def _by_parameters(slot: str, name: str, entry: LayerEntry) -> bool:
    given = entry.parameters.get(slot, {})
    return any(isinstance(v, list | tuple) for p, v in given.items() if p in parameter_names(name))


def _no_pair(prefix: str, pairs: AllowedPairs) -> BadInput:
    allowed = [f"{data.text} x {weight.text}" for data, weight in pairs.pairs]
    return BadInput(f"no formats of '{prefix}' make a pair that is allowed", key="allowed", allowed=allowed)
