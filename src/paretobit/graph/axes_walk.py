"""The state of one walk over a graph: the axes of every result, parameter and layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from paretobit.graph.axes import Axis, Variables, fixed, size
from paretobit.graph.model_graph import ModelGraph, Node, Shape
from paretobit.graph.names import node_name

Way = TypeVar("Way")
_MOST_ALIKE = 2


class NotUnderstood(Exception):
    """A rule does not cover this use of an operation; the text says why."""


@dataclass(frozen=True)
class Axes:
    """A tensor result: one entry a dimension; the path of the parameter it is, if it is one."""

    dims: tuple[Axis, ...]
    parameter: str = ""

    def __len__(self) -> int:
        return len(self.dims)

    @property
    def sizes(self) -> Shape:
        """The shape now."""
        return tuple(map(size, self.dims))

    def replaced(self, dim: int, axis: Axis) -> Axes:
        """The same with another axis at one place."""
        dims = list(self.dims)
        dims[dim] = axis
        return Axes(tuple(dims))


def tensors_in(value: Any) -> list[Axes]:
    """The tensors in arguments or results, in order."""
    if isinstance(value, Axes):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [axes for item in value for axes in tensors_in(item)] if isinstance(value, list | tuple) else []


def shape_of(node: Node) -> Shape:
    """The shape of a node's result, where it was seen."""
    if node.output_shape is None:
        raise NotUnderstood("its shape is not known")
    return node.output_shape


class Computed:
    """In the place of a number that the model computes while it runs, such as `x.size(0)`."""


COMPUTED = Computed()


@dataclass
class Tensors:
    """A parameter or buffer: its axes, and what each dimension is for.

    Attributes:
        tensor: The tensor.
        path: Where it is; the first place if several share it.
        dims: Its axes.
        summed: Dimensions over which products are summed: a layer's input.
        copied: The other dimensions.
    """

    tensor: Tensor
    path: str
    dims: tuple[Axis, ...]
    summed: set[int] = field(default_factory=set)
    copied: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Layer:
    """The channel axes of one layer: what it takes and what it gives; `through` keeps its channels."""

    name: str
    owner: str
    op: str
    takes: Axis | None
    gives: Axis | None

    @property
    def through(self) -> bool:
        """Whether its channels are those of its input."""
        return self.takes is None or self.gives is None


@dataclass(frozen=True)
class Obstacle:
    """Where copies of channels are felt: all must be copied alike, or none may be copied."""

    node: str
    op: str
    axis: Axis
    allows: Literal["multiples", "nothing"]


@dataclass
class Findings:
    """What trial runs with other widths found out, by place in the code; another walk starts from it.

    Attributes:
        refused: What does not follow the widths, with the reason: its tensors are fixed.
        wrong: Ways in which it could follow that turned out wrong.
        chosen: The way that the last walk took, by node name.
    """

    refused: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, set[str]] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)


