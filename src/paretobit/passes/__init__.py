"""Passes over a model graph: `(graph, settings) -> (graph, info)`."""
