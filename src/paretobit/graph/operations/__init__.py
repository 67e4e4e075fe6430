"""The one table of operations: what is quantisable, countable, a view, pure, random, a product."""

from paretobit.graph.operations import computing, moving, products  # noqa: F401 (they fill the table)
from paretobit.graph.operations.row import OPERATIONS, UNKNOWN, Kind, Operand, Operation, Rule, Switch, row_of
from paretobit.graph.operations.write import OF_DATA, operands

__all__ = [
    "OF_DATA",
    "OPERATIONS",
    "UNKNOWN",
    "Kind",
    "Operand",
    "Operation",
    "Rule",
    "Switch",
    "operands",
    "row_of",
]
