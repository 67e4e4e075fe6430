"""Which operation reads which parameter, through which views, and in which layout its format sees it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from paretobit.formats import FULL, Format
from paretobit.graph import ModelGraph, Node
from paretobit.graph.ops import is_leaf
from paretobit.graph.readings import parameters_at, readings, replayed
from paretobit.nn.functions import outputs_first
from paretobit.nn.layers import layer_for, possible_slots
from paretobit.nn.masks import zeros_in
from paretobit.nn.quantized import Quantized, as_quantised, slot_of_parameter

Formats = Mapping[str, Mapping[str, Format]]


@dataclass(frozen=True)
class ParameterUse:
    """One reading of one parameter.

    Attributes:
        path: The parameter; the first path where it stands at several.
        parameter: The parameter itself.
        site: Path of the layer or site of the function that reads it: where its format is set.
        slot: The slot it goes through; empty where it goes through none.
        node: The call that reads it; None for a layer that is not called.
        views: What stands between the parameter and the operand, first to last.
        output: Which of the results of the last view; None where it has one.
        why: Why no format reaches it there; None where one does.
        layer: The layer that owns it; None where a function reads it.
    """

    path: str
    parameter: nn.Parameter = field(repr=False, compare=False)
    site: str
    slot: str
    node: Node | None = None
    views: tuple[Node, ...] = ()
    output: int | None = None
    why: str | None = None
    layer: nn.Module | None = field(default=None, repr=False, compare=False)

    def laid_out(self, value: Tensor) -> Tensor:
        """A tensor of the parameter's shape, in the layout in which the format of this use sees it.

        As it lies where the graph does not tell the layout.
        """
        if self.layer is not None:
            quantised = type(self.layer) if isinstance(self.layer, Quantized) else layer_for(type(self.layer))
            return value if quantised is None else as_quantised(self.layer, quantised, self.slot, value)
        seen = replayed(self.views, value, self.output)
        if seen is None or self.node is None or seen.numel() > value.numel():
            return value
        return outputs_first(self.node.op, self.slot, seen)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape in that layout."""
        return tuple(self.laid_out(torch.empty(self.parameter.shape, device="meta")).shape)

    @property
    def whole(self) -> bool:
        """Whether all of the parameter is read."""
        return math.prod(self.shape) == self.parameter.numel()

    def quantised(self, slots: Mapping[str, Format], value: Tensor | None = None) -> Tensor:
        """What is read under the formats of the site, in the layout of this use; of this value of the parameter."""
        value = self.parameter.detach() if value is None else value
        return slots.get(self.slot, FULL).quantize(self.laid_out(value))


@dataclass(frozen=True)
class Stored:
    """A parameter, stored once, and all that read it.

    Attributes:
        path: The first path where it stands.
        parameter: The parameter.
        uses: Its readings; that of the layer which owns it comes first.
        home: Path of the layer or site of the function at which it counts.
    """

    path: str
    parameter: nn.Parameter
    uses: tuple[ParameterUse, ...]

    @cached_property
    def home(self) -> str:
        """Path of the layer or site of the function at which it counts; empty where nothing reads it."""
        return self.uses[0].site if self.uses else ""

    @cached_property
    def why_float(self) -> str | None:
        """Why it is stored at full precision whatever the formats; None where they decide."""
        if not self.uses:
            return "nothing reads it"
        return next((use.why for use in self.uses if use.why is not None), None)

    def agreed(self, formats: Formats) -> Mapping[str, Format]:
        """The formats of its home where all its readings agree on one; none where they do not."""
        found = {formats.get(use.site, {}).get(use.slot, FULL) for use in self.uses}
        return formats.get(self.home, {}) if len(found) == 1 else {}

    def format(self, slots: Mapping[str, Format]) -> Format:
        """The format it is stored in under the formats of its home: those of its readings agree."""
        return FULL if self.why_float is not None else slots.get(self.uses[0].slot, FULL)

    def parts(self, slots: Mapping[str, Format]) -> list[tuple[Format, tuple[int, ...]]]:
        """Formats and shapes in which it is stored under the formats of its home: mostly one.

        Where it is read in parts, what nobody reads is float.
        """
        number_format = self.format(slots)
        if number_format is FULL:
            return [(FULL, tuple(self.parameter.shape))]
        read = [(number_format, use.shape) for use in self._read]
        rest = self.parameter.numel() - sum(math.prod(shape) for _, shape in read)
        return read + ([(FULL, (rest,))] if rest > 0 else [])

    def zeros(self, slots: Mapping[str, Format], value: Tensor | None = None) -> list[int]:
        """Of each of `parts`, how many elements are exactly zero once stored; of this value of the parameter."""
        value = self.parameter.detach() if value is None else value
        if self.format(slots) is FULL:
            return [zeros_in(value)]
        unread = zeros_in(value) - sum(zeros_in(use.laid_out(value)) for use in self._read)
        return [zeros_in(use.quantised(slots, value)) for use in self._read] + [max(0, unread)]

    def bits(self, slots: Mapping[str, Format]) -> int:
        """Bits that storing it takes under the formats of its home."""
        return sum(number_format.bits(shape) for number_format, shape in self.parts(slots))

    @cached_property
    def _read(self) -> tuple[ParameterUse, ...]:
        """One use for each part that is read: one where somebody reads all of it."""
        whole = [use for use in self.uses if use.whole]
        return tuple(whole[:1] or {str((use.views, use.output)): use for use in self.uses}.values())


