"""Which operation reads which parameter, through which views, and in which layout its format sees it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from paretobit.formats import FULL, Format
from paretobit.graph import ModelGraph, Node
from paretobit.graph.computed import computed_weights, value_of
from paretobit.graph.operations import Operand
from paretobit.graph.ops import is_leaf
from paretobit.graph.readings import readings, replayed
from paretobit.nn.computed import Computed, computed_in, parameters_below
from paretobit.nn.functions import laid_out, shown_once
from paretobit.nn.layers import lies_transposed, possible_slots
from paretobit.nn.masks import zeros_in
from paretobit.nn.quantized import slot_of_parameter, swap_channels

Formats = Mapping[str, Mapping[str, Format]]


@dataclass(frozen=True)
class ParameterUse:
    """One reading of one parameter, or of what is computed from some.

    Attributes:
        path: The parameter; the first path where it stands at several; the largest of several parameters.
        parameter: The parameter itself.
        site: Path of the layer or site of the function that reads it: where its format is set.
        slot: The slot it goes through; empty where it goes through none.
        node: The call that reads it; None for a layer that is not called.
        views: What stands between the parameter and the operand, first to last.
        output: Which of the results of the last view; None where it has one.
        why: Why no format reaches it there; None where one does.
        layer: The layer that owns it; None where a function reads it.
        computed: What is read in the place of the parameter; None where it is the parameter.
        operand: Of the function that reads it.
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
    computed: Computed | None = field(default=None, repr=False, compare=False)
    operand: Operand | None = None

    @property
    def full_shape(self) -> tuple[int, ...]:
        """Shape of the tensor of which this reads all or a part."""
        return tuple(self.parameter.shape) if self.computed is None else self.computed.shape

    def laid_out(self, value: Tensor) -> Tensor:
        """A tensor of that shape, in the layout in which the format of this use sees it.

        As it lies where the graph does not tell the layout.
        """
        if self.layer is not None:
            turned = self.slot == "weight" and lies_transposed(self.layer)
            return swap_channels(value, int(getattr(self.layer, "groups", 1))) if turned else value
        seen = self._seen(value)
        return value if seen is None else laid_out(self.operand, seen)

    def _seen(self, value: Tensor) -> Tensor | None:
        """What the views show, what they repeat once; None where the graph does not tell."""
        seen = replayed(self.views, value, self.output)
        once = seen if seen is None else shown_once(seen)
        return once if once is None or once.numel() <= value.numel() else None

    @cached_property
    def is_told(self) -> bool:
        """Whether the graph tells what of the parameter is read, and in which layout."""
        return self.layer is not None or self._seen(torch.empty(self.full_shape, device="meta")) is not None

    @property
    def layout(self) -> str:
        """The same for two uses that read the same in the same layout."""
        if self.layer is not None:
            turned = self.slot == "weight" and lies_transposed(self.layer)
            return f"in groups of {getattr(self.layer, 'groups', 1)}" if turned else ""
        operand = self.operand
        told = operand is not None and operand.slot == "weight" and (operand.terms or operand.groups)
        return str((self.views, self.output, operand)) if self.views or told else ""

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape in that layout."""
        return tuple(self.laid_out(torch.empty(self.full_shape, device="meta")).shape)

    @property
    def whole(self) -> bool:
        """Whether all of the parameter is read."""
        return math.prod(self.shape) == math.prod(self.full_shape)

    def value(self, given: Tensor | None = None) -> Tensor | None:
        """What is stored: of this value of the parameter, or as it is now; None where nobody can tell."""
        if self.computed is not None:
            made = self.computed.value()
            return None if made is None else made.detach()
        return self.parameter.detach() if given is None else given

    def quantised(self, slots: Mapping[str, Format], value: Tensor | None = None) -> Tensor | None:
        """What is read under the formats of the site, in the layout of this use; None where nobody can tell.

        Args:
            slots: The formats.
            value: Of the parameter; as it is now unless given.
        """
        whole = self.value(value)
        return None if whole is None else slots.get(self.slot, FULL).quantize(self.laid_out(whole))


@dataclass(frozen=True)
class Stored:
    """A parameter, or a tensor in the place of some, stored once, and all that read it.

    Attributes:
        path: The first path where it stands; the largest of several parameters.
        parameters: The parameter, or all from which the tensor is computed.
        uses: Its readings; that of the layer which owns it comes first.
        home: Path of the layer or site of the function at which it counts.
    """

    path: str
    parameters: tuple[nn.Parameter, ...]
    uses: tuple[ParameterUse, ...]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of what is stored."""
        return self.uses[0].full_shape if self.uses else tuple(self.parameters[0].shape)

    @property
    def elements(self) -> int:
        """Elements of what is stored."""
        return math.prod(self.shape)

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

    def why_float_in(self, slots: Mapping[str, Format]) -> str | None:
        """Why it is stored at full precision under formats of its home that it could have; None where it is not."""
        if self.why_float is not None:
            return self.why_float
        shares = slots.get(self.uses[0].slot, FULL).traits.scale != "none"
        return self._pieces.conflict if shares else None

    def format(self, slots: Mapping[str, Format]) -> Format:
        """The format it is stored in under the formats of its home: those of its readings agree."""
        return FULL if self.why_float_in(slots) is not None else slots.get(self.uses[0].slot, FULL)

    def parts(self, slots: Mapping[str, Format]) -> list[tuple[Format, tuple[int, ...]]]:
        """Formats and shapes in which it is stored under the formats of its home: mostly one.

        Where it is read in parts, what nobody reads is float.
        """
        number_format = self.format(slots)
        if number_format is FULL:
            return [(FULL, self.shape)]
        rest = [(FULL, (self.unread,))] if self.unread else []
        return [*((number_format, shape) for shape in self._pieces.shapes), *rest]

    @property
    def unread(self) -> int:
        """Elements that nobody reads: they are stored in float where a format decides for the others."""
        return self._pieces.unread if self.uses else 0

    def zeros(self, slots: Mapping[str, Format], value: Tensor | None = None) -> list[int]:
        """Of each of `parts`, how many elements are exactly zero once stored; of this value of the parameter.

        None are counted of what nobody can tell.
        """
        whole = self.uses[0].value(value) if self.uses else self.parameters[0].detach() if value is None else value
        number_format, reads = self.format(slots), self._pieces.reads if self.uses else ()
        if whole is None:
            return [0] * len(self.parts(slots))
        if number_format is FULL or not reads:
            return [zeros_in(number_format.quantize(whole))]
        unread = zeros_in(whole) - sum(zeros_in(use.laid_out(whole)) for use in reads)
        read = [number_format.quantize(use.laid_out(whole)) for use in reads]
        return [*map(zeros_in, read), max(0, unread)]

    def bits(self, slots: Mapping[str, Format]) -> int:
        """Bits that storing it takes under the formats of its home."""
        return sum(number_format.bits(shape) for number_format, shape in self.parts(slots))

    @cached_property
    def _pieces(self) -> "_Pieces":
        return _Pieces.of(self.uses, self.shape)


