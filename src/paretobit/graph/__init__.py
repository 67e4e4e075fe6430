"""The traced model."""

from paretobit.graph.conditional import conditional_like, places_called, with_conditional
from paretobit.graph.model_graph import Kind, ModelGraph, Node, Ref, Shape
from paretobit.graph.ops import class_name, op_name, op_of
from paretobit.graph.trace import Example, at_rest, trace
from paretobit.graph.widths import WidthGroup, WidthGroups, width_groups
