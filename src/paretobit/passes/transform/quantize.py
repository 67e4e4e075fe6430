"""Quantise layers and functions: choose them by type, name or pattern, and set a format in each slot."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel

from paretobit.errors import BadInput, under
from paretobit.formats import Format
from paretobit.graph import ModelGraph, Node
from paretobit.graph.copies import copy_of
from paretobit.graph.operations import row_of
from paretobit.passes.layers.assignment import apply_assignment
from paretobit.passes.layers.choice import FIRST, LAST, LayerChoice
from paretobit.passes.layers.entries import EntrySettings, slot_formats, split_entry
from paretobit.passes.layers.pairs import AllowedPairs
from paretobit.passes.layers.quantizable import complete, unsupported
from paretobit.passes.layers.selection import By, path_of
from paretobit.passes.registry import PASSES
from paretobit.passes.taking import takes, with_entries
from paretobit.schemas import Entries, OpenSchema, check_fields, schema_of


@dataclass(frozen=True)
class QuantizeSettings:
    """Settings of the pass.

    Attributes:
        by: How the keys of `entries` choose layers.
        entries: Key to entry, in the reports' words: `{"linear": {"name": "integer", "data_in_width": 8}}`.
        default: Entry for every layer that can be quantised and that no key chooses; of functions for
            those that read a parameter of the model as a layer does, others are chosen by a key only.
        skip: Names, paths or patterns of layers that stay float whatever else is said; the path of
            a module means all within it.
        first: Entry for the first layer with weights that are multiplied or looked up, in place of
            that of its type, a pattern or the default.
        last: The same for the last one.
        allowed: Pairs `[data, weight]` of formats that the device multiplies (see
            `paretobit.passes.layers.pairs`).
    """

    by: By = "type"
    entries: Annotated[Mapping[str, Mapping[str, Any]], Entries(EntrySettings)] = field(default_factory=dict)
    default: Mapping[str, Any] | None = None
    skip: Sequence[str] = ()
    first: Mapping[str, Any] | None = None
    last: Mapping[str, Any] | None = None
    allowed: Sequence[Sequence[str]] | None = None

    def __post_init__(self) -> None:
        check_fields(self)


class QuantizeTable(OpenSchema):
    """A `[passes.quantize]` table: settings, and an entry a key."""

    entry: ClassVar[type[BaseModel] | None] = EntrySettings


def quantize(graph: ModelGraph, settings: QuantizeSettings) -> tuple[ModelGraph, dict[str, Any]]:
    """A copy of the graph whose layers and functions carry the formats.

    Returns:
        The new graph, and `assignment`: the formats as text; `unsupported`: name of every operation
        of the model that cannot be quantised, or that a pattern matches and that has not the slots
        of its entry, and why.

    Raises:
        BadInput: A key matches no layer, a layer cannot be quantised, a slot does not exist, or a
            pair of formats is not allowed.
    """
    choice = _choice(graph, settings)
    assignment = _resolve(graph, settings, choice)
    model = copy_of(graph.model)
    apply_assignment(model, assignment, graph.places)
    text = {path: {slot: str(f) for slot, f in slots.items()} for path, slots in assignment.items()}
    return graph.with_model(model), {"assignment": text, "unsupported": unsupported(graph) | choice.left}


@PASSES.register("quantize", summary="formats for the slots of layers, chosen by type, name or regex")
@takes(schema_of(QuantizeSettings, leave_out=("entries",), base=QuantizeTable))
def quantize_pass(graph: ModelGraph, table: Mapping[str, Any]) -> tuple[ModelGraph, dict[str, Any]]:
    """`quantize` with the keys of a `[passes.quantize]` table: settings, and an entry a key."""
    options, entries = with_entries(QuantizeSettings, table)
    if not entries and not options.keys() & {"default", FIRST, LAST}:
        raise BadInput("the pass names no layers", allowed="a table per type or layer, or default")
    return quantize(graph, QuantizeSettings(entries=entries, **options))


def resolve(graph: ModelGraph, settings: QuantizeSettings) -> dict[str, dict[str, Format]]:
    """The formats that settings mean for the layers and functions of one graph."""
    return _resolve(graph, settings, _choice(graph, settings))


def _choice(graph: ModelGraph, settings: QuantizeSettings) -> LayerChoice:
    return LayerChoice(graph, settings.by, settings.skip, _ends(settings))


def _ends(settings: QuantizeSettings) -> dict[str, Mapping[str, Any]]:
    """The entries of the first and the last layer, where given."""
    return {end: entry for end in (FIRST, LAST) if (entry := getattr(settings, end)) is not None}


def _resolve(graph: ModelGraph, settings: QuantizeSettings, choice: LayerChoice) -> dict[str, dict[str, Format]]:
    pairs = AllowedPairs.read(settings.allowed)
    assignment: dict[str, dict[str, Format]] = {}

    def give(nodes: Iterable[Node], formats: Mapping[str, Format]) -> None:
        for node in nodes:
            slots = complete(graph, node, formats)
            if row_of(node.op).is_product:
                pairs.check(node.name, slots)
            if slots:
                assignment[path_of(node)] = slots

    for key, entry in [*_ends(settings).items(), *settings.entries.items()]:
        with under(key):
            formats, written = slot_formats(entry), split_entry(entry).written
            is_end = entry is _ends(settings).get(key)
            give((choice.end(key),) if is_end else choice.by_key(key, written), formats)
    if settings.default is not None:
        with under("default"):
            give(choice.rest(), slot_formats(settings.default))
    return assignment
