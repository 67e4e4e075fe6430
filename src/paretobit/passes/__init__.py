"""Passes over a model graph: `(graph, settings) -> (graph, info)`."""

from paretobit.passes.layers.selection import By, select
