"""The one table of operations: what is quantisable, countable, a view, pure, random, a product."""

from paretobit.graph.operations import computing, moving, products
from paretobit.graph.operations.moving import PARAMETRIZATION
from paretobit.graph.operations.row import OPERATIONS, UNKNOWN, Kind, Operand, Operation, Rule, Switch, row_of
from paretobit.graph.operations.write import OF_DATA, operands