class Walk:
    """What is known so far."""

    def __init__(self, graph: ModelGraph, findings: Findings | None = None) -> None:
        self.graph = graph
        self.findings = findings or Findings()
        self.findings.chosen.clear()
        self.values: dict[str, Any] = {}
        self.variables = Variables()
        self.tensors: dict[int, Tensors] = {}
        self.layers: dict[str, Layer] = {}
        self.attributes: dict[tuple[str, str], tuple[Axis, ...]] = {}
        self.obstacles: list[Obstacle] = []
        self.inputs: list[tuple[Node, Axis]] = []
        self.literal_sizes_are_fixed = graph.method == "fx"
        """In a graph of one run every size is a number, whether the model computes it or not."""
        model = graph.model
        everything = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
        self._by_path: dict[str, Tensor] = dict(everything)
        self._by_name: dict[str, list[str]] = {}
        for path in self._by_path:
            self._by_name.setdefault(node_name(path), []).append(path)

    # --- results ---------------------------------------------------------------------------------

    def fixed_axes(self, shape: Iterable[int], reason: str) -> Axes:
        """A result of which nothing may change."""
        return Axes(tuple(fixed(elements, reason) for elements in shape))

    def freeze(self, values: Iterable[Axes], reason: str) -> None:
        """Fix every axis of results."""
        for value in values:
            for axis in value.dims:
                self.variables.freeze(axis, reason)

    def is_fixed(self, axis: Axis) -> bool:
        """Whether nothing of an axis may change."""
        return self.variables.is_fixed(axis)

    def joined(self, first: Axis, second: Axis, node: Node) -> Axis:
        """Two axes made equal; one that has a single element is spread over the other."""
        one, other = size(first), size(second)
        if one == other:
            self.variables.join(first, second, node.name)
            return first if not self.is_fixed(first) else second
        if 1 not in (one, other):
            raise NotUnderstood("sizes differ")
        thin, wide = (first, second) if one == 1 else (second, first)
        self.variables.freeze(thin, f"{node.name} spreads a single channel over others")
        return wide

    def broadcast(self, values: Sequence[Axes], node: Node) -> Axes:
        """The axes of an elementwise operation."""
        longest = max(values, key=len)
        dims = list(longest.dims)
        for value in values:
            for k in range(1, len(value) + 1):
                dims[-k] = self.joined(dims[-k], value.dims[-k], node)
        return Axes(tuple(dims))

    def must_be_fixed(self, axes: Iterable[Axis], what: str) -> None:
        """Refuse an operation that would have to know how an axis changes."""
        for axis in axes:
            if size(axis) == 1:
                self.variables.freeze(axis, what)
            elif not self.is_fixed(axis):
                raise NotUnderstood(what)

    def tiles(self, axis: Axis, number: int, node: Node, what: str) -> Axis:
        """The tile of an axis that is made to be `number` equal ones; `what` has to line up for it."""
        tile = self.variables.tiles(axis, number, node.name)
        if tile is None:
            raise NotUnderstood(f"its {what} do not line up with the channels")
        return tile

    def obstacle(self, node: Node, axes: Iterable[Axis], allows: Literal["multiples", "nothing"]) -> None:
        """Remember where copies of channels are felt."""
        self.obstacles += [Obstacle(node.name, node.op, axis, allows) for axis in axes if not self.is_fixed(axis)]

    # --- parameters ------------------------------------------------------------------------------

    def own(self, node: Node, **dims: Sequence[Axis]) -> None:
        """Say what the dimensions of a layer's parameters and buffers are; those it has not are passed over.

        The name of a parameter may end in `_summed_<dimension>`: products are summed over it.
        """
        for name, axes in dims.items():
            name, _, summed = name.partition("_summed_")
            path = f"{node.owner}.{name}" if node.owner else name
            if path in self._by_path:
                self.use(path, tuple(axes), node, {int(summed)} if summed else set())

    def use(self, path: str, axes: tuple[Axis, ...], node: Node, summed: set[int]) -> None:
        """Say what the dimensions of one tensor of the model are in this use."""
        tensor = self._by_path[path]
        known = self.tensors.get(id(tensor))
        if known is None:
            known = self.tensors[id(tensor)] = Tensors(tensor, path, axes)
        else:
            for before, now in zip(known.dims, axes, strict=True):
                self.variables.join(before, now, node.name)
        known.summed |= summed
        known.copied |= set(range(len(axes))) - summed

    def has(self, node: Node, name: str) -> bool:
        """Whether a layer has a parameter or buffer of this name as it is."""
        return (f"{node.owner}.{name}" if node.owner else name) in self._by_path

    def attribute(self, node: Node, **axes: Axis | Sequence[Axis]) -> None:
        """Say which sizes a layer keeps as attributes."""
        for name, axis in axes.items():
            several = axis and not hasattr(axis[0], "variable")
            value: Any = tuple(axis) if several else (axis,)
            self.attributes[node.owner, name] = value

    # --- sizes that stand in the code ------------------------------------------------------------

    def place(self, node: Node) -> str:
        """Where a node stands in the code: the same for all modules of a class."""
        if node.kind == "call_module" or not node.site:
            return node.name
        owner = type(self.graph.model.get_submodule(node.owner))
        return f"{owner.__module__}.{owner.__qualname__}:{node.site.rpartition('.')[2]}"

    def chosen(self, node: Node, ways: Mapping[str, Way]) -> Way | None:
        """The first way to follow the widths that trial runs have not shown to be wrong here, if any."""
        wrong = self.findings.wrong.get(self.place(node), ())
        found = next((name for name in ways if name not in wrong), None)
        if found is None:
            return None
        self.findings.chosen[node.name] = found
        return ways[found]

    def follows(self, node: Node, wanted: Iterable[tuple[Any, Axis]]) -> bool:
        """Whether sizes that an operation asks for can follow the axes they are for.

        In a graph of one run they may do so by themselves; or an attribute of the module that asks is
        the size, and changes with the width; or another width is, and both are one from now on. Trial
        runs tell which of these ways is right.

        Args:
            node: The operation.
            wanted: What it asks for, and the axis that is to have this size; only whole numbers count.
        """
        literal = [(n, axis) for n, axis in wanted if isinstance(n, int) and n > 1 and not self.is_fixed(axis)]
        if not literal:
            return True
        ways: dict[str, list[str | Axis]] = {} if self.literal_sizes_are_fixed else {"by itself": []}
        own: list[list[str | Axis]] = [[*self.named(node, n), *self._alike(node, n, axis)] for n, axis in literal]
        for k in range(max(map(len, own)) if all(own) else 0):
            together = [some[min(k, len(some) - 1)] for some in own]
            ways[", ".join(way if isinstance(way, str) else f"width {k}" for way in together)] = together
        way = self.chosen(node, ways)
        for (_, axis), leader in zip(literal, way or (), strict=False):
            if isinstance(leader, str):
                self.rescale(node, leader, axis)
            else:
                self.variables.join(axis, leader, node.name)
        return way is not None

    def _alike(self, node: Node, number: int, axis: Axis) -> list[Axis]:
        """Other widths of this size that the same module saw before: a run does not tell which one it asks for."""
        found: dict[Axis, None] = {}
        for other in self.graph.nodes if not self.literal_sizes_are_fixed else ():
            if other is node:
                break
            caller = other.owner.rpartition(".")[0] if other.kind == "call_module" else other.owner
            if caller == node.owner:
                seen = tensors_in([self.values.get(name) for name in other.inputs])
                own = [a for value in seen for a in value.dims if size(a) == number and not self.is_fixed(a)]
                found |= dict.fromkeys(map(self.variables.resolve, own))
        return [other for other in found if other != self.variables.resolve(axis)][:_MOST_ALIKE]

    def named(self, node: Node, number: int) -> list[str]:
        """Attributes of the module that calls a function which are this number."""
        own = vars(self.graph.model.get_submodule(node.owner))
        return [name for name, value in own.items() if type(value) in (int, tuple) and value in (number, (number,))]

    def rescale(self, node: Node, name: str, axis: Axis) -> None:
        """Have an attribute of the module that calls a function follow an axis."""
        for before in self.attributes.get((node.owner, name), ()):
            self.variables.join(before, axis, node.name)
        self.attributes[node.owner, name] = (axis,)

    def read(self, node: Node) -> Axes | None:
        """The axes of a parameter or buffer that the model uses directly; None where it is none of its own."""
        found = self._path_of(node)
        if found is None:
            return None
        tensor = self._by_path[found]
        known = self.tensors.get(id(tensor))
        if known is None:
            dims = tuple(self.variables.new(n) if n > 1 else fixed(n) for n in tensor.shape)
            known = self.tensors[id(tensor)] = Tensors(tensor, found, dims)
        return Axes(known.dims, found)

    def _path_of(self, node: Node) -> str | None:
        if node.owner in self._by_path:
            return node.owner
        bare = re.sub(r"_\d+$", "", node.name)
        for name in (node.name, bare):
            if len(paths := self._by_name.get(name, [])) == 1:
                return paths[0]
        return None

    def only_copied(self, value: Axes) -> None:
        """A parameter enters an operation elementwise."""
        if value.parameter:
            known = self.tensors[id(self._by_path[value.parameter])]
            known.copied |= set(range(len(value)))

    def freeze_module(self, node: Node, reason: str) -> None:
        """Fix the parameters and buffers of a layer that is not understood."""
        module: nn.Module = self.graph.module(node)
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            path = f"{node.owner}.{name}" if node.owner else name
            axes = self.fixed_axes(tensor.shape, reason).dims
            self.use(path, axes, node, set())

    # --- layers ----------------------------------------------------------------------------------

    def layer(self, node: Node, takes: Axis | None, gives: Axis | None) -> None:
        """Remember the channel axes of a layer; another call of it takes and gives the same."""
        before = self.layers.get(node.owner)
        if before is None:
            self.layers[node.owner] = Layer(node.name, node.owner, node.op, takes, gives)
            return
        for old, new in ((before.takes, takes), (before.gives, gives)):
            if old is not None and new is not None:
                self.variables.join(old, new, node.name)

    def produced(self, node: Node, channels: int) -> Axis:
        """The output channels of a layer: a new variable at its first call."""
        before = self.layers.get(node.owner)
        if before is not None and before.gives is not None:
            return before.gives
        return self.variables.new(channels)


Rule = Callable[[Walk, Node, tuple[Any, ...], dict[str, Any]], Any]
"""From the arguments, with `Axes` in the place of tensors, to the result in the same form."""
