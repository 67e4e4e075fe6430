"""Width groups: which layers must change their widths together, and which widths cannot change.

One integer variable per producer of channels follows the tensors through the graph; what an operation
adds, concatenates or compares must agree, and what is not understood is frozen with the reason.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from paretobit.errors import BadInput
from paretobit.graph import axes_functions, axes_layers
from paretobit.graph.axes import Axis, Segment, Variables, fixed, size
from paretobit.graph.axes_walk import (
    COMPUTED,
    Axes,
    Findings,
    Layer,
    NotUnderstood,
    Obstacle,
    Tensors,
    Walk,
    tensors_in,
)
from paretobit.graph.model_graph import ModelGraph, Node, Ref, Shape, filled
from paretobit.graph.operations import row_of
from paretobit.graph.width_runs import settled

Role = Literal["in", "out", "through"]


@dataclass(frozen=True)
class Member:
    """A layer whose channels belong to a group, and on which side."""

    layer: str
    op: str
    role: Role


@dataclass(frozen=True)
class WidthGroup:
    """Channels that change together.

    Attributes:
        name: Node name of its first producer; with the range of channels where a producer has several groups.
        width: Channels now, as its first producer counts them.
        divisor: Every width is a multiple of it: groups of a convolution, channels of a head.
        members: The layers, in order of execution.
        frozen: Why the width cannot change; None where it can.
        variable: The width variable.
    """

    name: str
    width: int
    divisor: int
    members: tuple[Member, ...]
    frozen: str | None
    variable: int

    @property
    def producers(self) -> tuple[str, ...]:
        """The layers that make these channels."""
        return tuple(member.layer for member in self.members if member.role == "out")


@dataclass(frozen=True)
class WidthGroups:
    """The groups of a model, in the order of their first producers, and what resizing needs to know.

    Attributes:
        groups: The groups.
        layers: Channel axes of each layer, by node name.
        tensors: Axes of the parameters and buffers that have widths.
        attributes: `(path, attribute)` to the axes whose sizes a layer keeps.
        obstacles: Where copies of channels are felt.
        variables: The variables, to resolve axes with.
        outputs: Shape of every tensor that the model returns.
    """

    groups: tuple[WidthGroup, ...]
    layers: Mapping[str, Layer]
    tensors: tuple[Tensors, ...]
    attributes: Mapping[tuple[str, str], tuple[Axis, ...]]
    obstacles: tuple[Obstacle, ...]
    variables: Variables
    outputs: tuple[Shape, ...]

    def __iter__(self) -> Iterator[WidthGroup]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, name: str) -> WidthGroup:
        for group in self.groups:
            if group.name == name:
                return group
        raise BadInput("no such width group", found=name, allowed=[group.name for group in self.groups])

    @property
    def free(self) -> tuple[WidthGroup, ...]:
        """The groups whose width can change."""
        return tuple(group for group in self.groups if group.frozen is None)

    def of(self, axis: Axis) -> tuple[WidthGroup, ...]:
        """The groups that an axis consists of, each once."""
        by_variable = {group.variable: group for group in self.groups}
        present = dict.fromkeys(s.variable for s in self.variables.resolve(axis) if s.variable is not None)
        return tuple(by_variable[variable] for variable in present if variable in by_variable)

    def rows(self) -> list[dict[str, Any]]:
        """One row a group, for a table."""
        return [
            {
                "group": group.name,
                "width": group.width,
                "multiple of": group.divisor,
                "made by": ", ".join(group.producers) or "-",
                "taken by": ", ".join(m.layer for m in group.members if m.role != "out") or "-",
                "frozen": group.frozen or "",
            }
            for group in self.groups
        ]


def width_groups(graph: ModelGraph) -> WidthGroups:
    """The width groups of a model; known again as long as it has the same tensors.

    Args:
        graph: Traced with example inputs.

    Raises:
        BadInput: The graph has no shapes: nothing ran.
    """
    if (
        graph.method == "modules"
        or graph.batch is None
        or any(node.kind == "call_module" and node.input_shape is None for node in graph)
    ):
        raise BadInput("width groups need the shapes of the layers: give example inputs", key="example inputs")
    model = graph.model
    state = [(path, id(t), t.shape) for path, t in (*model.named_parameters(), *model.named_buffers())]
    known: tuple[object, WidthGroups] | None = vars(graph).get("_width_groups")
    if known is None or known[0] != state:
        known = vars(graph)["_width_groups"] = (state, _found(graph))
    return known[1]


def _found(graph: ModelGraph) -> WidthGroups:
    walk = settled(graph, lambda findings: _walked(graph, findings))
    taken = {s.variable for layer in walk.layers.values() for s in walk.variables.resolve(layer.takes or ())}
    inputs = [
        Layer(node.name, "", node.op, None, axis)
        for node, axis in walk.inputs
        if any(s.variable in taken for s in walk.variables.resolve(axis) if s.variable is not None)
    ]
    layers = {layer.name: layer for layer in [*inputs, *walk.layers.values()]}
    return WidthGroups(
        groups=tuple(_groups(walk, layers)),
        layers=layers,
        tensors=tuple(walk.tensors.values()),
        attributes=walk.attributes,
        obstacles=tuple(walk.obstacles),
        variables=walk.variables,
        outputs=tuple(s for node in graph if node.kind == "output" for s in node.input_shapes if s is not None),
    )


def _walked(graph: ModelGraph, findings: Findings) -> Walk:
    walk = Walk(graph, findings)
    for node in graph:
        walk.values[node.name] = _visit(walk, node, walk.values)
    _freeze_what_no_layer_makes(walk)
    return walk


@dataclass(frozen=True)
class _Opaque:
    """Several results of an operation that is not understood; all are fixed, with the reason."""

    reason: str


def _visit(walk: Walk, node: Node, values: Mapping[str, Any]) -> Any:
    """The axes of a node's results."""
    if node.kind == "placeholder":
        return _placeholder(walk, node)
    if node.kind == "get_attr":
        read = walk.read(node)
        return read if read is not None else _fixed_results(walk, node, "a constant of the model")
    args, kwargs = _resolved(node, values)
    inputs = tensors_in([args, kwargs])
    refused = walk.findings.refused.get(walk.place(node))
    if node.kind == "output":
        walk.freeze(inputs, "an output of the model")
        return None
    if not node.output_shapes and node.output_shape is None:
        return COMPUTED
    try:
        result = _by_rule(walk, node, args, kwargs)
        _check_shapes(node, result)
        if refused is not None:
            walk.freeze([*inputs, *tensors_in(result)], f"{node.name} ({node.op}): {refused}")
    except Exception as error:  # arguments in a form that a rule does not expect
        why = str(error) if isinstance(error, NotUnderstood) else "this use of it is not understood"
        reason = f"{node.name} ({node.op}): {why}"
        walk.freeze(inputs, reason)
        if node.kind == "call_module":
            walk.freeze_module(node, reason)
        return _fixed_results(walk, node, reason)
    return result


