"""What a model costs, node by node and in total."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput
from paretobit.formats import FULL
from paretobit.graph import ModelGraph, Node
from paretobit.passes.analysis.cost.conventions import (
    CONVENTIONS,
    NO_FORMATS,
    OPERATIONS,
    Convention,
    Counts,
    NodeCost,
    Slots,
    bops,
    lab3_bytes,
)
from paretobit.passes.analysis.cost.counting import elements, products
from paretobit.passes.analysis.cost.operations import VIEWS, bare, other_operations
from paretobit.passes.analysis.memory import peak_memory, result_elements
from paretobit.passes.analysis.storage import LayerBits, layer_bits
from paretobit.passes.layers.assignment import Assignment, carried_formats
from paretobit.passes.layers.selection import path_of

Sparsity = Mapping[str, float] | Literal["weights"]
_NO_SUM = ("node", "op", "counted", "bits", "sparsity")


@dataclass(frozen=True)
class CostReport:
    """Costs of all nodes.

    Attributes:
        rows: One a node, in order of execution.
        convention: How FLOPs, BitOPs and parameters were counted.
        batch: Rows that `lab2` and `lab3` counted.
        peak_memory: Bytes of activations that are alive at once, at most, for one sample.
        unused: Parameters of the model that no node of the graph uses: they stand in no row.
    """

    rows: tuple[NodeCost, ...]
    convention: Convention
    batch: int
    peak_memory: float = 0.0
    unused: tuple[str, ...] = ()

    def total(self, quantity: str) -> Any:
        """One column over all nodes: its sum, or of `average_bitwidth` the mean over all elements.

        Raises:
            BadInput: There is no such column, or the convention has no formula for it.
        """
        if quantity == "average_bitwidth":
            return sum((row.bits for row in self.rows), LayerBits()).average_width
        known = [field.name for field in fields(NodeCost) if field.name not in _NO_SUM]
        if quantity not in known:
            raise BadInput("no such cost", key="quantity", found=quantity, allowed=known)
        values = [getattr(row, quantity) for row in self.rows]
        if None in values:
            raise BadInput(f"the convention {self.convention} has no {quantity}", key="convention")
        return sum(values)

    @property
    def totals(self) -> NodeCost:
        """All rows in one; what the convention has no formula for stays None."""
        names = [field.name for field in fields(NodeCost) if field.name not in _NO_SUM]
        columns = {name: [getattr(row, name) for row in self.rows] for name in names}
        sums = {name: None if None in values else sum(values) for name, values in columns.items()}
        bits = sum((row.bits for row in self.rows), LayerBits())
        return NodeCost("total", "", bits=bits, counted=not self.uncounted, **sums)  # type: ignore[arg-type]

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Nodes whose cost is not known."""
        return tuple(row.node for row in self.rows if not row.counted)

    @property
    def uncounted_ops(self) -> dict[str, tuple[str, ...]]:
        """Operations whose cost is not known, and the nodes that perform them."""
        missing: dict[str, tuple[str, ...]] = {}
        for row in self.rows:
            if not row.counted:
                missing[row.op] = (*missing.get(row.op, ()), row.node)
        return missing


def cost(
    graph: ModelGraph,
    *,
    convention: Convention = "standard",
    batch: int = 1,
    formats: Assignment | None = None,
    sparsity: Sparsity | None = None,
) -> CostReport:
    """Costs of every node of a graph.

    Args:
        graph: Traced with example inputs: costs need shapes.
        convention: How to count.
        batch: Rows that `lab2` and `lab3` count; `standard` is per sample.
        formats: Assignment by the path of a layer, or the site of a function, in place of those the
            model's own layers carry. The second operand of a product of two results is its `weight`.
        sparsity: Fraction of zero weights by path or site, 0 to 1; `weights` counts the exact zeros
            of each layer's weights in their format.

    Raises:
        BadInput: Shapes are unknown, the convention is, or a sparsity is no fraction.
    """
    if convention not in CONVENTIONS:
        raise BadInput("unknown cost convention", key="convention", found=convention, allowed=CONVENTIONS)
    given = carried_formats(graph) if formats is None else formats
    attributes = dict(graph.model.named_parameters(remove_duplicate=False))
    counted: set[int] = set()
    rows: list[NodeCost] = []
    for node in graph:
        module = graph.module(node) if node.kind == "call_module" else None
        slots = given.get(path_of(node), NO_FORMATS)
        zeros = _zeros(node, module, slots, sparsity)
        row = node_cost(node, module, slots, convention, batch, sparsity=zeros, elsewhere=counted)
        own = list(module.parameters()) if module is not None else []
        parameter = attributes.get(node.owner) if node.kind == "get_attr" else None
        if parameter is not None and id(parameter) not in counted:
            own, row = [parameter], _of_attribute(node, parameter)
        counted.update(map(id, own))
        rows.append(row)
    unused = tuple(path for path, value in graph.model.named_parameters() if id(value) not in counted)
    return CostReport(tuple(rows), convention, batch, peak_memory(graph, given), unused)


