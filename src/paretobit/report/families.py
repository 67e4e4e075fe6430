"""Formats of trials: layer by layer, and the family that a whole trial belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paretobit.formats import FULL, Format
from paretobit.spaces import SPACES
from paretobit.spaces.format_knobs import Choices, SearchEntry, decode
from paretobit.spaces.knobs import Config
from paretobit.studies.study import Study

MIXED = "mixed"


@dataclass(frozen=True)
class LayerCell:
    """What a trial gives a layer at one place.

    Attributes:
        text: `integer(8, 4)`, or the value.
        bits: Bits of an element, where it is a format.
    """

    text: str
    bits: int | None = None


def layer_formats(space: Mapping[str, Any], config: Config | None) -> dict[str, dict[str, Format]]:
    """Layer to slot to format, in the order of the space; None is the unmodified model.

    Args:
        space: As the study records it.
        config: A configuration of it.
    """
    found: dict[str, dict[str, Format]] = {}
    for part in space.get("parts", {}).values():
        found |= layer_formats(part, config)
    targets = [target for target in space.get("targets", ()) if "slots" in target]
    chosen = {target["prefix"]: _decoded(target, config) for target in targets}
    for target in targets:
        for layer, slots in target["layers"].items():
            lenders = target.get("borrowed", {}).get(layer, {})
            origin = {slot: lenders.get(slot, target["prefix"]) for slot in slots}
            found[layer] = {slot: chosen.get(prefix, {}).get(slot, FULL) for slot, prefix in origin.items()}
    return found


def _decoded(target: Mapping[str, Any], config: Config | None) -> Mapping[str, Format]:
    """The formats of one target; none for the unmodified model."""
    if config is None:
        return {}
    entry = SearchEntry.from_json(target["entry"])
    return decode(Choices(target["prefix"], entry, tuple(target["slots"])), config)


def layer_cells(study: Study, config: Config | None) -> dict[str, dict[str, LayerCell]]:
    """Layer to column to cell: the slots with their formats, then sparsity, width and what else varies.

    None is the unmodified model: full precision, and nothing else to say.
    """
    space = study.facts["space"]
    cells = {
        layer: {slot: LayerCell(short_format(f), f.element_bits) for slot, f in slots.items()}
        for layer, slots in layer_formats(space, config).items()
    }
    if config is None:
        return cells
    named = space["parts"].items() if "parts" in space else [(space["name"], space)]
    for name, part in named:
        if any("slots" in target for target in part.get("targets", ())):
            continue  # its formats are there already
        for layer, said in SPACES[name].explain(part, config).items():
            cells.setdefault(layer, {}).update({key: LayerCell(str(v)) for key, v in said["config"].items()})
    return cells


def short_format(number_format: Format) -> str:
    """`integer(8, 4)` for `integer(width=8, frac_width=4)`.

    >>> from paretobit.formats import make
    >>> short_format(make("integer", width=8, frac_width=4))
    'integer(8, 4)'
    """
    values = ", ".join(str(value) for value in number_format.chosen.values())
    return f"{number_format.name}({values})" if values else number_format.name


def family_of_trial(space: Mapping[str, Any], config: Config) -> str:
    """The family of all formats of a trial that are not full precision; `mixed` where there are several."""
    names = {f.name for slots in layer_formats(space, config).values() for f in slots.values() if f is not FULL}
    return (names or {FULL.name}).pop() if len(names) < 2 else MIXED


def family_by_trial(study: Study) -> list[str]:
    """The family of every trial, by number.

    Only knobs whose values are text choose families, so that is all that is looked at twice.
    """
    space, known = study.facts.get("space", {}), dict[tuple[Any, ...], str]()
    found = []
    for trial in study.trials:
        key = tuple((name, value) for name, value in trial.config.items() if isinstance(value, str))
        if key not in known:
            known[key] = family_of_trial(space, trial.config)
        found.append(known[key])
    return found


def families_of(study: Study) -> set[str]:
    """The families of all trials."""
    return set(family_by_trial(study))