def _placeholder(walk: Walk, node: Node) -> Any:
    reason = f"input {node.name} of the model"
    if len(node.output_shapes) != 1:
        return _fixed_results(walk, node, reason)
    dims = tuple(walk.variables.new(n, reason) if n > 1 else fixed(n, reason) for n in node.output_shapes[0])
    walk.inputs += [(node, axis) for axis in dims]
    return Axes(dims)


def _fixed_results(walk: Walk, node: Node, reason: str) -> Any:
    if len(node.output_shapes) == 1 and not (node.kind == "call_module" and walk.graph.method == "fx"):
        return walk.fixed_axes(node.output_shapes[0], reason)
    return _Opaque(reason)


def _by_rule(walk: Walk, node: Node, args: Any, kwargs: Any) -> Any:
    if node.kind == "call_module":
        module = walk.graph.module(node)
        rule = _rule(node.op, axes_layers.RULES)
        if rule is None:
            raise NotUnderstood(f"{type(module).__name__} is not understood")
        if getattr(module, "weight", None) is not None and not walk.has(node, "weight"):
            raise NotUnderstood("its weight is computed from other parameters")
        given = tensors_in([args, kwargs])
        return rule(walk, node, module, given[0])
    function = _rule(node.op, axes_functions.RULES)
    if function is None:
        inputs = tensors_in([args, kwargs])
        if all(walk.is_fixed(axis) for value in inputs for axis in value.dims):
            return _fixed_results(walk, node, f"made by {node.name}")
        raise NotUnderstood("this operation is not understood")
    return function(walk, node, args, kwargs)


