"""Where the graph reads its parameters: from each parameter through views to the operation that takes it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from paretobit.graph.computed import computed_weights, passes_on
from paretobit.graph.model_graph import ModelGraph, Node, Ref, filled
from paretobit.graph.operations import OPERATIONS, row_of


@dataclass(frozen=True)
class Reading:
    """One operation that takes a parameter which is no layer's own.

    Attributes:
        path: The parameter.
        node: The operation.
        slot: Of the operand that it is; empty where no slot takes it.
        views: What stands between the two, first to last.
        output: Which of the results of the last view; None where it has one.
        why: Why no format reaches it; None where one does.
        computed: What is read is not the parameter: what this node computes from it, and from others.
    """

    path: str
    node: Node
    slot: str
    views: tuple[Node, ...] = ()
    output: int | None = None
    why: str | None = None
    computed: Node | None = None


def readings(graph: ModelGraph) -> tuple[Reading, ...]:
    """Every operation that takes a parameter, or what is computed from some, directly or through views.

    In order of execution.
    """
    parameters = dict(graph.model.named_parameters(remove_duplicate=False))
    weights = computed_weights(graph)
    shown: dict[str, Reading] = {}  # node to the parameter that it gives, and the views
    found: list[Reading] = []
    for node in graph:
        if node.kind == "get_attr" and node.owner in parameters:
            shown[node.name] = Reading(node.owner, node, "")
            continue
        if node.name in weights.roots:
            largest = max(weights.roots[node.name], key=lambda path: parameters[path].numel())
            shown[node.name] = Reading(largest, node, "", computed=node)
        if node.name in weights.steps:
            continue
        taken = dict.fromkeys(source for source in node.inputs if source in shown)
        passed = passes_on(graph, node, taken)
        for source in taken:
            given = shown[source]
            if passed:
                shown[node.name] = replace(given, views=(*given.views, node))
            elif not (node.is_call and row_of(node.op).kind in ("question", "make")):  # these read no value
                found += _taken(node, source, given)
    return tuple(found)


def replayed(views: tuple[Node, ...], value: Tensor, output: int | None = None) -> Tensor | None:
    """What views show of a tensor, of several results this one; None where the graph does not tell."""
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
    result = _picked(result, output)
    return result if isinstance(result, Tensor) else None


def _taken(node: Node, source: str, given: Reading) -> Iterator[Reading]:
    refs = [leaf for leaf in tree_leaves((node.args, dict(node.kwargs))) if isinstance(leaf, Ref)]
    for ref in dict.fromkeys(ref for ref in refs if ref.node == source):
        slots = ["data_in"] if node.kind == "call_module" else _slots(node, ref)
        for slot in slots:
            yield replace(given, node=node, slot=slot, output=ref.output)
        if not slots:
            output = node.kind == "output"
            why = "it is an output of the model" if output else f"the function {node.op} has no slot for it"
            yield replace(given, node=node, output=ref.output, why=why)


def _slots(node: Node, source: Ref) -> list[str]:
    operands = OPERATIONS.operands(node.op) if node.site else ()
    given = ((o.slot, o.find(node.args, node.kwargs)) for o in operands)
    return list(dict.fromkeys(slot for slot, value in given if value == source))


def _filled(value: Any, result: Any) -> Any:
    """Arguments with what is viewed in the place of the reference to it."""
    return filled(value, Ref, lambda ref: _picked(result, ref.output), lists=False)


def _picked(result: Any, output: int | None) -> Any:
    return result if output is None or isinstance(result, Tensor) else result[output]


def parameters_at(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Parameter]]:
    """Path and value of what a module itself owns."""
    for name, parameter in module.named_parameters(recurse=False):
        yield (f"{path}.{name}" if path else name), parameter
