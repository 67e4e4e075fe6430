"""Trial runs with other widths: sizes that stand in the model's code show here, and nowhere else.

A copy of the model runs with every free width changed. The first operation that fails, or gives another
shape than its axes say, follows in another way or not at all: its tensors are fixed, with that reason.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from paretobit.errors import BadInput
from paretobit.graph.axes import Axis
from paretobit.graph.axes_walk import Axes, Findings, Walk, tensors_in
from paretobit.graph.model_graph import ModelGraph, Node, Shape, filled
from paretobit.graph.names import with_sites
from paretobit.graph.record import record
from paretobit.graph.resized import resized
from paretobit.graph.trace import Example, _arguments, _without_sites, at_rest

_MOST_RUNS = 100


@dataclass(frozen=True)
class _Fault:
    """Where a trial run fails, and how; without a node where none is possible."""

    node: Node | None
    text: str


def settled(graph: ModelGraph, walked: Callable[[Findings], Walk]) -> Walk:
    """A walk whose free widths can be changed: the model ran with all of them wider, and narrower.

    Args:
        graph: The model; without an example nothing runs.
        walked: A walk over it that respects what was found.
    """
    findings = Findings()
    walk = walked(findings)
    fault = _first_fault(graph, walk)
    for _ in range(_MOST_RUNS):
        if fault is None:
            return walk
        if fault.node is None:
            break
        _blame(graph, walk, fault.node, fault.text)
        walk = walked(findings)
        fault = _first_fault(graph, walk)
    _refuse_all(graph, walk, "the model does not run with other widths" if fault is None else fault.text)
    return walked(findings)


def example_of(graph: ModelGraph) -> Example:
    """What the graph was traced on, on the device where the model's parameters are now.

    Raises:
        BadInput: It was traced without.
    """
    if graph.example is None:
        raise BadInput("a trial run needs inputs: give an example", key="example")
    device = next((parameter.device for parameter in graph.model.parameters()), torch.device("cpu"))
    args, kwargs = graph.example
    example: Example = kwargs or args
    return filled(example, Tensor, lambda tensor: tensor.to(device, copy=True))  # type: ignore[no-any-return]


def _first_fault(graph: ModelGraph, walk: Walk) -> _Fault | None:
    if graph.example is None:
        return None
    free = list(_free(walk).items())
    wider = {variable: count + 1 + k % 5 for k, (variable, count) in enumerate(free)}
    narrower = {variable: max(1, count // (2 + 2 * (k % 2))) for k, (variable, count) in enumerate(free)}
    for counts in (wider, narrower) if free else ():
        if (fault := _fault(graph, walk, counts)) is not None:
            return fault
    return None


def _free(walk: Walk) -> dict[int, int]:
    """The variables that may change, and their channels."""
    made = [layer.gives for layer in walk.layers.values() if layer.gives is not None]
    segments = [segment for axis in made for segment in walk.variables.resolve(axis)]
    return {s.variable: s.count for s in segments if s.variable is not None and not walk.is_fixed((s,))}


def _fault(graph: ModelGraph, walk: Walk, counts: Mapping[int, int]) -> _Fault | None:
    """What is wrong with these channels."""

    def size(axis: Axis) -> int:
        segments = walk.variables.resolve(axis)
        return sum(counts.get(s.variable, s.count) * s.repeat if s.variable is not None else s.size for s in segments)

    def changes(axes: tuple[Axis, ...]) -> bool:
        return any(s.variable in counts for axis in axes for s in walk.variables.resolve(axis))

    tensors = [known for known in walk.tensors.values() if changes(known.dims)]
    attributes = {key: axes for key, axes in walk.attributes.items() if changes(axes)}
    kept = {id(parameter): parameter for parameter in graph.model.parameters()}
    try:
        model = resized(graph.model, tensors, attributes, size, kept, _wrapped)
    except Exception as raised:  # whatever an attribute of a model raises
        return _Fault(None, f"no trial run: the model cannot be copied ({type(raised).__name__}: {raised})")
    nodes: list[Node] = []
    error = None
    try:
        with at_rest(model), _without_sites(model), torch.random.fork_rng():
            args, kwargs = _arguments(example_of(graph))
            record(model, args, kwargs, graph.batch, nodes)
    except Exception as raised:  # whatever a model's forward raises
        error = str(raised).partition("\n")[0] or type(raised).__name__
    return _compared(graph, walk, with_sites(nodes, model), size, error)


def _compared(
    graph: ModelGraph, walk: Walk, made: tuple[Node, ...], size: Callable[[Axis], int], error: str | None
) -> _Fault | None:
    """The first operation whose shapes are not those that its axes say, or that was not reached."""
    at: dict[str, list[int]] = {}
    for place, node in enumerate(graph.nodes):
        at.setdefault(node.site, []).append(place)
    last = -1
    for node in made:
        places = at.get(node.site) if node.site else None
        if not places:
            continue
        last = places.pop(0)
        known = graph.nodes[last]
        said = [tuple(map(size, axes.dims)) for axes in tensors_in(walk.values[known.name])]
        given = list(node.output_shapes)
        if len(said) == len(known.output_shapes) and said != given and _touched(walk, known):
            return _Fault(known, f"with other widths it gives {_listed(given)}, not {_listed(said)}")
    if error is None:
        return None
    rest = [node for node in graph.nodes[last + 1 :] if node.is_call and node.output_shapes]
    return _Fault(rest[0] if rest else graph.nodes[-1], f"with other widths it fails: {error}")


def _listed(shapes: list[Shape]) -> str:
    return ", ".join(map(str, shapes))


def _touched(walk: Walk, node: Node) -> bool:
    """Whether a free width is among what a node takes and gives."""
    values = [walk.values.get(name) for name in (node.name, *node.inputs)]
    if node.kind == "call_module" and (layer := walk.layers.get(node.owner)):
        values.append(Axes(tuple(axis for axis in (layer.takes, layer.gives) if axis is not None)))
    return any(not walk.is_fixed(axis) for value in tensors_in(values) for axis in value.dims)


def _blame(graph: ModelGraph, walk: Walk, failed: Node, text: str) -> None:
    """Find another way for the operation, or refuse it; or the last one before it that meets a free width."""
    findings = walk.findings
    for name, way in findings.chosen.items() if not _touched(walk, failed) else ():
        node = graph[name]  # an attribute that followed a width may be what the operation asks for
        wrong = findings.wrong.setdefault(walk.place(node), set())
        if node.owner == failed.owner and not way.startswith("by itself") and way not in wrong:
            wrong.add(way)
            return
    for node in reversed(graph.nodes[: graph.nodes.index(failed) + 1]):
        place = walk.place(node)
        if not node.is_call or place in findings.refused or not _touched(walk, node):
            continue
        if node.name in findings.chosen:
            findings.wrong.setdefault(place, set()).add(findings.chosen[node.name])
        else:
            findings.refused[place] = text if node is failed else f"{failed.name} ({failed.op}) {text}"
        return
    _refuse_all(graph, walk, f"{failed.name} ({failed.op}) {text}")


def _refuse_all(graph: ModelGraph, walk: Walk, reason: str) -> None:
    for node in graph:
        walk.findings.refused.setdefault(walk.place(node), reason)


def _wrapped(old: Tensor, new: Tensor) -> None:
    """The old values over and over, so that a trial run sees values as the model has them."""
    for dim, length in enumerate(new.shape):
        if old.shape[dim] != length:
            old = old.index_select(dim, torch.arange(length, device=old.device) % old.shape[dim])
    new.copy_(old)