def _rule(op: str, rules: Mapping[str, Callable[..., Any]]) -> Callable[..., Any] | None:
    """What an operation does to widths, if it is known."""
    word = row_of(op).widths
    return rules.get(word) if isinstance(word, str) else word


def _check_shapes(node: Node, result: Any) -> None:
    """A rule whose shapes are not those that were seen does not cover the operation."""
    found = [value.sizes for value in tensors_in(result)]
    shapes = list(node.output_shapes)
    if found and shapes and found[: len(shapes)] != shapes:
        raise NotUnderstood(f"its shape is {shapes[0]}, not {found[0]}")


def _resolved(node: Node, values: Mapping[str, Any]) -> tuple[Any, Any]:
    """A node's arguments with axes in the place of references."""
    position = 0
    per_use = len(node.inputs) > len(set(node.inputs)) or len(node.inputs) == len(node.input_shapes)
    by_name = dict(zip(node.inputs, node.input_shapes, strict=False))

    def used(ref: Ref) -> Any:
        nonlocal position
        shape = node.input_shapes[position] if per_use and position < len(node.input_shapes) else None
        if ref.node not in node.inputs[position : position + 1]:
            shape = by_name.get(ref.node)
        position += 1
        return _one_of(values.get(ref.node), ref.output, shape)

    args, kwargs = (filled(given, Ref, used, lists=False) for given in (node.args, node.kwargs))
    return args, kwargs


def _one_of(value: Any, output: int | None, shape: Shape | None) -> Any:
    """A result as one use sees it: in a graph of one run the reference says which of several."""
    if output is not None and isinstance(value, list | tuple):
        several = tensors_in(value)
        value = several[output] if output < len(several) else _Opaque("more results than are understood")
    if isinstance(value, _Opaque) and shape is not None:
        return Axes(tuple(fixed(n, value.reason) for n in shape))
    return value


def _freeze_what_no_layer_makes(walk: Walk) -> None:
    made = {
        segment.variable
        for layer in walk.layers.values()
        if layer.gives is not None
        for segment in walk.variables.resolve(layer.gives)
    }
    for known in walk.tensors.values():
        for axis in known.dims:
            for segment in walk.variables.resolve(axis):
                if segment.variable is not None and segment.variable not in made:
                    walk.variables.freeze((segment,), f"no layer makes it: the size of {known.path}")


def _groups(walk: Walk, layers: Mapping[str, Layer]) -> Iterator[WidthGroup]:
    """The groups that appear in a layer, producers first come first named."""
    members: dict[int, list[Member]] = {}
    first: dict[int, tuple[Layer, Axis]] = {}
    for layer in layers.values():
        sides = (("in" if not layer.through else "through", layer.takes), ("out", layer.gives))
        for role, axis in sides:
            for segment in dict.fromkeys(walk.variables.resolve(axis or ())):
                if segment.variable is None:
                    continue
                known = members.setdefault(segment.variable, [])
                member = Member(layer.name, layer.op, role)  # type: ignore[arg-type]
                if member not in known:
                    known.append(member)
                if role == "out" and axis is not None:
                    first.setdefault(segment.variable, (layer, walk.variables.resolve(axis)))
    for variable, (layer, axis) in first.items():
        counts = [s for s in axis if s.variable == variable]
        unit = sum(s.repeat for s in counts)
        yield WidthGroup(
            name=_name(layer, axis, variable),
            width=size(counts),
            divisor=unit,
            members=tuple(members[variable]),
            frozen=walk.variables.reason(variable),
            variable=variable,
        )


def _name(layer: Layer, axis: tuple[Segment, ...], variable: int) -> str:
    """The producer's name, with the range of channels where it makes channels of several groups."""
    if {s.variable for s in axis} == {variable}:
        return layer.name
    place = next(k for k, s in enumerate(axis) if s.variable == variable)
    start = size(axis[:place])
    return f"{layer.name}[{start}:{start + axis[place].size}]"
