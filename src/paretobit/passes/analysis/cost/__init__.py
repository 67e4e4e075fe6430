"""What a model costs: parameters, operations, bits and memory, per node and in total."""

from paretobit.passes.analysis.cost.conventions import CONVENTIONS, NO_FORMATS, Convention, NodeCost, Slots
from paretobit.passes.analysis.cost.cost_report import NO_VALUES, CostReport, Sparsity, cost, node_cost, zero_fraction