class ParameterUses:
    """The parameters of a model and their readings.

    Attributes:
        stored: Every parameter once, in the order of the modules that own them.
    """

    def __init__(self, graph: ModelGraph) -> None:
        first: dict[int, str] = {}
        named = dict(graph.model.named_parameters(remove_duplicate=False))
        for path, parameter in named.items():
            first.setdefault(id(parameter), path)
        uses: dict[str, list[ParameterUse]] = {path: [] for path in first.values()}
        for use in _of_layers(graph):
            uses[first[id(use.parameter)]].append(use)
        for reading in readings(graph):
            parameter = named[reading.path]
            site = reading.node.owner if reading.node.kind == "call_module" else reading.node.site
            found = (site, reading.slot, reading.node, reading.views, reading.output, reading.why)
            uses[first[id(parameter)]].append(ParameterUse(reading.path, parameter, *found))
        self.stored = tuple(Stored(path, named[path], _real(own)) for path, own in uses.items())
        self._at: dict[str, list[ParameterUse]] = {}
        for use in self:
            self._at.setdefault(use.site, []).append(use)

    def __iter__(self) -> Iterator[ParameterUse]:
        for stored in self.stored:
            yield from stored.uses

    def at(self, site: str) -> tuple[ParameterUse, ...]:
        """What a layer or function reads."""
        return tuple(self._at.get(site, ()))


def _real(uses: list[ParameterUse]) -> tuple[ParameterUse, ...]:
    """Without those of layers that are never called, where somebody else reads the parameter."""
    called = [use for use in uses if use.node is not None]
    return tuple(called or uses)


def _of_layers(graph: ModelGraph) -> Iterator[ParameterUse]:
    """What layers own, in the order of the modules; what is within a layer counts as the layer's."""
    calls = {node.owner: node for node in graph.layers}
    leaf: tuple[str, nn.Module] | None = None
    for path, module in graph.model.named_modules():
        if leaf is None or (leaf[0] and not path.startswith(f"{leaf[0]}.")):
            leaf = (path, module) if is_leaf(module) else None
        if leaf is None:
            continue
        site, layer = leaf
        for own, parameter in parameters_at(module, path):
            name = own.rpartition(".")[2]
            slot = slot_of_parameter(name) if slot_of_parameter(name) in possible_slots(layer) else ""
            why = None if slot else f"{type(layer).__name__} has no slot for its {name}"
            yield ParameterUse(own, parameter, site, slot, calls.get(site), (), None, why, layer)


def parameter_uses(graph: ModelGraph) -> ParameterUses:
    """The parameter uses of a graph; known again as long as its model has the same parameters."""
    state = [(path, id(p)) for path, p in graph.model.named_parameters(remove_duplicate=False)]
    known: tuple[object, ParameterUses] | None = vars(graph).get("_parameter_uses")
    if known is None or known[0] != state:
        known = vars(graph)["_parameter_uses"] = (state, ParameterUses(graph))
    return known[1]
