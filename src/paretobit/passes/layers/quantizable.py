"""What of a graph can be quantised: the slots of its nodes, layers and functions alike."""

from collections.abc import Iterable, Mapping
from typing import Any

from paretobit.errors import BadInput
from paretobit.formats import FULL, Format, accumulator
from paretobit.graph import ModelGraph, Node, Ref, Shape
from paretobit.graph.computed import computed_weights
from paretobit.graph.operations import OPERATIONS, row_of
from paretobit.graph.ops import function_op
from paretobit.nn import (
    dot_terms,
    function_slots,
    function_terms,
    parameter_uses,
    possible_function_slots,
    possible_slots,
    slots_of,
    why_no_site,
)


def function_name(function: Any) -> str:
    """What a torch function counts as at run time: the word that the graph uses for it."""
    return function_op(function)[0]


def is_function(node: Node) -> bool:
    """Whether a node is a function call that has a site and can carry formats."""
    return node.kind in ("call_function", "call_method") and bool(node.site) and bool(OPERATIONS.operands(node.op))


def slots_at(graph: ModelGraph, node: Node) -> tuple[str, ...]:
    """Slots that a node has; empty where it cannot be quantised."""
    if node.kind == "call_module":
        return slots_of(graph.module(node))
    if not is_function(node) or node.site in graph.conditional or _is_step(graph, node):
        return ()
    if why_no_site(graph.model, node.site) is not None:
        return ()
    return function_slots(node.op, node.args, node.kwargs)


def possible_slots_at(graph: ModelGraph, node: Node) -> tuple[str, ...]:
    """Slots of the operation, whether or not this node has the operand."""
    if node.kind == "call_module":
        return possible_slots(graph.module(node))
    return possible_function_slots(node.op)


def terms_at(graph: ModelGraph, node: Node) -> int | None:
    """How many products a node adds up for one output; None where it is no dot product."""
    if node.kind == "call_module":
        return dot_terms(graph.module(node))
    shapes: dict[str, Shape | None] = dict(zip(node.inputs, node.input_shapes, strict=False))
    found = {o.slot: o.find(node.args, node.kwargs) for o in OPERATIONS.operands(node.op)}
    known = {slot: shapes.get(value.node) for slot, value in found.items() if isinstance(value, Ref)}
    return function_terms(node.op, {slot: shape for slot, shape in known.items() if shape})


def has_weights(graph: ModelGraph, node: Node) -> bool:
    """Whether a node is a layer whose weights are multiplied with data, or looked up in a table."""
    if node.kind != "call_module" or "weight" not in slots_at(graph, node):
        return False
    return row_of(node.op).is_product or row_of(node.op).looks_up


def reads_weights(graph: ModelGraph, node: Node) -> bool:
    """Whether a function multiplies by a parameter of the model, or looks one up: other functions read data only."""
    row = row_of(node.op)
    uses = parameter_uses(graph).at(node.site) if row.is_product or row.looks_up else ()
    return any(use.slot == "weight" for use in uses)


def why_not(graph: ModelGraph, node: Node) -> str | None:
    """Why an operation cannot be quantised; None where it can, or where there is nothing to quantise."""
    if not node.is_call or row_of(node.op).nothing_to_quantize:
        return None
    if node.kind == "call_module":
        return None if slots_at(graph, node) else f"{type(graph.module(node)).__name__} has no quantised layer"
    if not OPERATIONS.operands(node.op):
        return f"the function {node.op} cannot be quantised"
    if _is_step(graph, node):
        return "it computes a weight: that is quantised where it is read"
    if not node.site:
        return "the graph does not know its site: trace the model with example inputs"
    return graph.conditional.get(node.site) or why_no_site(graph.model, node.site)


def _is_step(graph: ModelGraph, node: Node) -> bool:
    return node.name in computed_weights(graph).steps


def unsupported(graph: ModelGraph) -> dict[str, str]:
    """Name of every operation that cannot be quantised, and why."""
    reasons = {node.name: why_not(graph, node) for node in graph if not _is_step(graph, node)}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def complete(graph: ModelGraph, node: Node, formats: Mapping[str, Format]) -> dict[str, Format]:
    """The formats for the slots that a node has; an unset bias takes that of the accumulator."""
    present = slots_at(graph, node)
    fitting = {slot: f for slot, f in formats.items() if slot in present}
    terms = terms_at(graph, node) if "bias" in present and "bias" not in fitting else None
    if terms is not None:
        bias = accumulator(fitting.get("data_in", FULL), fitting.get("weight", FULL), terms)
        if bias is not FULL:
            fitting["bias"] = bias
    return fitting


def check_slots(graph: ModelGraph, node: Node, slots: Iterable[str]) -> None:
    """Refuse a node that cannot be quantised, and slots that its operation never has."""
    if not slots_at(graph, node):
        if node.kind == "call_module":
            kind = type(graph.module(node)).__name__
            raise BadInput(f"layer '{node.name}' is a {kind}, which cannot be quantised")
        raise BadInput(f"'{node.name}' cannot be quantised: {why_not(graph, node)}")
    possible = possible_slots_at(graph, node)
    for slot in slots:
        if slot not in possible:
            raise BadInput(f"a {node.op} layer has no slot '{slot}'", found=slot, allowed=possible)
