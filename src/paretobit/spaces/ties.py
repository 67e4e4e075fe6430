"""Which layers share their knobs: tied by hand, by a tensor that is stored once, or by one they all read."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, TypeVar

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph, Node, Ref
from paretobit.graph.operations import row_of
from paretobit.graph.readings import operands_at
from paretobit.nn import parameter_uses
from paretobit.passes.layers.choice import meant
from paretobit.passes.layers.quantizable import slots_at
from paretobit.passes.layers.selection import candidates, path_of

Share = Literal["name", "type"]
"""`name`: every layer has knobs of its own; `type`: the layers that one key chooses share theirs."""
INPUTS = "inputs"
"""In a list of ties: layers and functions that read the same tensor share the format of `data_in`."""
Place = tuple[str, str]
"""Path of a layer or function, and a slot."""


class Shares(Protocol):
    """Layers that share one set of knobs."""

    @property
    def prefix(self) -> str:
        """Of the names of their knobs."""

    @property
    def entry(self) -> Any:
        """What describes the knobs."""

    @property
    def layers(self) -> tuple[Node, ...]:
        """In order of execution."""


Group = TypeVar("Group", bound=Shares)


def read_ties(given: Any) -> tuple[str | tuple[str, ...], ...]:
    """Ties as a user gives them: lists of names, and the word `inputs`.

    Raises:
        BadInput: Something else.
    """
    allowed = f'a list of lists of names, paths or "regex:" patterns, or "{INPUTS}"'
    items = [given] if isinstance(given, str) else given
    if not isinstance(items, Sequence):
        raise BadInput("not a list of ties", key="tie", found=given, allowed=allowed)
    ties: list[str | tuple[str, ...]] = []
    for item in items:
        if item == INPUTS:
            ties.append(INPUTS)
        elif isinstance(item, list | tuple) and item and all(isinstance(text, str) for text in item):
            ties.append(tuple(item))
        else:
            raise BadInput("not a tie", key="tie", found=item, allowed=allowed)
    return tuple(ties)


def tied_by_hand(
    graph: ModelGraph, groups: Iterable[Group], ties: Sequence[str | tuple[str, ...]], by_layer: bool
) -> list[Group]:
    """Groups of layers with the tied ones put together, under the name of the first layer.

    Args:
        graph: The model.
        groups: What varies.
        ties: From `read_ties`.
        by_layer: Whether a group is known by its first layer's name, and not by a key.

    Raises:
        BadInput: A tie names a layer that does not vary, ties nothing, or layers with other entries.
    """
    merged = list(groups)
    for tie in ties:
        if isinstance(tie, str):
            continue
        paths = _varied(graph, tie, {path_of(node) for group in merged for node in group.layers})
        tied = [group for group in merged if any(path_of(node) in paths for node in group.layers)]
        first, *others = sorted(tied, key=lambda group: graph.nodes.index(group.layers[0]))
        for other in others:
            if other.entry != first.entry:
                found = [first.layers[0].name, other.layers[0].name]
                raise BadInput("tied layers have different entries", key="tie", found=found)
        together = sorted((n for g in (first, *others) for n in g.layers), key=graph.nodes.index)
        prefix = together[0].name if by_layer else first.prefix
        changes: Any = {"prefix": prefix, "layers": tuple(together)}
        merged = [replace(g, **changes) if g is first else g for g in merged if g not in others]  # type: ignore[type-var]
    return merged


def _varied(graph: ModelGraph, tie: Sequence[str], varied: set[str]) -> set[str]:
    """Paths of the layers of a tie that vary."""
    paths = set[str]()
    for text in tie:
        own = {path_of(node) for node in meant(graph, text, "tie")}
        if not own & varied:
            raise BadInput("the space does not vary this layer", key="tie", found=text)
        paths |= own & varied
    if len(paths) < 2:
        raise BadInput("this ties nothing: it is one layer", key="tie", found=list(tie))
    return paths


def shared_parameters(graph: ModelGraph) -> list[dict[Place, Node]]:
    """Slots through which one stored tensor goes into several layers or functions.

    One tensor is stored once: it has one format, wherever it is used.

    Returns:
        For each such set, in order of execution: path and slot to the node.
    """
    read: dict[Place, set[Hashable]] = {}
    for stored in parameter_uses(graph).stored:
        for use in stored.uses:
            read.setdefault((use.site, use.slot), set()).add(stored.path)
    nodes = candidates(graph, functions=True)
    places = ((node, slot) for node in nodes for slot in slots_at(graph, node))
    return _tied(places, lambda node, slot: read.get((path_of(node), slot), set()))


def shared_inputs(graph: ModelGraph) -> list[dict[Place, Node]]:
    """`data_in` of layers and functions that read the same tensor, moved about or joined as it may be."""
    same = _Classes()
    for node in graph:
        if row_of(node.op).passes_on:
            for source in node.inputs:
                same.join(node.name, source)
    calls: dict[str, list[Node]] = {}
    for node in graph:
        calls.setdefault(path_of(node), []).append(node)

    def tensors(node: Node, slot: str) -> set[Hashable]:
        if node.kind == "call_module":
            return {same.of(source) for call in calls[path_of(node)] for source in call.inputs}
        operands = (o.find(node.args, node.kwargs) for o in operands_at(graph, node) if o.slot == slot)
        return {same.of(ref.node) for ref in operands if isinstance(ref, Ref)}

    nodes = candidates(graph, functions=True)
    return _tied(((n, "data_in") for n in nodes if "data_in" in slots_at(graph, n)), tensors)


def _tied(places: Iterable[tuple[Node, str]], tensors: Callable[[Node, str], set[Hashable]]) -> list[dict[Place, Node]]:
    """Places put together that have a tensor in common."""
    listed = [(node, slot, tensors(node, slot)) for node, slot in places]
    same = _Classes()
    for node, slot, own in listed:
        for tensor in own:
            same.join((path_of(node), slot), ("tensor", tensor))
    found: dict[Hashable, dict[Place, Node]] = {}
    for node, slot, own in listed:
        if own:
            found.setdefault(same.of((path_of(node), slot)), {})[path_of(node), slot] = node
    return [places for places in found.values() if len(places) > 1]


class _Classes:
    """What is the same as what, found by following links."""

    def __init__(self) -> None:
        self._above: dict[Hashable, Hashable] = {}

    def of(self, item: Hashable) -> Hashable:
        """What stands for everything that is the same as `item`."""
        while item in self._above:
            item = self._above[item]
        return item

    def join(self, one: Hashable, other: Hashable) -> None:
        """Make them the same."""
        if self.of(one) != self.of(other):
            self._above[self.of(one)] = self.of(other)
