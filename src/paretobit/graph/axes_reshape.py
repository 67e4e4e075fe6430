"""How axes pass through `view`, `flatten` and the like: merged, split, or left alone."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from paretobit.graph.axes import Axis, fixed, repeated, size
from paretobit.graph.axes_walk import COMPUTED, Axes, Computed, NotUnderstood, Walk, shape_of
from paretobit.graph.model_graph import Node

_MOST_TILES = 4096


def reshape(walk: Walk, node: Node, value: Axes, asked: Sequence[Any]) -> Axes:
    """The axes of a tensor that is seen in another shape.

    Args:
        walk: What is known so far.
        node: The operation; its output shape is the new shape.
        value: The tensor.
        asked: The sizes as they were asked for: numbers, -1, or computed while the model runs.
    """
    shape = shape_of(node)
    wanted = list(asked) if len(asked) == len(shape) else [COMPUTED] * len(shape)
    dims: list[Axis] = []
    for before, after in _blocks(value.sizes, shape):
        axes = [value.dims[k] for k in before]
        sizes, texts = [shape[k] for k in after], [wanted[k] for k in after]
        dims += _regroup(walk, node, axes, sizes, texts)
    return Axes(tuple(dims))


def _blocks(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The shortest runs of dimensions, before and after, that hold the same number of elements."""
    i = j = 0
    while i < len(before) or j < len(after):
        ins = [i] if i < len(before) else []
        outs = [j] if j < len(after) else []
        i, j = i + len(ins), j + len(outs)
        while (a := math.prod(before[k] for k in ins)) != (b := math.prod(after[k] for k in outs)):
            if a < b and i < len(before):
                ins.append(i)
                i += 1
            elif j < len(after):
                outs.append(j)
                j += 1
            else:
                raise NotUnderstood("the shapes do not line up")
        yield ins, outs


def _regroup(walk: Walk, node: Node, axes: list[Axis], sizes: list[int], asked: list[Any]) -> list[Axis]:
    merged = merge(walk, node, axes)
    if len([n for n in sizes if n != 1]) <= 1:
        wide = next((k for k, n in enumerate(sizes) if n != 1), 0)
        check_literal(walk, node, merged, asked[wide] if asked else -1)
        return [merged if k == wide else fixed(1) for k in range(len(sizes))]
    if walk.is_fixed(merged):
        return [fixed(n, walk.variables.why_fixed(merged)) for n in sizes]
    return _split(walk, node, merged, sizes, asked)


def check_literal(walk: Walk, node: Node, axis: Axis, asked: Any) -> None:
    """A size that stands in the model's code cannot follow."""
    if not walk.follows(node, [(asked, axis)]):
        walk.variables.freeze(axis, f"{node.name} asks for the fixed size {asked}")


def merge(walk: Walk, node: Node, axes: Sequence[Axis]) -> Axis:
    """Several axes seen as one; the last varies fastest."""
    result: Axis = fixed(1)
    for axis in axes:
        outer, inner = size(result), size(axis)
        if inner == 1 or outer == 1:
            thin, result = (axis, result) if inner == 1 else (result, axis)
            walk.variables.freeze(thin, f"{node.name} merges it with another axis")
        elif walk.is_fixed(result) and walk.is_fixed(axis):
            result = fixed(outer * inner, walk.variables.why_fixed(axis))
        elif walk.is_fixed(axis):
            result = repeated(result, inner)
        elif walk.is_fixed(result) and outer <= _MOST_TILES:
            result = axis * outer
        else:
            raise NotUnderstood("two axes that may change are merged")
    return result


def _split(walk: Walk, node: Node, axis: Axis, sizes: list[int], asked: list[Any]) -> list[Axis]:
    """One axis seen as several, of which the one whose size is not given follows the width."""
    follows = [k for k, text in enumerate(asked) if text == -1 and sizes[k] > 1] or [
        k for k, text in enumerate(asked) if isinstance(text, Computed) and sizes[k] > 1
    ]
    if len(follows) == 1:
        return _split_at(walk, node, axis, sizes, follows[0])
    numbers = [k for k, text in enumerate(asked) if isinstance(text, int) and sizes[k] > 1]
    ways = {f"{name} {k}": (k, name) for k in numbers for name in walk.named(node, sizes[k])}
    if not walk.literal_sizes_are_fixed:  # a number may be one that the model computes
        ways |= {f"by itself {k}": (k, "") for k in numbers}
    way = walk.chosen(node, ways)
    if way is None:
        raise NotUnderstood(f"it asks for the sizes {tuple(sizes)}, of which none follows the width")
    k, name = way
    dims = _split_at(walk, node, axis, sizes, k)
    if name:
        walk.rescale(node, name, dims[k])
    return dims


def _split_at(walk: Walk, node: Node, axis: Axis, sizes: list[int], k: int) -> list[Axis]:
    """One axis seen as several, of which one follows the width."""
    outer, inner = math.prod(sizes[:k]), math.prod(sizes[k + 1 :])
    tile = walk.variables.tiles(axis, outer, node.name) if outer <= _MOST_TILES else None
    part = None if tile is None else walk.variables.over(tile, inner)
    if part is None:
        raise NotUnderstood(f"it splits channels into {tuple(sizes)} across their boundaries")
    reason = f"{node.name} asks for this size"
    return [part if i == k else fixed(n, reason) for i, n in enumerate(sizes)]
