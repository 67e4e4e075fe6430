"""Activation memory: which tensors of a run are alive when, and how wide they have to be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph, Node, Ref
from paretobit.graph.operations import row_of
from paretobit.passes.analysis.cost.operands import reads
from paretobit.passes.layers.assignment import Assignment, carried_formats, width_of
from paretobit.passes.layers.selection import path_of


@dataclass
class Activation:
    """Memory that holds an activation: the result of one node, its views, and what is written into it.

    Attributes:
        elements: Of one sample.
        first: Position of the node that makes it.
        last: Position of the last node that uses it.
        uses: Path or site and slot of each operation that reads it; no slot where it is taken as it is.
        copies: Memory that it is copied into.
    """

    elements: int
    first: int
    last: int
    uses: list[tuple[str, str | None]] = field(default_factory=list)
    copies: list[Activation] = field(default_factory=list)


class Lifetimes:
    """The activations of one run.

    An activation lives from its producer to its last use. In-place operations and views share the
    memory of their argument, a view that brings memory into another order (`contiguous` after
    `transpose`) does not. Parameters and buffers are no activations, and what an operation needs
    inside while it runs is not seen.

    Attributes:
        kept: Every activation, in order of production.
        of: Name of a node to the activation that its result is; absent where it is none.

    Raises:
        BadInput: Nothing ran: shapes are unknown.
    """

    def __init__(self, graph: ModelGraph) -> None:
        if graph.batch is None:
            raise BadInput("activation memory needs shapes: give example inputs", key="peak_memory")
        self._graph, self.kept = graph, list[Activation]()
        self.of: dict[str, Activation] = {}
        self._reordered: set[str] = set()
        for position, node in enumerate(graph):
            into = _shares(node)
            memory = None if into is None else self.of.get(into)
            reordered = into in self._reordered
            if memory is not None and not (reordered and row_of(node.op).order == "restores"):
                self.of[node.name] = memory
                if reordered or row_of(node.op).order == "other":
                    self._reordered.add(node.name)
            elif memory is not None or into is None:
                self._make(node, position)
            self._read(node, position)

    def _read(self, node: Node, position: int) -> None:
        for source in node.inputs:
            if source in self.of:
                self.of[source].last = position
        row = row_of(node.op)
        if row.kind in ("make", "question") and node.is_call:
            return  # only the shape is read
        result = self.of.get(node.name) if row.passes_on else None
        for operand, slot in reads(self._graph, node):
            memory = self.of.get(operand.node)
            if memory is None or memory is result:
                continue
            if result is not None:
                memory.copies.append(result)
            else:
                memory.uses.append((path_of(node), slot))

    def _make(self, node: Node, position: int) -> None:
        if node.kind in ("get_attr", "output") or not node.output_shapes:
            return
        self.of[node.name] = Activation(result_elements(node), position, position)
        self.kept.append(self.of[node.name])

    def makes(self, node: Node) -> bool:
        """Whether the result of a node has memory of its own."""
        memory = self.of.get(node.name)
        return memory is not None and all(self.of.get(source) is not memory for source in node.inputs)

    def widths(self, formats: Assignment) -> dict[int, int]:
        """Bits of an element of each activation, by `id`.

        Those of the widest format in which an operation reads it, or a copy of it; 32 where one
        reads it at full precision, or none reads it.
        """
        widths: dict[int, int] = {}
        for memory in reversed(self.kept):
            read = [width_of(formats, site, slot) for site, slot in memory.uses]
            widths[id(memory)] = max([*read, *(widths.get(id(copy), 32) for copy in memory.copies)], default=32)
        return widths

    def alive(self, formats: Assignment) -> Iterator[float]:
        """Bytes of one sample that are alive at each node that makes or drops something."""
        change: dict[int, int] = {}
        widths = self.widths(formats)
        for memory in self.kept:
            bits = memory.elements * widths[id(memory)]
            change[memory.first] = change.get(memory.first, 0) + bits
            change[memory.last + 1] = change.get(memory.last + 1, 0) - bits
        bits = 0
        for position in sorted(change):
            bits += change[position]
            yield bits / 8


def peak_memory(graph: ModelGraph, formats: Assignment | None = None) -> float:
    """Most bytes of activations that are alive at once, for one sample.

    An activation is kept in the widest format in which an operation reads it, at 32 bits where one
    reads it at full precision, whatever its type.

    Args:
        graph: Traced with example inputs.
        formats: Assignment by path or site, in place of those the model's layers carry.
    """
    return max(Lifetimes(graph).alive(carried_formats(graph) if formats is None else formats), default=0.0)


def result_elements(node: Node) -> int:
    """Elements of all results for one sample."""
    return sum(math.prod(shape) for shape in node.of_one_row.output_shapes)


def _shares(node: Node) -> str | None:
    """The argument whose memory the result is, or may be: what is given as `out`, or the first; None: its own."""
    given = node.kwargs.get("out")
    if isinstance(given, Ref):
        return given.node
    shares = node.in_place or (node.is_call and row_of(node.op).is_view)
    return node.inputs[0] if shares and node.inputs else None
