"""What a model costs: parameters, MACs, FLOPs and BitOPs, per node and in total.

Conventions:
    `standard`: per sample; FLOPs = 2 × MACs; BitOPs = MACs × data bits × weight bits; the backward
        pass takes twice the forward pass (a gradient for the data, one for the weights).
        Operations without multiply-accumulates count zero.
    `lab2`: the table of the second report: a MAC counts one, the batch is counted, BatchNorm takes
        4 per element and × data bits × weight bits, ReLU one per element and × data bits, the
        backward pass twice the forward pass for layers of MACs and once otherwise; parameters
        without the bias of those layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import nn

from paretobit.errors import BadInput
from paretobit.formats import FULL, Format
from paretobit.graph import ModelGraph, Node
from paretobit.nn import Quantized

Convention = Literal["standard", "lab2"]
CONVENTIONS: tuple[str, ...] = get_args(Convention)
Slots = Mapping[str, Format]
NO_FORMATS: Slots = {}

# fmt: off
_FREE_FUNCTIONS = frozenset({
    "flatten", "view", "reshape", "size", "shape", "getitem", "getattr", "permute", "transpose",
    "contiguous", "squeeze", "unsqueeze", "cat", "add", "iadd", "sub", "mul", "truediv", "mean", "sum",
    "clone", "pad", "dropout", "relu", "gelu", "silu", "sigmoid", "tanh", "softmax", "log_softmax",
    "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d",
})
# fmt: on


@dataclass(frozen=True)
class NodeCost:
    """Cost of one node; all counts in the convention asked for.

    `macs` are per sample in every convention. `parameters` are counted at a module's first call. A
    node the counter does not know has `counted` False and zeros.
    """

    node: str
    op: str
    parameters: int = 0
    macs: int = 0
    forward_flops: int = 0
    backward_flops: int = 0
    forward_bitops: int = 0
    backward_bitops: int = 0
    counted: bool = True


@dataclass(frozen=True)
class CostReport:
    """Costs of all nodes."""

    rows: tuple[NodeCost, ...]
    convention: Convention
    batch: int

    def total(self, quantity: str) -> int:
        """Sum of one column over all nodes."""
        return sum(getattr(row, quantity) for row in self.rows)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Nodes whose cost is not known."""
        return tuple(row.node for row in self.rows if not row.counted)


def cost(
    graph: ModelGraph,
    *,
    convention: Convention = "standard",
    batch: int = 1,
    formats: Mapping[str, Slots] | None = None,
) -> CostReport:
    """Costs of every node of a graph.

    Args:
        graph: Traced with example inputs: costs need shapes.
        convention: How to count.
        batch: Rows that `lab2` counts; `standard` is per sample.
        formats: Formats by layer path, in place of those the model's own layers carry.
    """
    rows: list[NodeCost] = []
    first_calls = {node.name for node in graph.layers}
    for node in graph:
        module = graph.module(node) if node.kind == "call_module" else None
        carried = module.slots if isinstance(module, Quantized) else NO_FORMATS
        slots = carried if formats is None else formats.get(node.owner, NO_FORMATS)
        row = node_cost(node, module, slots, convention, batch)
        rows.append(row if node.name in first_calls else replace(row, parameters=0))
    return CostReport(tuple(rows), convention, batch)


def node_cost(
    node: Node, module: nn.Module | None, slots: Slots, convention: Convention, batch: int = 1
) -> NodeCost:
    """Cost of one node whose slots carry these formats.

    Raises:
        BadInput: The node's shapes are unknown, or the convention is.
    """
    if convention not in CONVENTIONS:
        raise BadInput("unknown cost convention", key="convention", found=convention, allowed=CONVENTIONS)
    if module is None:
        known = node.kind not in ("call_function", "call_method") or node.op in _FREE_FUNCTIONS
        return NodeCost(node.name, node.op, counted=known)
    macs = _macs(node, module)
    if macs is None:
        return NodeCost(node.name, node.op, parameters=_parameters(module), counted=False)
    return (_standard if convention == "standard" else _lab2)(node, module, slots, macs, batch)


def _standard(node: Node, module: nn.Module, slots: Slots, macs: int, batch: int) -> NodeCost:
    bitops = macs * _bits(slots, "data_in") * _bits(slots, "weight")
    return NodeCost(
        node.name,
        node.op,
        parameters=_parameters(module),
        macs=macs,
        forward_flops=2 * macs,
        backward_flops=4 * macs,
        forward_bitops=bitops,
        backward_bitops=2 * bitops,
    )


def _lab2(node: Node, module: nn.Module, slots: Slots, macs: int, batch: int) -> NodeCost:
    elements = _known(node.input_elements, node) * batch
    data, weight = _bits(slots, "data_in"), _bits(slots, "weight")
    parameters, backward = _parameters(module), 1
    if macs:
        flops, width, backward = macs * batch, data * weight, 2
        bias = getattr(module, "bias", None)
        parameters -= 0 if bias is None else bias.numel()
    elif isinstance(module, _NORMS):
        flops, width = 4 * elements, data * weight
    elif node.op == "relu":
        flops, width = elements, data
    else:
        flops, width = 0, 0
    bitops = flops * width
    return NodeCost(node.name, node.op, parameters, macs, flops, backward * flops, bitops, backward * bitops)


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_FREE_MODULES = tuple(
    f"torch.nn.modules.{kind}"
    for kind in ("batchnorm", "activation", "dropout", "pooling", "flatten", "padding", "linear.Identity")
)


def _macs(node: Node, module: nn.Module) -> int | None:
    """MACs of one sample; None where this counter does not know the layer."""
    if isinstance(module, nn.Linear):
        return _known(node.output_elements, node) * module.in_features
    if isinstance(module, _CONVS):
        taps = module.in_channels // module.groups * math.prod(module.kernel_size)
        return _known(node.output_elements, node) * taps
    names = [f"{base.__module__}.{base.__name__}" for base in type(module).__mro__]
    free = any(name.startswith(_FREE_MODULES) for name in names)
    return 0 if free and not isinstance(module, nn.MultiheadAttention) else None


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _bits(slots: Slots, slot: str) -> int:
    return slots.get(slot, FULL).element_bits


def _known(elements: int | None, node: Node) -> int:
    if elements is None:
        raise BadInput(f"the shapes of layer '{node.name}' are unknown: costs need example inputs")
    return elements
