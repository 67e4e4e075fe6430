"""What formats reach and what the costs hold: what stays in float, and what nobody counted, each with the reason."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from paretobit.graph import ModelGraph, Node
from paretobit.nn import Stored, parameter_uses
from paretobit.passes.analysis.cost import cost, products
from paretobit.passes.layers.assignment import Assignment
from paretobit.passes.layers.quantizable import slots_at, why_not
from paretobit.passes.layers.selection import path_of

Reached = Mapping[str, Collection[str]]
"""Path of a layer or site of a function to the slots that formats are given to."""
_MOST_NAMED = 3


@dataclass
class Left:
    """What stays in float for one reason.

    Attributes:
        why: The reason.
        asked: Whether it was left alone by what was asked: skipped, or chosen by no key.
        names: Parameters, layers and functions.
        parameters: Share of the elements of all parameters.
        macs: Share of the multiply-accumulates that are counted.
    """

    why: str
    asked: bool
    names: list[str] = field(default_factory=list)
    parameters: float = 0.0
    macs: float = 0.0


@dataclass(frozen=True)
class Coverage:
    """What stays in float and what is not counted.

    Attributes:
        left: By reason, the largest share first.
        uncounted: Operation to the number of nodes whose cost nobody knows.
        notices: Of the graph: what depends on the number of rows.
    """

    left: tuple[Left, ...]
    uncounted: Mapping[str, int]
    notices: tuple[str, ...] = ()

    @property
    def in_float(self) -> str:
        """A line for what stays in float and nobody asked to; empty where nothing does."""
        found = [one for one in self.left if not one.asked]
        listed = "; ".join(f"{_some(one)} ({one.why})" for one in found)
        return listed and f"{_shares(found)} stay in float: {listed}"

    @property
    def not_counted(self) -> str:
        """A line for the operations that are not counted; empty where all are."""
        listed = ", ".join(f"{op} ({count})" for op, count in self.uncounted.items())
        return listed and f"not counted in the costs: {listed}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line each for what nobody asked for."""
        return (*filter(None, [self.in_float, self.not_counted]), *self.notices)

    @property
    def said(self) -> tuple[str, ...]:
        """The warnings, and a line for what was left alone as asked."""
        found = [one for one in self.left if one.asked]
        if not found:
            return self.warnings
        listed = "; ".join(f"{one.why}: {_some(one)}" for one in found)
        return (*self.warnings, f"left in float as asked: {_shares(found)} ({listed})")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "said": list(self.said)}


def coverage(graph: ModelGraph, reached: Reached | None = None, skipped: Collection[str] = ()) -> Coverage:
    """What of a model stays in float where formats are given to some slots, and what its costs lack.

    Args:
        graph: Of the model; MACs and what is not counted need shapes.
        reached: Slots that formats are given to; None: no formats are at issue, and nothing stays in float.
        skipped: Paths of what is to stay in float.
    """
    uncounted: dict[str, int] = {}
    if graph.batch is not None:
        uncounted = {op: len(nodes) for op, nodes in cost(graph).uncounted_ops.items()}
    found = {} if reached is None else _left(graph, reached, skipped)
    order = sorted(found.values(), key=lambda one: -one.parameters - one.macs)
    return Coverage(tuple(order), uncounted, graph.notices)


def reachable(graph: ModelGraph) -> dict[str, tuple[str, ...]]:
    """All that formats can be given to."""
    return {path_of(node): slots for node in graph if node.is_call and (slots := slots_at(graph, node))}


def reached_by(formats: Assignment) -> dict[str, tuple[str, ...]]:
    """What an assignment gives formats to."""
    return {path: tuple(slots) for path, slots in formats.items() if slots}


def _left(graph: ModelGraph, reached: Reached, skipped: Collection[str]) -> dict[tuple[str, bool], Left]:
    found: dict[tuple[str, bool], Left] = {}

    def add(reason: tuple[str, bool] | None, name: str, parameters: float = 0.0, macs: float = 0.0) -> None:
        if reason is not None and (parameters or macs):
            one = found.setdefault(reason, Left(*reason))
            one.names += [] if name in one.names else [name]
            one.parameters, one.macs = one.parameters + parameters, one.macs + macs

    calls = {path_of(node): node for node in reversed(graph.nodes) if node.is_call}
    stored = parameter_uses(graph).stored
    elements = max(1, sum(one.elements for one in stored))
    for one in stored:
        name = one.home if one.home and one.home not in reached else one.path
        why = _why_stored(graph, one, calls, reached, skipped)
        add(why, name, one.elements / elements)
        if why is None and one.unread:
            add(("no run reads this part", False), one.path, one.unread / elements)
    if graph.batch is not None:
        macs = [(node, sum(p.macs for p in _products(graph, node))) for node in graph if node.is_call]
        total = max(1, sum(count for _, count in macs))
        for node, count in macs:
            if not reached.get(path_of(node)):
                add(_why(graph, node, skipped), path_of(node) or node.name, macs=count / total)
    return found


def _products(graph: ModelGraph, node: Node) -> Any:
    return products(node, graph.module(node) if node.kind == "call_module" else None) or ()


def _why_stored(
    graph: ModelGraph, stored: Stored, calls: Mapping[str, Node], reached: Reached, skipped: Collection[str]
) -> tuple[str, bool] | None:
    """Why a parameter stays in float, and whether that was asked; None where a format decides."""
    if stored.why_float is None and all(use.slot in reached.get(use.site, ()) for use in stored.uses):
        return None
    node = calls.get(stored.home)
    if stored.why_float is not None and stored.home not in skipped:
        unknown = None if node is None else why_not(graph, node)
        return unknown or stored.why_float, False
    return ("never called", False) if node is None else _why(graph, node, skipped)


def _why(graph: ModelGraph, node: Node, skipped: Collection[str]) -> tuple[str, bool]:
    if path_of(node) in skipped:
        return "skipped", True
    reason = why_not(graph, node)
    return ("chosen by no key", True) if reason is None else (reason, False)


def _shares(found: Sequence[Left]) -> str:
    sums = {"parameters": sum(one.parameters for one in found), "MACs": sum(one.macs for one in found)}
    return " and ".join(f"{_percent(share)} of the {noun}" for noun, share in sums.items() if share)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "less than 1%"


def _some(left: Left) -> str:
    more = f" and {len(left.names) - _MOST_NAMED} more" if len(left.names) > _MOST_NAMED else ""
    return ", ".join(left.names[:_MOST_NAMED]) + more
