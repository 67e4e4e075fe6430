"""What a model costs, node by node and in total."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph, Node
from paretobit.graph.operations import row_of
from paretobit.nn import ParameterUse, ParameterUses, parameter_uses
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
from paretobit.passes.analysis.cost.counting import elements, other_operations, products
from paretobit.passes.analysis.layer_bits import NO_BITS, LayerBits, data_elements, statistics_bits
from paretobit.passes.analysis.memory import peak_memory, result_elements
from paretobit.passes.layers.assignment import Assignment, carried_formats
from paretobit.passes.layers.selection import path_of

Sparsity = Mapping[str, float] | Literal["weights"]
NO_VALUES: Mapping[int, Tensor] = {}
_NO_SUM = ("node", "op", "counted", "bits", "sparsity")
_SUMMED = [column.name for column in fields(NodeCost) if column.name not in _NO_SUM]


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
        if quantity not in _SUMMED:
            raise BadInput("no such cost", key="quantity", found=quantity, allowed=_SUMMED)
        values = [getattr(row, quantity) for row in self.rows]
        if None in values:
            raise BadInput(f"the convention {self.convention} has no {quantity}", key="convention")
        return sum(values)

    @property
    def totals(self) -> NodeCost:
        """All rows in one; what the convention has no formula for stays None."""
        columns = {name: [getattr(row, name) for row in self.rows] for name in _SUMMED}
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
    tally = _Tally(graph, given)
    rows = []
    for node in graph:
        module = graph.module(node) if node.kind == "call_module" else None
        slots = given.get(path_of(node), NO_FORMATS)
        zeros = _zeros(node, tally.uses, slots, sparsity)
        rows.append(node_cost(node, module, slots, convention, batch, sparsity=zeros, weights=tally.at(node, module)))
    unused = tuple(path for path, value in graph.model.named_parameters() if id(value) not in tally.counted)
    return CostReport(tuple(rows), convention, batch, peak_memory(graph, given), unused)


def node_cost(
    node: Node,
    module: nn.Module | None,
    slots: Slots,
    convention: Convention,
    batch: int = 1,
    *,
    sparsity: float | None = None,
    weights: LayerBits = NO_BITS,
) -> NodeCost:
    """Cost of one node whose slots carry these formats.

    Args:
        node: The call.
        module: The layer that is called; None for a function.
        slots: Assignment of its slots.
        convention: How to count.
        batch: Rows that `lab2` and `lab3` count.
        sparsity: Fraction of its weights that is zero.
        weights: Elements and bits of the parameters and statistics that count at it.

    Raises:
        BadInput: The node's shapes are unknown.
    """
    found = products(node, module)
    other = other_operations(node, module) if found is None else 0
    known = found is not None or other is not None or not (module or node.output_shapes)
    counts = Counts(node, module, slots, found or (), other or 0, weights.weight_elements, batch)
    data = data_elements(node, module) if module is not None else 0
    bits = weights + LayerBits(data_elements=data, data_bits=data * counts.width("data_in"))
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


def zero_fraction(uses: Iterable[ParameterUse], slots: Slots, values: Mapping[int, Tensor] = NO_VALUES) -> float | None:
    """Fraction of the weights that an operation reads which is exactly zero in its formats; None without any.

    Weights have two axes or more and go through the slot `weight`, or where none does through no slot.

    Args:
        uses: What the operation reads.
        slots: Assignment of its slots.
        values: Of parameters by their `id`, for those that are to have others than they have.
    """
    large = [use for use in uses if len(use.shape) > 1]
    weights = [use for use in large if use.slot == "weight"] or [use for use in large if not use.slot]
    total = zeros = 0
    with torch.no_grad():
        for use in weights:
            read = use.quantised(slots, values.get(id(use.parameter)))
            if read is None:
                return None
            total, zeros = total + read.numel(), zeros + int((read == 0).sum())
    return zeros / total if total else None


def _zeros(node: Node, uses: ParameterUses, slots: Slots, sparsity: Sparsity | None) -> float | None:
    if sparsity == "weights":
        return zero_fraction(uses.at(path_of(node)), slots) if node.is_call else None
    value = None if sparsity is None else sparsity.get(path_of(node))
    if value is not None and not 0 <= value <= 1:
        raise BadInput("not a fraction", key=f"sparsity.{path_of(node)}", found=value, allowed="0 to 1")
    return value


class _Tally:
    """Parameters and statistics of a model, each at the first node that takes it."""

    def __init__(self, graph: ModelGraph, formats: Assignment) -> None:
        self.uses = parameter_uses(graph)
        self.counted: set[int] = set()
        self._formats = formats
        self._stored = {id(p): one for one in self.uses.stored for p in one.parameters}
        self._attributes = dict(graph.model.named_parameters(remove_duplicate=False))

    def at(self, node: Node, module: nn.Module | None) -> LayerBits:
        """Elements and bits of what counts at a node."""
        own = list(module.parameters()) if module is not None else []
        if node.kind == "get_attr" and node.owner in self._attributes:
            own = [self._attributes[node.owner]]
        new = list({id(self._stored[id(p)]): self._stored[id(p)] for p in own if id(p) not in self.counted}.values())
        self.counted.update(id(p) for one in new for p in one.parameters)
        elements = sum(one.elements for one in new)
        bits = sum(one.bits(one.agreed(self._formats)) for one in new)
        parts = module.modules() if module is not None else ()
        return LayerBits(elements, bits, sum(statistics_bits(part) for part in parts))


def _activations(node: Node) -> int:
    if not node.is_call or row_of(node.op).is_view:
        return 0
    elements(node)  # or nothing ran
    return result_elements(node)
