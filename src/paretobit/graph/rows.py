"""The graph of several rows beside that of one: what one row costs, and what depends on how many there are."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from paretobit.errors import BadInput
from paretobit.graph.model_graph import ModelGraph, Node, Shape, without_rows
from paretobit.graph.operations import row_of

Run = Callable[[Any], ModelGraph]
_LOOKED_AT = 64
_MOST_NAMED = 4


def two_rows(x: Tensor) -> Tensor:
    """The first row and the next that differs from it; a single row twice."""
    different = (x[:_LOOKED_AT] != x[:1]).unsqueeze(1).flatten(1).any(1).nonzero().flatten().tolist()
    return x[[0, different[0] if different else min(1, len(x) - 1)]]


def repeated(example: Any) -> Any:
    """An example of one row with that row twice; None where it is none of one row."""
    arguments = _arguments(example)
    leaves = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
    if not leaves or any(leaf.shape[:1] != (1,) for leaf in leaves):
        return None
    return _picked(arguments, 1, [0, 0])


def beside_one_row(graph: ModelGraph, example: Any, run: Run) -> ModelGraph:
    """A graph whose nodes know their shapes in a run of one row, with notices of what depends on their number.

    Where a run of one row calls something else, or fails, they are inferred from a run of twice the rows.

    Args:
        graph: Of the example.
        example: Rows first.
        run: From an example to its graph.
    """
    rows = graph.batch
    if not rows or rows == 1:
        return graph
    arguments = _arguments(example)

    def tried(places: Sequence[int]) -> ModelGraph | str:
        try:
            with torch.random.fork_rng(devices=[]):
                found = run(_picked(arguments, rows, places))
        except BadInput as error:
            return str(error.__cause__ or error.problem)
        return found if found.batch == len(places) else "its rows do not show"

    one, said = tried([0]), list[str]()
    if isinstance(one, str):
        said.append(f"the model does not run on one row: {one}")
    elif not alike(graph, one):
        same = tried([0] * rows)  # other rows may call other operations
        said += _difference(graph, one, rows) if isinstance(same, str) or not alike(same, one) else []
    elif _proportional(graph, one):
        return _with_rows(graph, map(_of_one, graph, one), ())
    many = tried([*range(rows)] * 2)
    if isinstance(many, str):
        return _with_rows(graph, _by_flow(graph, rows), said)
    if isinstance(one, ModelGraph):
        if alike(graph, one):
            return _with_rows(graph, map(_of_one, graph, one), _uneven(graph, many))
        if _besides(many, graph) and not _besides(graph, many) and not _besides(one, graph):
            anew = f"every row calls {_named(_besides(graph, one))} anew: the graph is that of one row"
            return replace(one, notices=(*graph.notices, anew))
    said += [*_uneven(graph, many), *_rounded(graph, many)]
    return _with_rows(graph, _from_two(graph, many, rows), said)


def of_later_calls(first: ModelGraph, later: ModelGraph) -> ModelGraph:
    """The graph of later calls, with a notice of what only the first one does."""
    only = f"only its first call calls {_named(_besides(first, later))}: the graph is that of later ones"
    return replace(later, notices=(*later.notices, only))


def _from_two(graph: ModelGraph, many: ModelGraph, rows: int) -> Iterator[Node]:
    """Nodes with their shapes for one row as a run of twice the rows lets infer."""
    if not alike(graph, many):
        return _by_flow(graph, rows)
    return (_inferred(node, other, rows) for node, other in zip(graph, many, strict=True))


def _with_rows(graph: ModelGraph, nodes: Iterable[Node], notices: Iterable[str]) -> ModelGraph:
    return replace(graph, nodes=tuple(nodes), notices=(*graph.notices, *notices))


def _arguments(example: Any) -> Any:
    if isinstance(example, Tensor):
        return example
    return dict(example) if isinstance(example, Mapping) else tuple(example)


def _picked(arguments: Any, rows: int, places: Sequence[int]) -> Any:
    """Arguments with these rows of every tensor that has so many."""

    def pick(leaf: Any) -> Any:
        return leaf[list(places)] if isinstance(leaf, Tensor) and leaf.shape[:1] == (rows,) else leaf

    return tree_map(pick, arguments)


def alike(left: ModelGraph, right: ModelGraph) -> bool:
    """Whether two runs call the same."""
    ours, theirs = ([(n.kind, n.op, n.owner, len(n.output_shapes)) for n in graph] for graph in (left, right))
    return ours == theirs


def _of_one(node: Node, one: Node) -> Node:
    return replace(node, row_inputs=one.input_shapes, row_outputs=one.output_shapes, counted_macs=one.counted_macs)


def _sizes(node: Node) -> list[int]:
    return [*map(math.prod, node.output_shapes), *([] if node.counted_macs is None else [node.counted_macs])]


def _proportional(graph: ModelGraph, one: ModelGraph) -> bool:
    """Whether all that depends on the rows is so many times that of one, and the rest the same."""
    moving = depending(graph)
    for node, single in zip(graph, one, strict=True):
        found, each = _sizes(node), _sizes(single)
        same = found == each and node.name not in moving
        if node.is_call and not same and found != [size * (graph.batch or 1) for size in each]:
            return False
    return True


def depending(graph: ModelGraph) -> set[str]:
    """Nodes whose results depend on the rows of the example, by the flow of tensors from its inputs."""
    found: set[str] = set()
    for node in graph:
        given = node.kind == "placeholder" and any(shape[:1] == (graph.batch,) for shape in node.output_shapes)
        if given or (node.output_shapes and not found.isdisjoint(node.inputs)):
            found.add(node.name)
    return found


def _uneven(graph: ModelGraph, many: ModelGraph) -> list[str]:
    """A notice where costs are neither proportional to the number of rows nor independent of it."""
    if not alike(graph, many):
        return _difference(many, graph, graph.batch)
    uneven = [
        node for node, other in zip(graph, many, strict=True)
        if node.is_call and any(b not in (a, 2 * a) for a, b in zip(_sizes(node), _sizes(other), strict=True))
    ]  # fmt: skip
    return [f"costs per sample depend on the number of rows: {_named(uneven)}"] if uneven else []


def _difference(more: ModelGraph, fewer: ModelGraph, kept: int | None) -> list[str]:
    """What one number of rows calls and the other does not; the graph that is kept is of `kept` rows."""
    number = "one row" if fewer.batch == 1 else f"{fewer.batch} rows"
    besides = [*_besides(more, fewer), *_besides(fewer, more)]
    if besides and all(row_of(node.op).moves_only for node in besides):
        return []  # what is moved otherwise computes and costs the same
    said = []
    for graph, other, words in ((more, fewer, "does not call"), (fewer, more, "calls besides")):
        if only := _besides(graph, other):
            said.append(f"{words} {_named(only)}")
    what = " and ".join(said) or "calls the same in another order"
    return [f"with {number} this model {what}, unlike with {more.batch}: the graph is that of {kept} rows"]


def _besides(graph: ModelGraph, other: ModelGraph) -> list[Node]:
    """Calls of one graph that the other lacks; those that compute where some do."""
    known = {(node.kind, node.op, node.site) for node in other}
    only = [node for node in graph if node.is_call and (node.kind, node.op, node.site) not in known]
    return [node for node in only if not row_of(node.op).moves_only] or only


def _named(nodes: Sequence[Node]) -> str:
    names = list(dict.fromkeys(node.site or node.name for node in nodes))
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _inferred(node: Node, many: Node, rows: int) -> Node:
    """Shapes of one row from those of `rows` and of twice as many: an axis grows by the same for each."""

    def at_one(few: int, twice: int) -> int:
        return max(0, math.floor(few - (twice - few) * (rows - 1) / rows + 0.5))

    def shape(few: Shape | None, twice: Shape | None) -> Shape | None:
        if few is None or twice is None or len(few) != len(twice):
            return few and without_rows(few, rows)
        return tuple(map(at_one, few, twice))

    inputs = tuple(map(shape, node.input_shapes, many.input_shapes))
    outputs = tuple(shape(a, b) or () for a, b in zip(node.output_shapes, many.output_shapes, strict=True))
    counts = node.counted_macs, many.counted_macs
    macs = None if None in counts else at_one(*counts)  # type: ignore[arg-type]
    return replace(node, row_inputs=inputs, row_outputs=outputs, counted_macs=macs)


def _axes(node: Node) -> list[int]:
    return [size for shape in node.output_shapes for size in shape]


def _rounded(graph: ModelGraph, many: ModelGraph) -> list[str]:
    """A notice where the data decides how many rows an operation takes, so that one row takes a part of one."""
    if not alike(graph, many):
        return []
    broken = [
        node for node, other in zip(graph, many, strict=True)
        if node.is_call and any((b - a) % (graph.batch or 1) for a, b in zip(_axes(node), _axes(other), strict=False))
    ]  # fmt: skip
    return [f"which rows they take depends on the data, costs are rounded to whole rows: {_named(broken)}"] * bool(
        broken
    )


def _by_flow(graph: ModelGraph, rows: int) -> Iterator[Node]:
    """Nodes where no second run tells: what no input reaches is the same whatever the number of rows."""
    moving = depending(graph)

    def shape(name: str, found: Shape) -> Shape:
        return without_rows(found, rows) if name in moving else found

    for node in graph:
        inputs = tuple(s and shape(name, s) for name, s in zip(node.inputs, node.input_shapes, strict=False))
        outputs = tuple(shape(node.name, s) for s in node.output_shapes)
        macs = node.counted_macs and node.counted_macs // (rows if node.name in moving else 1)
        yield replace(node, row_inputs=inputs, row_outputs=outputs, counted_macs=macs)
