"""What a choice of formats means: the format of every slot of every layer, set on a model and read from it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from paretobit.formats import FULL, Format
from paretobit.graph import ModelGraph
from paretobit.nn import Quantized, TensorCache, formats_of, instrument_at, run_by_modules
from paretobit.passes.layers.quantizable import function_name

Assignment = Mapping[str, Mapping[str, Format]]
"""Path of a layer or site of a function to the format of each slot; what is not named is full precision."""

Places = Mapping[str, str]
"""Site of a function to its place in the code."""
NOT_KNOWN: Places = MappingProxyType({})


def instrument_layers(
    model: nn.Module, paths: Mapping[str, Any] | tuple[str, ...], places: Places = NOT_KNOWN
) -> dict[str, Quantized]:
    """Turn the layers at these paths and the functions at these sites into quantised ones, in place.

    They share one cache. Functions are known by their places; those without, by their numbers.

    Raises:
        BadInput: There is no such layer or function, or it cannot be quantised.
    """
    cache = TensorCache()
    layers = {path: instrument_at(model, path, cache, function_name, places.get(path, "")) for path in paths}
    run_by_modules(model)
    return layers


def apply_assignment(model: nn.Module, assignment: Assignment, places: Places = NOT_KNOWN) -> None:
    """Set formats on a model, in place; `places` as `ModelGraph.places`."""
    for path, layer in instrument_layers(model, tuple(assignment), places).items():
        layer.set_slots(assignment[path])


def assignment_of(model: nn.Module) -> dict[str, dict[str, Format]]:
    """The formats that the quantised layers and functions of a model carry."""
    return formats_of(model)


def carried_formats(graph: ModelGraph) -> dict[str, dict[str, Format]]:
    """The formats that the layers and functions of a model carry, at every path that a node may name."""
    return formats_of(graph.model, every_path=True)


def width_of(formats: Assignment, site: str, slot: str | None) -> int:
    """Bits of an element in a slot; 32 where no format is set."""
    slots = formats.get(site)
    number_format = slots.get(slot, FULL) if slots is not None and slot is not None else FULL
    return number_format.element_bits
