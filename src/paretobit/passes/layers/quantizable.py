"""What of a graph can be quantised: the slots of its nodes, layers and functions alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from paretobit.errors import BadInput
from paretobit.formats import FULL, Format, accumulator
from paretobit.graph import ModelGraph, Node, Ref, Shape
from paretobit.graph.ops import function_op
from paretobit.nn import (
    FUNCTIONS,
    dot_terms,
    function_slots,
    function_terms,
    possible_function_slots,
    possible_slots,
    slots_of,
    why_no_site,
)

# fmt: off
NOTHING_TO_QUANTIZE = frozenset({
    # moves, copies, selects
    "view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "transpose", "t", "T", "mT", "permute",
    "movedim", "swapaxes", "contiguous", "squeeze", "unsqueeze", "expand", "expand_as", "repeat",
    "repeat_interleave", "tile", "split", "chunk", "unbind", "getitem", "setitem", "select", "narrow", "cat",
    "concat", "stack", "index_select", "gather", "take_along_dim", "clone", "copy", "detach", "to", "type",
    "type_as", "float", "half", "bfloat16", "double", "long", "int", "bool", "cpu", "cuda", "pad", "roll",
    "flip", "identity", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "requires_grad",
    "zero_pad1d", "zero_pad2d", "zero_pad3d", "constant_pad1d", "constant_pad2d", "constant_pad3d",
    "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d",
    "replication_pad3d", "circular_pad1d", "circular_pad2d", "circular_pad3d",
    # leaves out
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "masked_fill",
    "where", "tril", "triu",
    # makes, compares, asks
    "arange", "linspace", "tensor", "empty", "ones", "zeros", "full", "new_ones", "new_zeros", "new_full",
    "new_tensor", "ones_like", "zeros_like", "full_like", "rand", "randn", "eq", "ne", "lt", "le", "gt", "ge",
    "and", "or", "xor", "not", "invert", "bitwise_and", "bitwise_or", "bitwise_not", "logical_and",
    "logical_or", "logical_not", "all", "any", "isnan", "isinf", "argmax", "argmin", "item",
    "size", "shape", "dim", "numel", "len", "getattr", "device", "dtype",
})
# fmt: on
"""Operations that compute nothing with their data: there is nothing to quantise, and nothing is reported."""

_PRODUCTS = ("matmul", "mm", "bmm", "mv", "linear", "conv1d", "conv2d", "conv3d", "addmm", "baddbmm")


def function_name(function: Any) -> str:
    """What a torch function counts as at run time: the word that the graph uses for it."""
    return function_op(function)[0]


def is_function(node: Node) -> bool:
    """Whether a node is a function call that has a site and can carry formats."""
    return node.kind in ("call_function", "call_method") and bool(node.site) and node.op in FUNCTIONS


def slots_at(graph: ModelGraph, node: Node) -> tuple[str, ...]:
    """Slots that a node has; empty where it cannot be quantised."""
    if node.kind == "call_module":
        return slots_of(graph.module(node))
    if not is_function(node) or why_no_site(graph.model, node.site) is not None:
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
    found = {o.slot: o.find(node.args, node.kwargs) for o in FUNCTIONS.get(node.op, ())}
    known = {slot: shapes.get(value.node) for slot, value in found.items() if isinstance(value, Ref)}
    return function_terms(node.op, {slot: shape for slot, shape in known.items() if shape})


def is_product(graph: ModelGraph, node: Node) -> bool:
    """Whether a node multiplies data by weights, or data by data."""
    if node.kind == "call_module":
        module = graph.module(node)
        return dot_terms(module) is not None or isinstance(module, nn.Bilinear)
    return node.op in _PRODUCTS or node.op == "scaled_dot_product_attention"


def has_weights(graph: ModelGraph, node: Node) -> bool:
    """Whether a node is a layer whose weights are multiplied with data, or looked up in a table."""
    if node.kind != "call_module" or "weight" not in slots_at(graph, node):
        return False
    return is_product(graph, node) or isinstance(graph.module(node), nn.Embedding | nn.EmbeddingBag)


def why_not(graph: ModelGraph, node: Node) -> str | None:
    """Why an operation cannot be quantised; None where it can, or where there is nothing to quantise."""
    if node.kind not in ("call_module", "call_function", "call_method") or node.op in NOTHING_TO_QUANTIZE:
        return None
    if node.kind == "call_module":
        return None if slots_at(graph, node) else f"{graph.original_type(node)} has no quantised layer"
    if node.op not in FUNCTIONS:
        return f"the function {node.op} cannot be quantised"
    if not node.site:
        return "the graph does not know its site: trace the model with example inputs"
    return why_no_site(graph.model, node.site)


def unsupported(graph: ModelGraph) -> dict[str, str]:
    """Name of every operation that cannot be quantised, and why."""
    reasons = {node.name: why_not(graph, node) for node in graph}
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
            raise BadInput(f"layer '{node.name}' is a {graph.original_type(node)}, which cannot be quantised")
        raise BadInput(f"'{node.name}' cannot be quantised: {why_not(graph, node)}")
    possible = possible_slots_at(graph, node)
    for slot in slots:
        if slot not in possible:
            raise BadInput(f"a {node.op} layer has no slot '{slot}'", found=slot, allowed=possible)
