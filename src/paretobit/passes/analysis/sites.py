"""Where formats for a node are found: by the path of a layer, or by the site of a function."""

from __future__ import annotations

from collections.abc import Mapping

from paretobit.formats import FULL, Format
from paretobit.graph import ModelGraph
from paretobit.nn import formats_of

Formats = Mapping[str, Mapping[str, Format]]
"""Path of a layer or site of a function to the format of each slot; what is not named is full precision."""


def carried_formats(graph: ModelGraph) -> dict[str, dict[str, Format]]:
    """The formats that the layers and functions of a model carry, at every path that a node may name."""
    return formats_of(graph.model, every_path=True)


def width_of(formats: Formats, site: str, slot: str | None) -> int:
    """Bits of an element in a slot; 32 where no format is set."""
    slots = formats.get(site)
    number_format = slots.get(slot, FULL) if slots is not None and slot is not None else FULL
    return number_format.element_bits