def node_cost(
    node: Node,
    module: nn.Module | None,
    slots: Slots,
    convention: Convention,
    batch: int = 1,
    *,
    sparsity: float | None = None,
    elsewhere: Container[int] = (),
) -> NodeCost:
    """Cost of one node whose slots carry these formats.

    Args:
        node: The call.
        module: The layer that is called; None for a function.
        slots: Assignment of its slots.
        convention: How to count.
        batch: Rows that `lab2` and `lab3` count.
        sparsity: Fraction of its weights that is zero.
        elsewhere: `id` of parameters that count at another node.

    Raises:
        BadInput: The node's shapes are unknown.
    """
    found = products(node, module)
    other = other_operations(node) if found is None else 0
    known = found is not None or other is not None or not (module or node.output_shapes)
    own = [p for p in module.parameters() if id(p) not in elsewhere] if module is not None else []
    counts = Counts(node, module, slots, found or (), other or 0, sum(p.numel() for p in own), batch)
    bits = _bits(node, module, slots, elsewhere)
    operations = OPERATIONS[convention](counts)
    return NodeCost(
        node.name,
        node.op,
        parameters=operations.parameters,
        macs=counts.macs,
        forward_flops=operations.flops,
        backward_flops=operations.backward_flops,
        forward_bitops=operations.bitops,
        backward_bitops=operations.backward_bitops,
        bops=bops(counts, sparsity or 0.0),
        other_flops=counts.other,
        activations=_activations(node),
        sparsity=sparsity,
        bits=bits,
        stored_bytes=lab3_bytes(counts, bits) if convention == "lab3" else bits.stored_bytes,
        counted=known,
    )


def zero_fraction(module: nn.Module, slots: Slots) -> float | None:
    """Fraction of a layer's weights that is exactly zero in the format of their slot; None without any.

    Weights are its `weight`, masked or computed from others as it may be, or where it has none of
    two axes or more, all its parameters that do.
    """
    own = getattr(module, "weight", None)
    if isinstance(own, Tensor) and own.dim() > 1:
        weights = {"weight": own}
    else:
        weights = {name: p.data for name, p in module.named_parameters() if p.dim() > 1}
    total = sum(weight.numel() for weight in weights.values())
    with torch.no_grad():
        zeros = sum(
            int((slots.get(name.rpartition(".")[2], FULL).quantize(weight.detach()) == 0).sum())
            for name, weight in weights.items()
        )
    return zeros / total if total else None


def _zeros(node: Node, module: nn.Module | None, slots: Slots, sparsity: Sparsity | None) -> float | None:
    if sparsity == "weights":
        return zero_fraction(module, slots) if module is not None else None
    value = None if sparsity is None else sparsity.get(path_of(node))
    if value is not None and not 0 <= value <= 1:
        raise BadInput("not a fraction", key=f"sparsity.{path_of(node)}", found=value, allowed="0 to 1")
    return value


def _bits(node: Node, module: nn.Module | None, slots: Slots, elsewhere: Container[int]) -> LayerBits:
    """Of a layer and of what it consists of."""
    if module is None:
        return LayerBits()
    parts = (layer_bits(None, part, slots, elsewhere) for part in module.modules() if part is not module)
    return sum(parts, layer_bits(node, module, slots, elsewhere))


def _of_attribute(node: Node, parameter: nn.Parameter) -> NodeCost:
    """A parameter that a function takes."""
    bits = LayerBits(parameter.numel(), FULL.bits(parameter.shape))
    return NodeCost(node.name, node.op, parameters=parameter.numel(), bits=bits, stored_bytes=bits.stored_bytes)


def _activations(node: Node) -> int:
    if bare(node.op) in VIEWS or node.kind in ("placeholder", "get_attr", "output"):
        return 0
    elements(node)  # or nothing ran
    return result_elements(node)
