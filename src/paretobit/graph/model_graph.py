"""The model as a list of nodes: leaf-module calls and functional operations, with shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
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
        row_inputs: `input_shapes` in a run of one row; empty where no such run is known.
        row_outputs: `output_shapes` likewise.
        counted_macs: Multiply-accumulates of one row by torch's own counter; None where it was not asked,
            or counts none.
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
    row_inputs: tuple[Shape | None, ...] = ()
    row_outputs: tuple[Shape, ...] = ()
    counted_macs: int | None = None

    @cached_property
    def of_one_row(self) -> Node:
        """The node with the shapes of a run of one row: what a sample costs is read from them."""
        if self.batch is None or self.batch == 1:
            return self
        rows = self.batch
        inputs = self.row_inputs or tuple(shape and without_rows(shape, rows) for shape in self.input_shapes)
        outputs = self.row_outputs or tuple(without_rows(shape, rows) for shape in self.output_shapes)
        ends = [(self.input_shape, inputs), (self.output_shape, outputs or inputs)]
        first, result = (own and (found[0] if found else without_rows(own, rows)) for own, found in ends)
        return replace(
            self, batch=1, input_shape=first, output_shape=result, input_shapes=inputs, output_shapes=outputs
        )

    @property
    def is_call(self) -> bool:
        """Whether it is the call of a layer, function or method."""
        return self.kind in ("call_module", "call_function", "call_method")

    @property
    def input_elements(self) -> int | None:
        """Elements of its first tensor argument for one sample; None where unknown."""
        shape = self.of_one_row.input_shape
        return None if shape is None else math.prod(shape)

    @property
    def output_elements(self) -> int | None:
        """Elements of its first result tensor for one sample; None where unknown."""
        shape = self.of_one_row.output_shape
        return None if shape is None else math.prod(shape)


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
        example: Positional and keyword arguments it ran on, for trial runs; None where nothing ran.
        notices: What depends on the number of rows, in words.
    """

    model: nn.Module
    nodes: tuple[Node, ...]
    method: Literal["fx", "run", "modules"]
    untraced: str | None = None
    batch: int | None = None
    conditional: Mapping[str, str] = field(default_factory=dict, hash=False)
    example: tuple[tuple[Any, ...], dict[str, Any]] | None = field(default=None, compare=False, repr=False)
    notices: tuple[str, ...] = ()

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


def without_rows(shape: Shape, rows: int) -> Shape:
    """The shape of one row where no run of one row tells.

    Rows come first, or stand elsewhere, or are merged with another axis, or are absent.
    """
    places = [0] if shape and not shape[0] % rows else [i for i, n in enumerate(shape) if n == rows and shape[0] != 1]
    return tuple(n // rows if i in places[:1] else n for i, n in enumerate(shape))
