"""Functions that some runs of a model call and others do not: branches on padding, rows, or the first call."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from paretobit.graph.copies import copy_of
from paretobit.graph.model_graph import ModelGraph, Node
from paretobit.graph.places import Call, uncounted, watching
from paretobit.graph.trace import Example, _arguments, _without_sites


def places_called(model: nn.Module, example: Example) -> frozenset[Call]:
    """The calls of functions that can carry formats in one run: caller, operation, and place with its count.

    Two runs that differ here run other functions. The model is left as it was.
    """
    (calls,) = called_in_turn(model, [example])
    if isinstance(calls, Exception):
        raise calls
    return calls


def with_conditional(graph: ModelGraph, runs: Mapping[str, Example]) -> ModelGraph:
    """A graph that knows which of its functions are not called in every run.

    Args:
        graph: As traced.
        runs: What each run is, in words, to what the model is called with: one after the other, the model
            keeping what it keeps from one to the next. Runs that fail tell nothing.
    """
    sites = {(node.owner, node.op, node.place): node.site for node in graph if node.site and node.place}
    found = dict(graph.conditional)
    if sites:
        for name, calls in zip(runs, called_in_turn(graph.model, list(runs.values())), strict=True):
            if not isinstance(calls, Exception):
                missed = [site for call, site in sites.items() if call not in calls]
                found = dict.fromkeys(missed, f"it is called only in some runs, not in {name}") | found
    return replace(graph, conditional=found)


def conditional_like(graph: ModelGraph, other: ModelGraph) -> ModelGraph:
    """The graph of a model of other sizes, of which what stands in the same code is known from `other`."""
    known = {_code(node): other.conditional[node.site] for node in other if node.site in other.conditional}
    same = {node.site: known[_code(node)] for node in graph if node.site and _code(node) in known}
    return replace(graph, conditional=same)


def _code(node: Node) -> tuple[str, str]:
    return node.op, uncounted(node.place)


def called_in_turn(model: nn.Module, examples: Sequence[Example]) -> Iterator[frozenset[Call] | Exception]:
    """The calls of one run after the other on one copy of the model, or why a run failed."""
    model = copy_of(model).eval()
    with _without_sites(model), torch.no_grad(), torch.random.fork_rng():
        for example in examples:
            args, kwargs = _arguments(example)
            try:
                with watching(model) as seen:
                    model(*args, **kwargs)
            except Exception as error:  # whatever a model's forward raises
                yield error
            else:
                yield seen.calls
