"""Weights that a model computes from its parameters only: each is one tensor, delivered in their place."""

import math
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from paretobit.graph.model_graph import ModelGraph, Node, Ref, filled
from paretobit.graph.operations import PARAMETRIZATION, row_of


@dataclass(frozen=True)
class ComputedWeights:
    """What of a graph computes weights.

    Attributes:
        roots: Node that gives a weight to the parameters from which it is computed.
        steps: All nodes on the way from those parameters to the weights: they compute nothing that a
            delivered model would compute again.
    """

    roots: Mapping[str, tuple[str, ...]]
    steps: frozenset[str]


def computed_weights(graph: ModelGraph) -> ComputedWeights:
    """The weights that functions compute from parameters only, and deliver whole.

    Such a weight is of no fewer elements than the largest parameter, and of no more than all of them: what
    picks some of a table is none, nor what repeats one. No parameter is read in another way besides.
    """
    known: ComputedWeights | None = vars(graph).get("_computed_weights")
    if known is None:
        known = vars(graph)["_computed_weights"] = _Search(graph).found()
    return known


def passes_on(graph: ModelGraph, node: Node, taken: Collection[str]) -> bool:
    """Whether the result is the one tensor that is taken, in another shape, order or part, and nothing else."""
    if len(taken) != 1 or not node.is_call:
        return False
    if any(graph[source].output_shapes for source in node.inputs if source not in taken):
        return False
    row = row_of(node.op)
    return (row.is_view or row.casts) and row.writes is False


class _Search:
    """Follows parameters through what depends on nothing else."""

    def __init__(self, graph: ModelGraph) -> None:
        self._graph, self._nodes = graph, {node.name: node for node in graph}
        named = dict(graph.model.named_parameters(remove_duplicate=False))
        first: dict[int, str] = {}
        self._path = {path: first.setdefault(id(p), path) for path, p in named.items()}
        self._sizes = {path: named[path].numel() for path in first.values()}
        self._from: dict[str, frozenset[str]] = {}  # node that depends on parameters only, to these
        self._root: dict[str, str | None] = {}  # the same to the node that computed it; None: it is a parameter

    def found(self) -> ComputedWeights:
        roots, otherwise = set[str](), set[str]()
        for node in self._graph:
            if node.kind == "call_module" and node.op != PARAMETRIZATION:  # which reads what is made of originals
                otherwise |= {path for path in self._owned(node) if "parametrizations" not in path.split(".")}
            if self._is_fixed(node):
                self._take(node)
            elif node.kind == "output" or row_of(node.op).kind != "question":
                taken = [source for source in node.inputs if source in self._root]
                roots |= {root for source in taken if (root := self._root[source]) is not None}
                otherwise |= {p for source in taken if self._root[source] is None for p in self._from[source]}
        whole = {root: self._from[root] for root in roots if self._is_whole(root)}
        alone = {
            root: tuple(path for path in self._sizes if path in own)
            for root, own in whole.items()
            if not own & otherwise and not any(own & self._from[other] for other in roots if other != root)
        }
        return ComputedWeights(alone, frozenset(self._above(alone)))

    def _owned(self, node: Node) -> set[str]:
        inside = self._graph.module(node).named_parameters(prefix=node.owner, remove_duplicate=False)
        return {self._path[path] for path, _ in inside if path in self._path}

    def _is_fixed(self, node: Node) -> bool:
        """Whether a node gives the same whatever the model is given."""
        if node.kind == "get_attr" or node.op == PARAMETRIZATION:
            return True
        row = row_of(node.op)
        if node.kind not in ("call_function", "call_method") or node.in_place or row.looks_up:
            return False
        sources = [source for source in node.inputs if self._nodes[source].output_shapes]
        return all(s in self._from for s in sources) and row.is_pure(node.args, node.kwargs)

    def _take(self, node: Node) -> None:
        sources = [source for source in node.inputs if source in self._from]
        own = {self._path[node.owner]} if node.kind == "get_attr" and node.owner in self._path else set[str]()
        if node.op == PARAMETRIZATION:
            own = self._owned(node)
        self._from[node.name] = frozenset(own.union(*(self._from[source] for source in sources)))
        if node.kind == "get_attr":
            self._root[node.name] = None
        elif passes_on(self._graph, node, dict.fromkeys(sources)):
            self._root[node.name] = self._root[sources[0]]
        else:
            self._root[node.name] = node.name

    def _is_whole(self, root: str) -> bool:
        shapes, sizes = self._nodes[root].output_shapes, [self._sizes[path] for path in self._from[root]]
        return len(shapes) == 1 and bool(sizes) and max(sizes) <= math.prod(shapes[0]) <= sum(sizes)

    def _above(self, roots: Collection[str]) -> set[str]:
        found, left = set[str](), list(roots)
        while left:
            node = self._nodes[left.pop()]
            if node.name not in found and node.kind != "get_attr":
                found.add(node.name)
                left += node.inputs
        return found


def value_of(graph: ModelGraph, name: str) -> Tensor | None:
    """What a node gives that depends on parameters only; None where the graph does not tell."""
    try:
        with torch.no_grad():
            value = _value(graph, graph[name], {})
    except Exception:  # arguments that torch takes in another form than the graph keeps them
        return None
    return value if isinstance(value, Tensor) else None


def _value(graph: ModelGraph, node: Node, known: dict[str, Any]) -> Any:
    if node.name not in known:
        if node.kind == "get_attr":
            owner, _, name = node.owner.rpartition(".")
            known[node.name] = getattr(graph.model.get_submodule(owner), name)
        elif node.kind == "call_module":
            known[node.name] = graph.module(node)()
        else:

            def put(ref: Ref) -> Any:
                result = _value(graph, graph[ref.node], known)
                return result if ref.output is None or isinstance(result, Tensor) else result[ref.output]

            args, kwargs = filled(node.args, Ref, put), filled(node.kwargs, Ref, put)
            known[node.name] = _function(graph, node)(*args, **kwargs)
    return known[node.name]


_REFLECTED = ("sub", "div", "pow", "floor_divide", "mod", "matmul")
"""What a run calls by one word with a number before and after: `1 - w` and `w - 1`."""


def _function(graph: ModelGraph, node: Node) -> Callable[..., Any]:
    other = node.args[1] if len(node.args) > 1 else None
    if graph.method == "run" and node.op in _REFLECTED and isinstance(other, int | float):
        raise LookupError(node.op)
    places: tuple[Any, ...] = (F, torch, operator, Tensor)
    if node.kind == "call_method":
        places = (Tensor,)
    found: Any = next(getattr(place, node.op) for place in places if hasattr(place, node.op))
    result: Callable[..., Any] = found if callable(found) else found.__get__
    return result
