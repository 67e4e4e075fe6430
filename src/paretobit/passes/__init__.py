"""Passes over a model graph: `(graph, settings) -> (graph, info)`."""

from paretobit.passes.selection import By, select

__all__ = ["By", "select"]
