"""Where the graph reads its parameters: from each parameter through views to the operation that takes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from paretobit.graph.model_graph import ModelGraph, Node, Ref
from paretobit.graph.operations import OPERATIONS, row_of


@dataclass(frozen=True)
class Reading:
    """One operation that takes a parameter which is no layer's own.

    Attributes:
        path: The parameter.
        node: The operation.
        slot: Of the operand that it is; empty where no slot takes it.
        views: What stands between the two, first to last.
        why: Why no format reaches it; None where one does.
    """

    path: str
    node: Node
    slot: str
    views: tuple[Node, ...] = ()
    why: str | None = None


@dataclass(frozen=True)
class _End:
    """A node whose result is a parameter as views show it."""

    path: str
    node: Node
    views: tuple[Node, ...] = field(default=())
    lost: str | None = None


def readings(graph: ModelGraph) -> tuple[Reading, ...]:
    """Every operation that takes a parameter directly or through views, in order of execution."""
    parameters = dict(graph.model.named_parameters(remove_duplicate=False))
    ends: dict[str, _End] = {}
    found: list[Reading] = []
    for node in graph:
        if node.kind == "get_attr" and node.owner in parameters:
            ends[node.name] = _End(node.owner, node)
            continue
        taken = dict.fromkeys(source for source in node.inputs if source in ends)
        passed = _passes_on(graph, node, taken)
        for source in taken:
            end = ends[source]
            if passed:
                ends[node.name] = _End(end.path, node, (*end.views, node), end.lost or _lost(graph, node))
            elif not _reads_no_value(node):
                found += _taken(graph, node, end)
    return tuple(found)


def replayed(views: tuple[Node, ...], value: Tensor) -> Tensor | None:
    """What views show of a tensor; None where this cannot be told from the graph."""
    result: Any = value
    for node in views:
        args, kwargs = _filled(node.args, result), _filled(node.kwargs, result)
        if node.kind == "call_module" or row_of(node.op).casts:
            continue
        function = getattr(Tensor, node.op, None)
        if node.op == "getitem":
            function = type(result).__getitem__
        if function is None or any(isinstance(leaf, Ref) for leaf in tree_leaves((args, kwargs))):
            return None
        try:
            result = function(*args, **kwargs) if callable(function) else function.__get__(result)
        except Exception:  # arguments that torch takes in another form than the graph keeps them
            return None
    return result if isinstance(result, Tensor) else None


def _passes_on(graph: ModelGraph, node: Node, taken: Mapping[str, None]) -> bool:
    """Whether the result is the parameter in another shape, order or part, and nothing else."""
    if len(taken) != 1 or not node.is_call:
        return False
    if any(graph[source].output_shapes for source in node.inputs if source not in taken):
        return False
    row = row_of(node.op)
    return (row.is_view or row.casts) and row.writes is False


def _lost(graph: ModelGraph, node: Node) -> str | None:
    """Whether the graph of one run no longer tells which of several results an operation takes."""
    several = graph.method == "run" and len(node.output_shapes) > 1
    return f"the graph does not tell which of the results of {node.name} it is" if several else None


def _reads_no_value(node: Node) -> bool:
    return node.is_call and row_of(node.op).kind in ("question", "make")


def _taken(graph: ModelGraph, node: Node, end: _End) -> Iterator[Reading]:
    if node.kind == "output":
        yield Reading(end.path, node, "", end.views, "it is an output of the model")
        return
    slots = ["data_in"] if node.kind == "call_module" else _slots(node, end.node.name)
    if slots and end.lost is None:
        yield from (Reading(end.path, node, slot, end.views) for slot in slots)
    else:
        why = end.lost or f"the function {node.op} has no slot for it"
        yield Reading(end.path, node, "", end.views, why)


def _slots(node: Node, source: str) -> list[str]:
    operands = OPERATIONS.operands(node.op) if node.site else ()
    given = ((o.slot, o.find(node.args, node.kwargs)) for o in operands)
    return list(dict.fromkeys(slot for slot, value in given if value == Ref(source)))


def _filled(value: Any, result: Any) -> Any:
    """Arguments with what is viewed in the place of the reference to it."""
    if isinstance(value, Ref):
        return result
    if isinstance(value, slice):
        return slice(*(_filled(part, result) for part in (value.start, value.stop, value.step)))
    if isinstance(value, Mapping):
        return {key: _filled(item, result) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_filled(item, result) for item in value)
    return value


def parameters_at(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Parameter]]:
    """Path and value of what a module itself owns."""
    for name, parameter in module.named_parameters(recurse=False):
        yield (f"{path}.{name}" if path else name), parameter