@dataclass(frozen=True)
class _Pieces:
    """The parts in which a tensor is stored, each in the layout in which it is read.

    Attributes:
        shapes: Of the parts.
        reads: One use for each part; none where they do not tell the parts.
        unread: Elements that nobody reads.
        conflict: Why formats that share scales between elements cannot store it once; None where they can.
    """

    shapes: tuple[tuple[int, ...], ...]
    unread: int
    reads: "tuple[ParameterUse, ...]" = ()
    conflict: str | None = None

    @classmethod
    def of(cls, uses: Sequence[ParameterUse], shape: tuple[int, ...]) -> "_Pieces":
        """The parts of a tensor of this shape that these uses read."""
        untold = [use for use in uses if not use.is_told]
        if untold:
            return cls((shape,), 0, (), f"the graph does not tell in which layout '{untold[0].site}' reads it")
        distinct = list({use.layout: use for use in uses}.values())
        if len(distinct) == 1:
            return cls((distinct[0].shape,), math.prod(shape) - math.prod(distinct[0].shape), tuple(distinct))
        places = torch.arange(math.prod(shape), dtype=torch.int32).view(shape)
        pieces: list[Tensor] = []
        reads: list[ParameterUse] = []
        read = torch.zeros(math.prod(shape), dtype=torch.bool)
        for use in distinct:
            own = use.laid_out(places)
            if any(own.shape == other.shape and torch.equal(own, other) for other in pieces):
                continue
            if read[own.flatten()].any():
                sites = f"'{uses[0].site}' and '{use.site}'"
                return cls(
                    (shape,), 0, (), f"{sites} read it in ways that cannot share the scales of one stored tensor"
                )
            read[own.flatten()] = True
            pieces.append(own)
            reads.append(use)
        return cls(tuple(tuple(piece.shape) for piece in pieces), int((~read).sum()), tuple(reads))


