"""Where the graph reads its parameters: from each parameter through views to the operation that takes it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from paretobit.graph.computed import computed_weights, passes_on
from paretobit.graph.model_graph import ModelGraph, Node, Ref, filled
from paretobit.graph.operations import Operand, row_of


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
        operand: The operand; None where no slot takes it, or a layer does.
    """

    path: str
    node: Node
    slot: str
    views: tuple[Node, ...] = ()
    output: int | None = None
    why: str | None = None
    computed: Node | None = None
    operand: Operand | None = None


def readings(graph: ModelGraph) -> tuple[Reading, ...]:
    """Every operation that takes a parameter, or what is computed from some, directly or through views.

    In order of execution.
    """
    found: list[Reading] = []
    for node, source, given in _followed(graph).taken:
        found += _taken(graph, node, source, given)
    return tuple(found)


def operands_at(graph: ModelGraph, node: Node) -> tuple[Operand, ...]:
    """What of a function's call goes through a format; nothing where it has no site."""
    if not node.site or node.kind == "call_module":
        return ()
    return row_of(node.op).given(node.args, node.kwargs, partial(_shows_parameter, graph))


@dataclass(frozen=True)
class _Followed:
    """Where parameters go.

    Attributes:
        shown: Node to the parameter, or what is computed from some, that it gives, and the views.
        taken: The node that takes one, the node that gives it, and what that is.
    """

    shown: dict[str, Reading] = field(default_factory=dict)
    taken: list[tuple[Node, str, Reading]] = field(default_factory=list)


def _followed(graph: ModelGraph) -> _Followed:
    known: _Followed | None = vars(graph).get("_followed")
    if known is None:
        known = vars(graph)["_followed"] = _Followed()
        _follow(graph, known)
    return known


def _follow(graph: ModelGraph, found: _Followed) -> None:
    parameters = dict(graph.model.named_parameters(remove_duplicate=False))
    weights = computed_weights(graph)
    for node in graph:
        if node.kind == "get_attr" and node.owner in parameters:
            found.shown[node.name] = Reading(node.owner, node, "")
            continue
        if node.name in weights.roots:
            largest = max(weights.roots[node.name], key=lambda path: parameters[path].numel())
            found.shown[node.name] = Reading(largest, node, "", computed=node)
        if node.name in weights.steps:
            continue
        taken = dict.fromkeys(source for source in node.inputs if source in found.shown)
        passed = passes_on(graph, node, taken)
        for source in taken:
            given = found.shown[source]
            if passed:
                found.shown[node.name] = replace(given, views=(*given.views, node))
            elif not (node.is_call and row_of(node.op).kind in ("question", "make")):  # these read no value
                found.taken.append((node, source, given))


_CASTS = {"float": torch.float32, "half": torch.float16, "double": torch.float64, "bfloat16": torch.bfloat16}


def _shows_parameter(graph: ModelGraph, value: Any) -> bool:
    """Whether an argument will be a parameter, or a view of one, when the model runs."""
    given = _followed(graph).shown.get(value.node) if isinstance(value, Ref) else None
    if given is None or given.computed is not None:
        return False
    parameter = graph.model.get_parameter(given.path)
    for view in given.views:
        types = [_CASTS.get(view.op), *(leaf for leaf in view.args if isinstance(leaf, torch.dtype))]
        if view.op == "clone" or any(t not in (None, parameter.dtype) for t in types):
            return False
    seen = replayed(given.views, parameter, value.output)
    return seen is not None and (seen is parameter or seen._base is parameter)


_OF_A_SHAPE = ("expand", "view", "reshape")
"""Views that are told the shape of their result."""


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
        if any(isinstance(leaf, Ref) for leaf in tree_leaves((args, kwargs))):
            if node.op not in _OF_A_SHAPE or not node.output_shapes:
                return None
            args, kwargs = (result, node.output_shapes[0]), {}  # sizes that were asked of a tensor: a run showed them
        if function is None:
            return None
        try:
            result = function(*args, **kwargs) if callable(function) else function.__get__(result)
        except Exception:  # arguments that torch takes in another form than the graph keeps them
            return None
    result = _picked(result, output)
    return result if isinstance(result, Tensor) else None


def _taken(graph: ModelGraph, node: Node, source: str, given: Reading) -> Iterator[Reading]:
    refs = [leaf for leaf in tree_leaves((node.args, dict(node.kwargs))) if isinstance(leaf, Ref)]
    for ref in dict.fromkeys(ref for ref in refs if ref.node == source):
        if node.kind == "call_module":
            yield replace(given, node=node, slot="data_in", output=ref.output)
            continue
        operands = {o.slot: o for o in operands_at(graph, node) if o.find(node.args, node.kwargs) == ref}
        for slot, operand in operands.items():
            yield replace(given, node=node, slot=slot, output=ref.output, operand=operand)
        if not operands:
            output = node.kind == "output"
            why = "it is an output of the model" if output else f"the function {node.op} has no slot for it"
            yield replace(given, node=node, output=ref.output, why=why)


def _filled(value: Any, result: Any) -> Any:
    """Arguments with what is viewed in the place of the reference to it."""
    return filled(value, Ref, lambda ref: _picked(result, ref.output), lists=False)


def _picked(result: Any, output: int | None) -> Any:
    return result if output is None or isinstance(result, Tensor) else result[output]


def parameters_at(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Parameter]]:
    """Path and value of what a module itself owns."""
    for name, parameter in module.named_parameters(recurse=False):
        yield (f"{path}.{name}" if path else name), parameter
