"""Passes that look and leave the graph alone."""

from paretobit.passes.analysis.accumulators import Accumulator, accumulators
from paretobit.passes.analysis.cost import CONVENTIONS, CostReport, cost, zero_fraction
from paretobit.passes.analysis.cost_table import CostTable
from paretobit.passes.analysis.coverage import Coverage, coverage, reachable, reached_by
from paretobit.passes.analysis.layer_bits import owners
from paretobit.passes.analysis.memory import peak_memory
from paretobit.passes.analysis.roofline import Device, Roofline, roofline
from paretobit.passes.analysis.statistics import TensorStatistics, statistics
from paretobit.passes.analysis.summary import (
    GraphReport,
    LayerComparison,
    TypeSummary,
    compare,
    report_graph,
    summarize_quantization,
)
