"""Passes that look and leave the graph alone."""

from paretobit.passes.analysis.accumulators import Accumulator, accumulators
from paretobit.passes.analysis.cost import CONVENTIONS, Convention, CostReport, NodeCost, cost, node_cost
from paretobit.passes.analysis.report import (
    GraphReport,
    LayerComparison,
    TypeSummary,
    compare,
    report_graph,
    summarize_quantization,
)
from paretobit.passes.analysis.storage import LayerBits, layer_bits

__all__ = [
    "CONVENTIONS",
    "Accumulator",
    "Convention",
    "CostReport",
    "GraphReport",
    "LayerBits",
    "LayerComparison",
    "NodeCost",
    "TypeSummary",
    "accumulators",
    "compare",
    "cost",
    "layer_bits",
    "node_cost",
    "report_graph",
    "summarize_quantization",
]
