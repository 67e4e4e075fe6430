"""The tensor arguments of a node with their shapes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from paretobit.graph import ModelGraph, Node, Ref, Shape
from paretobit.graph.model_graph import filled
from paretobit.graph.readings import operands_at


@dataclass(frozen=True)
class Operand:
    """A tensor argument: the node it comes from, and its shape, batch included (None where unknown)."""

    node: str
    shape: Shape | None


class Operands:
    """The arguments of a node, an `Operand` in the place of each tensor.

    >>> node = Node("y", "call_function", "matmul", "", ("a", "b"), args=(Ref("a"), Ref("b")),
    ...             input_shapes=((2, 3), (3, 4)))
    >>> Operands(node).shape(1, "other")
    (3, 4)
    """

    def __init__(self, node: Node) -> None:
        refs: list[Ref] = []
        given = (node.args, node.kwargs)
        filled(given, Ref, refs.append)
        by_place = tuple(ref.node for ref in refs) == node.inputs
        known = dict(zip(node.inputs, node.input_shapes, strict=False))
        shapes = iter(node.input_shapes if by_place else [known.get(ref.node) for ref in refs])
        self.args: tuple[Any, ...]
        self.kwargs: Mapping[str, Any]
        self.args, self.kwargs = filled(given, Ref, lambda ref: Operand(ref.node, next(shapes, None)))

    def get(self, index: int, name: str, default: Any = None) -> Any:
        """The argument at a position or of a name."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)

    def shape(self, index: int, name: str) -> Shape | None:
        """Shape of the tensor at a position or of a name; None where there is none."""
        found = self.get(index, name)
        return found.shape if isinstance(found, Operand) else None

    def all(self) -> tuple[Operand, ...]:
        """Every tensor argument, in order, repeated where it is given twice."""
        return tuple(_leaves((self.args, self.kwargs)))

    def rest(self, index: int) -> tuple[Operand, ...]:
        """Tensors from a position on, lists taken apart."""
        return tuple(_leaves(self.args[index:]))


def reads(graph: ModelGraph, node: Node) -> tuple[tuple[Operand, str | None], ...]:
    """The tensor arguments of a node, each with the slot it goes through; None where it has none."""
    operands = Operands(node)
    if node.kind == "call_module":
        return tuple((operand, "data_in") for operand in operands.all())
    slots = {id(o.find(operands.args, operands.kwargs)): o.slot for o in operands_at(graph, node)}
    return tuple((operand, slots.get(id(operand))) for operand in operands.all())


def _leaves(value: Any) -> Iterator[Operand]:
    if isinstance(value, Operand):
        yield value
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    for item in inside:
        yield from _leaves(item)
