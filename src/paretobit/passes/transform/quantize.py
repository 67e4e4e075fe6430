"""Quantise layers: choose them by type, name or pattern, and set a format in each of their slots."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from torch import nn

from paretobit.errors import BadInput
from paretobit.formats import FULL, Format, accumulator
from paretobit.graph import ModelGraph, Node
from paretobit.nn import LAYERS, Quantized, TensorCache, dot_terms, instrument, slots_of
from paretobit.passes.entries import slot_formats, split_entry
from paretobit.passes.selection import By, select
from paretobit.registry import Registry

Pass = Callable[[ModelGraph, Mapping[str, Any]], tuple[ModelGraph, dict[str, Any]]]
PASSES: Registry[Pass] = Registry("pass")
"""Transform passes by the name of their table in `[passes]`."""

Assignment = Mapping[str, Mapping[str, Format]]
"""Path of a layer to the format of each slot; what is not named is full precision."""


@dataclass(frozen=True)
class QuantizeSettings:
    """Settings of the pass.

    Attributes:
        by: How the keys of `entries` choose layers.
        entries: Key to entry, in the reports' words: `{"linear": {"name": "integer", "data_in_width": 8}}`.
        default: Entry for every layer that can be quantised and that no key chooses.
    """

    by: By
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    default: Mapping[str, Any] | None = None


def quantize(graph: ModelGraph, settings: QuantizeSettings) -> tuple[ModelGraph, dict[str, Any]]:
    """A copy of the graph whose layers carry the formats.

    Returns:
        The new graph, and `{"assignment": ...}` with the formats as text.

    Raises:
        BadInput: A key matches no layer, a layer cannot be quantised, or a slot does not exist.
    """
    assignment = resolve(graph, settings)
    model = copy.deepcopy(graph.model)
    apply_assignment(model, assignment)
    text = {path: {slot: str(f) for slot, f in slots.items()} for path, slots in assignment.items()}
    return graph.with_model(model), {"assignment": text}


@PASSES.register("quantize", summary="formats for the slots of layers, chosen by type, name or regex")
def quantize_pass(graph: ModelGraph, table: Mapping[str, Any]) -> tuple[ModelGraph, dict[str, Any]]:
    """`quantize` with the keys of a `[passes.quantize]` table: `by`, `default`, and an entry a key."""
    entries = dict(table)
    by = entries.pop("by", "type")
    default = entries.pop("default", None)
    if not entries and default is None:
        raise BadInput("the pass names no layers", allowed="a table per type or layer, or default")
    return quantize(graph, QuantizeSettings(by, entries, default))


def resolve(graph: ModelGraph, settings: QuantizeSettings) -> dict[str, dict[str, Format]]:
    """The formats that settings mean for the layers of one graph."""
    if settings.by not in get_args(By):
        raise BadInput("unknown way to choose layers", key="by", found=settings.by, allowed=get_args(By))
    assignment: dict[str, dict[str, Format]] = {}
    chosen: dict[str, str] = {}
    for key, entry in settings.entries.items():
        try:
            formats, written = slot_formats(entry), split_entry(entry).written
            for node in select(graph, settings.by, key):
                if node.owner in chosen:
                    raise BadInput(f"layer '{node.name}' is chosen twice", found=[chosen[node.owner], key])
                chosen[node.owner] = key
                assignment[node.owner] = fitting(graph, node, formats, written)
        except BadInput as error:
            raise error.under(key) from None
    if settings.default is not None:
        try:
            formats = slot_formats(settings.default)
        except BadInput as error:
            raise error.under("default") from None
        for node in graph.layers:
            slots = slots_of(graph.module(node))
            if node.owner not in assignment and slots:
                assignment[node.owner] = complete(graph.module(node), formats)
    return {path: slots for path, slots in assignment.items() if slots}


def fitting(
    graph: ModelGraph, node: Node, formats: Mapping[str, Format], written: Iterable[str]
) -> dict[str, Format]:
    """The formats for the slots that a layer has; a layer without a bias drops the bias's.

    Args:
        written: Slots that were asked for and must be possible.

    Raises:
        BadInput: The operation cannot be quantised or never has such a slot.
    """
    module = graph.module(node)
    if formats and not slots_of(module):
        raise BadInput(f"layer '{node.name}' is a {graph.original_type(node)}, which cannot be quantised")
    check_slots(module, node, written)
    return complete(module, formats)


def complete(module: nn.Module, formats: Mapping[str, Format]) -> dict[str, Format]:
    """The formats for the slots that a layer has; an unset bias takes that of the accumulator."""
    present = slots_of(module)
    fitting = {slot: f for slot, f in formats.items() if slot in present}
    terms = dot_terms(module)
    if "bias" in present and "bias" not in fitting and terms is not None:
        bias = accumulator(fitting.get("data_in", FULL), fitting.get("weight", FULL), terms)
        if bias is not FULL:
            fitting["bias"] = bias
    return fitting


def check_slots(module: nn.Module, node: Node, slots: Iterable[str]) -> None:
    """Refuse slots that the operation of a layer never has."""
    possible = possible_slots(module)
    for slot in slots:
        if slot not in possible:
            raise BadInput(f"a {node.op} layer has no slot '{slot}'", found=slot, allowed=possible)


def possible_slots(module: nn.Module) -> tuple[str, ...]:
    """Slots of the operation, whether or not this layer has the parameter."""
    layer = type(module) if isinstance(module, Quantized) else LAYERS.get(type(module))
    return layer.slot_names if layer is not None else ()


def instrument_layers(model: nn.Module, paths: Mapping[str, Any] | tuple[str, ...]) -> dict[str, Quantized]:
    """Turn the layers at these paths into quantised layers, in place, sharing one cache."""
    cache = TensorCache()
    return {path: instrument(model.get_submodule(path), cache) for path in paths}


def apply_assignment(model: nn.Module, assignment: Assignment) -> None:
    """Set formats on a model, in place."""
    for path, layer in instrument_layers(model, tuple(assignment)).items():
        layer.set_slots(assignment[path])


def assignment_of(model: nn.Module) -> dict[str, dict[str, Format]]:
    """The formats that the quantised layers of a model carry."""
    return {path: dict(m.slots) for path, m in model.named_modules() if isinstance(m, Quantized)}