class ParameterUses:
    """The parameters of a model and their readings.

    Attributes:
        stored: Everything that is stored, once, in the order of the modules that own it.
    """

    def __init__(self, graph: ModelGraph) -> None:
        named = dict(graph.model.named_parameters(remove_duplicate=False))
        uses: dict[int, list[ParameterUse]] = {id(p): [] for p in named.values()}
        for use in (*_of_layers(graph), *_of_functions(graph)):
            uses[id(use.parameter)].append(use)
        first = {id(p): path for path, p in reversed(named.items())}
        gone = set[int]()  # what is stored as a part of something else
        mixed = [own for own in uses.values() if not _is_alone(own, uses)]
        for use in [use for own in mixed for use in own]:  # parameters are stored as they are, and no format decides
            uses[id(use.parameter)].remove(use)
            for parameter in (use.parameter,) if use.computed is None else use.computed.parameters:
                path = first[id(parameter)]
                uses[id(parameter)].append(replace(use, path=path, parameter=parameter, computed=None, why=_MIXED))
        for own in uses.values():
            gone |= {id(p) for use in own if use.computed for p in use.computed.parameters if p is not use.parameter}
        kept = {address: own for address, own in uses.items() if address not in gone}
        self.stored = tuple(_stored(first[a], named[first[a]], _real(own)) for a, own in kept.items())
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


def _stored(path: str, parameter: nn.Parameter, uses: tuple[ParameterUse, ...]) -> Stored:
    computed = uses[0].computed if uses else None
    return Stored(path, (parameter,) if computed is None else computed.parameters, uses)


_MIXED = "it is read as it is, and in what is computed from it"


def _is_alone(own: list[ParameterUse], uses: Mapping[int, list[ParameterUse]]) -> bool:
    """Whether what is computed is all that is read of its parameters; true of what is not computed."""
    computed = next((use.computed for use in own if use.computed is not None), None)
    if computed is None:
        return True
    same = {id(p) for p in computed.parameters}
    found = [use.computed for p in computed.parameters for use in uses[id(p)]]
    return all(one is not None and {id(p) for p in one.parameters} == same for one in found)


def _of_functions(graph: ModelGraph) -> Iterator[ParameterUse]:
    """What functions read, in order of execution."""
    named = dict(graph.model.named_parameters(remove_duplicate=False))
    weights = computed_weights(graph)
    made: dict[str, Computed] = {}
    for reading in readings(graph):
        site = reading.node.owner if reading.node.kind == "call_module" else reading.node.site
        root = reading.computed
        if root is not None and root.name not in made:
            parameters = tuple(named[path] for path in weights.roots[root.name])
            made[root.name] = Computed(root.output_shapes[0], parameters, partial(value_of, graph, root.name))
        found = (site, reading.slot, reading.node, reading.views, reading.output, reading.why)
        computed = None if root is None else made[root.name]
        yield ParameterUse(reading.path, named[reading.path], *found, computed=computed, operand=reading.operand)


def _of_layers(graph: ModelGraph) -> Iterator[ParameterUse]:
    """What layers own, in the order of the modules; what is within a layer counts as the layer's."""
    calls = {node.owner: node for node in graph.layers}
    leaf: tuple[str, nn.Module] | None = None
    for path, module in graph.model.named_modules():
        if leaf is None or (leaf[0] and not path.startswith(f"{leaf[0]}.")):
            leaf = (path, module) if is_leaf(module) and not isinstance(module, ParametrizationList) else None
        if leaf is None:
            continue
        site, layer = leaf
        made = {id(p): (name, made) for name, made in computed_in(module).items() for p in made.parameters}
        inside = isinstance(module, ParametrizationList) or "parametrizations" in path.split(".")
        for own, parameter in () if inside else parameters_below(module, path):
            name, computed = made.get(id(parameter), (own.rpartition(".")[2], None))
            if computed is not None and parameter is not max(computed.parameters, key=Tensor.numel):
                continue
            slot = slot_of_parameter(name) if slot_of_parameter(name) in possible_slots(layer) else ""
            why = None if slot else f"{type(layer).__name__} has no slot for its {name}"
            yield ParameterUse(own, parameter, site, slot, calls.get(site), (), None, why, layer, computed)


def parameter_uses(graph: ModelGraph) -> ParameterUses:
    """The parameter uses of a graph; known again as long as its model has the same parameters."""
    state = [(path, id(p)) for path, p in graph.model.named_parameters(remove_duplicate=False)]
    known: tuple[object, ParameterUses] | None = vars(graph).get("_parameter_uses")
    if known is None or known[0] != state:
        known = vars(graph)["_parameter_uses"] = (state, ParameterUses(graph))
    return known[1]
