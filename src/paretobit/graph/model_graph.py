"""The model as a list of nodes: leaf-module calls and functional operations, with shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn

from paretobit.errors import BadInput
from paretobit.graph.ops import class_name

Kind = Literal["placeholder", "get_attr", "call_module", "call_function", "call_method", "output"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Ref:
    """In the place of a tensor argument: the node whose result it is.

    Attributes:
        node: Its name.
        output: Which of several results, counted; None where the node has one, or where a node that
            picks it follows.
    """

    node: str
    output: int | None = None


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        name: Unique; the owner's path with dots as underscores (`seq_blocks_2`).
        kind: In fx words.
        op: The operation (`linear`, `relu`, `add`, `flatten` …).
        owner: Dotted path of the module that is called, or that calls the function.
        inputs: Names of the nodes whose results it takes.
        input_shape: Shape of its first tensor argument, batch included; None where unknown.
        output_shape: Shape of its first result tensor, batch included; None where unknown.
        batch: Rows of the example the shapes were read from; None where nothing ran.
        args: Positional arguments, a `Ref` in the place of each tensor.
        kwargs: Named arguments, likewise.
        input_shapes: Shapes of all tensor arguments, in the order of `inputs` where nothing repeats.
        output_shapes: Shapes of all result tensors.
        site: Where formats for it are set: the path of the layer, or for a function the caller's
            path and the function, counted (`encoder.attention.matmul_1`); empty where nothing is.
        in_place: Whether it writes its result into its first argument.
        place: Of a function: where in the code it is called, and which of the calls there it is (see
            `paretobit.graph.places`); empty where that is not known.
    """

    name: str
    kind: Kind
    op: str
    owner: str
    inputs: tuple[str, ...] = ()
    input_shape: Shape | None = None
    output_shape: Shape | None = None
    batch: int | None = None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    input_shapes: tuple[Shape | None, ...] = ()
    output_shapes: tuple[Shape, ...] = ()
    site: str = ""
    in_place: bool = False
    place: str = ""

    @property
    def is_call(self) -> bool:
        """Whether it is the call of a layer, function or method."""
        return self.kind in ("call_module", "call_function", "call_method")

    @property
    def input_elements(self) -> int | None:
        """Elements of its first tensor argument for one sample; None where unknown."""
        return _per_sample(self.input_shape, self.batch)

    @property
    def output_elements(self) -> int | None:
        """Elements of its first result tensor for one sample; None where unknown."""
        return _per_sample(self.output_shape, self.batch)


@dataclass(frozen=True)
class ModelGraph:
    """A model and its nodes in order of execution.

    Attributes:
        model: The model the graph describes.
        nodes: In order of execution.
        method: `fx` (all operations), `run` (those of one run) or `modules` (only the list of
            modules: nothing ran).
        untraced: Why the graph has less than `fx` gives; None where it has everything.
        batch: Rows of the example the shapes were read from; None where nothing ran.
        conditional: Site of each function that some runs do not call, and which.
    """

    model: nn.Module
    nodes: tuple[Node, ...]
    method: Literal["fx", "run", "modules"]
    untraced: str | None = None
    batch: int | None = None
    conditional: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise BadInput("no such node", found=name, allowed=[node.name for node in self.nodes])

    def module(self, node: Node) -> nn.Module:
        """The module that a `call_module` node calls."""
        return self.model.get_submodule(node.owner)

    @property
    def layers(self) -> tuple[Node, ...]:
        """The `call_module` nodes, each module once, at its first call."""
        first = {node.owner: node for node in reversed(self.nodes) if node.kind == "call_module"}
        return tuple(node for node in self.nodes if first.get(node.owner) is node)

    def original_type(self, node: Node) -> str:
        """The torch class of a layer, or the node's name where it is no layer."""
        return class_name(self.module(node)) if node.kind == "call_module" else node.name

    def with_model(self, model: nn.Module) -> ModelGraph:
        """The same nodes over a model with the same modules (a transformed copy)."""
        return replace(self, model=model)

    @property
    def places(self) -> dict[str, str]:
        """Site of every function to its place."""
        return {node.site: node.place for node in self.nodes if node.site and node.place}


def filled(value: Any, kind: type, put: Callable[[Any], Any], *, lists: bool = True) -> Any:
    """Arguments with everything of a kind replaced, in lists, tables and slices too.

    Args:
        value: Arguments.
        kind: Of what is replaced.
        put: From that to what stands in its place.
        lists: Whether lists stay lists; else they become tuples.
    """
    if isinstance(value, kind):
        return put(value)
    if isinstance(value, slice):
        return slice(*(filled(part, kind, put, lists=lists) for part in (value.start, value.stop, value.step)))
    if isinstance(value, dict):
        return {key: filled(item, kind, put, lists=lists) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [filled(item, kind, put, lists=lists) for item in value]
        if isinstance(value, list) and lists:
            return items
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


def _per_sample(shape: Shape | None, batch: int | None) -> int | None:
    """Elements of one sample: rows come first, stand elsewhere, are merged with another axis, or are absent."""
    if shape is None or not shape or not batch:
        return None if shape is None else math.prod(shape)
    has_rows = shape[0] % batch == 0 or (shape[0] != 1 and batch in shape)
    return math.prod(shape) // batch if has_rows else math.prod(shape)
