"""Rules for functions and methods: how axes pass through them."""

from collections.abc import Mapping
from typing import Any

from paretobit.graph import axes_parameters
from paretobit.graph.axes import Axis, fixed, repeated, size
from paretobit.graph.axes_layers import shuffle_pixels, spatial_only
from paretobit.graph.axes_parameters import Args, Kwargs, given
from paretobit.graph.axes_reshape import check_literal, reshape
from paretobit.graph.axes_walk import COMPUTED, Axes, Computed, NotUnderstood, Rule, Walk, shape_of, tensors_in
from paretobit.graph.model_graph import Node


def elementwise(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Every element by itself, or with those at its place in other tensors."""
    values = tensors_in((args, kwargs))
    for value in values:
        walk.only_copied(value)
    return walk.broadcast(values, node)


def like(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """The axes of the first tensor."""
    return Axes(args[0].dims)


def _sizes(args: Args) -> list[Any]:
    """Sizes given one by one or as one sequence."""
    if len(args) == 1 and isinstance(args[0], list | tuple):
        return list(args[0])
    return list(args)


def view(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """`view` and `reshape`."""
    return reshape(walk, node, args[0], _sizes(args[1:]) or _sizes(tuple(kwargs.values())))


def flatten(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """`flatten`."""
    return reshape(walk, node, args[0], [COMPUTED] * len(node.output_shape or ()))


def unflatten(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """`unflatten`."""
    x, dim = args[0], given(args, kwargs, 1, "dim") % len(args[0])
    sizes = given(args, kwargs, 2, "sizes")
    return reshape(walk, node, x, [*[-1] * dim, *sizes, *[-1] * (len(x) - dim - 1)])


def transpose(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Two dimensions exchanged."""
    x: Axes = args[0]
    first, second = (given(args, kwargs, 1, "dim0"), given(args, kwargs, 2, "dim1"))
    if node.op in ("t", "T", "mT") and len(x) <= 2:
        return Axes(x.dims[::-1])
    dims = list(x.dims)
    dims[first], dims[second] = dims[second], dims[first]
    return Axes(tuple(dims))


def permute(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Dimensions in another order."""
    order = _sizes(args[1:]) or list(kwargs["dims"])
    return Axes(tuple(args[0].dims[k] for k in order))


def unsqueeze(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """A new dimension of one element."""
    dims, dim = list(args[0].dims), given(args, kwargs, 1, "dim")
    dims.insert(dim if dim >= 0 else dim + len(dims) + 1, fixed(1))
    return Axes(tuple(dims))


def squeeze(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Dimensions of one element left out; a width of one is fixed by it."""
    x, dim = args[0], given(args, kwargs, 1, "dim")
    chosen = range(len(x)) if dim is None else [d % len(x) for d in (dim if isinstance(dim, tuple) else (dim,))]
    gone = [k for k in chosen if size(x.dims[k]) == 1]
    for k in gone:
        walk.variables.freeze(x.dims[k], f"{node.name} leaves the dimension out")
    return Axes(tuple(axis for k, axis in enumerate(x.dims) if k not in gone))


def cat(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Segments of one axis one after the other; the other axes are equal."""
    values, dim = tensors_in(args[0] if args else kwargs["tensors"]), given(args, kwargs, 1, "dim", 0)
    for value in values:
        walk.only_copied(value)
    dim %= len(values[0])
    rest = walk.broadcast([value.replaced(dim, fixed(1)) for value in values], node)
    return rest.replaced(dim, tuple(segment for value in values for segment in value.dims[dim]))


def stack(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Equal tensors along a new dimension."""
    values, dim = tensors_in(args[0] if args else kwargs["tensors"]), given(args, kwargs, 1, "dim", 0)
    dims = list(walk.broadcast(values, node).dims)
    dims.insert(dim % (len(dims) + 1), fixed(len(values)))
    return Axes(tuple(dims))


def chunk(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> list[Axes]:
    """Equal tiles."""
    x, number = args[0], given(args, kwargs, 1, "chunks")
    dim = given(args, kwargs, 2, "dim", 0)
    if not isinstance(number, int) or size(x.dims[dim]) % number:
        raise NotUnderstood("its pieces are not equal")
    return [x.replaced(dim, walk.tiles(x.dims[dim], number, node, "pieces"))] * number


def split(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> list[Axes]:
    """Pieces of given sizes, each of which follows by itself or by an attribute; else they are fixed."""
    x, dim = args[0], given(args, kwargs, 2, "dim", 0)
    named = (value for key, value in kwargs.items() if key.startswith("split_size"))
    sizes = args[1] if len(args) > 1 else next(named, None)
    lengths = [shape[dim] for shape in node.output_shapes]
    asked = [sizes] if not isinstance(sizes, list | tuple) else list(sizes)
    if len(asked) == 1 and len(set(lengths)) == 1:
        pieces = [walk.tiles(x.dims[dim], len(lengths), node, "pieces")] * len(lengths)
    else:
        pieces = walk.variables.cut(x.dims[dim], lengths) or [fixed(n) for n in lengths]
    if not walk.follows(node, zip(asked, pieces, strict=False)):
        walk.must_be_fixed((x.dims[dim],), f"it asks for the sizes {sizes}")
    return [x.replaced(dim, piece) for piece in pieces]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def unbind(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> list[Axes]:
    """One tensor for every element of a dimension."""
    x, dim = args[0], given(args, kwargs, 1, "dim", 0) % len(args[0])
    walk.must_be_fixed((x.dims[dim],), "it takes a width apart")
    return [Axes(tuple(a for k, a in enumerate(x.dims) if k != dim))] * size(x.dims[dim])


def getitem(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Any:
    """An element of several results, or a part of a tensor."""
    x, index = args
    if not isinstance(x, Axes):
        return x[index] if isinstance(x, list | tuple | dict) and not isinstance(index, Computed) else COMPUTED
    items = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(item, Axes) for item in items):
        return _by_tensors(walk, node, x, items)
    if Ellipsis in [i for i in items if not isinstance(i, Axes | Computed)]:
        at = next(k for k, item in enumerate(items) if item is Ellipsis)
        named = sum(item is not None and item is not Ellipsis for item in items)
        items[at : at + 1] = [slice(None)] * (len(x) - named)
    dims: list[Axis] = []
    rest = list(x.dims)
    for item in items:
        if item is None:
            dims.append(fixed(1))
        elif item == slice(None):
            dims.append(rest.pop(0))
        elif isinstance(item, int):
            walk.must_be_fixed((rest.pop(0),), "it picks channels")
        elif isinstance(item, slice):
            dims.append(_part(walk, rest.pop(0), len(dims), node))
        else:
            raise NotUnderstood("it picks elements by a tensor")
    return Axes((*dims, *rest))


def _by_tensors(walk: Walk, node: Node, x: Axes, items: list[Any]) -> Axes:
    """Elements at places given by tensors, or where a mask is true; all other dimensions are whole."""
    mask = len(items) == 1 and len(shape_of(node)) != len(x) - 1 + len(items[0])
    whole = [k for k, item in enumerate(items) if isinstance(item, slice) and item == slice(None)]
    if len(whole) == len(items) - 1 and not mask:  # the same for every element of the dimensions before and after
        at = next(k for k in range(len(items)) if k not in whole)
        walk.must_be_fixed((x.dims[at],), "it picks channels by a tensor")
        new = len(shape_of(node)) - len(x) + 1
        return Axes((*x.dims[:at], *map(fixed, shape_of(node)[at : at + new]), *x.dims[at + 1 :]))
    if not all(isinstance(item, Axes) for item in items):
        walk.must_be_fixed(x.dims, "it picks elements by a tensor")
        return walk.fixed_axes(shape_of(node), f"made by {node.name}")
    taken = len(items[0]) if mask else len(items)
    walk.must_be_fixed(x.dims[:taken], "it picks channels by a tensor")
    kept = x.dims[taken:]
    return Axes((*map(fixed, shape_of(node)[: len(shape_of(node)) - len(kept)]), *kept))


def _part(walk: Walk, axis: Axis, place: int, node: Node) -> Axis:
    """A slice of an axis: of a width only the whole."""
    length = shape_of(node)[place]
    if length == size(axis):
        return axis
    walk.must_be_fixed((axis,), "it picks channels")
    return fixed(length)


def reshape_as(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """The shape of another tensor, whose axes stay as they are."""
    found = reshape(walk, node, args[0], [COMPUTED] * len(shape_of(node)))
    return walk.broadcast([found, given(args, kwargs, 1, "other")], node)


def expand(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Dimensions of one element spread, new ones in front."""
    x, shape = args[0], shape_of(node)
    asked = _sizes(tuple(a for a in args[1:] if not isinstance(a, Axes)))
    new = len(shape) - len(x)
    dims: list[Axis] = [fixed(n) for n in shape[:new]]
    for k, axis in enumerate(x.dims, start=new):
        if size(axis) == shape[k]:
            check_literal(walk, node, axis, asked[k] if k < len(asked) else -1)
            dims.append(axis)
        else:
            walk.variables.freeze(axis, f"{node.name} spreads a single channel over others")
            dims.append(fixed(shape[k]))
    return Axes(tuple(dims))


def repeat(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """A whole tensor several times along its dimensions."""
    times = _sizes(args[1:])
    x = args[0]
    if not all(isinstance(n, int) for n in times) or len(times) < len(x):
        walk.must_be_fixed(x.dims, "how often it repeats is computed")
        return walk.fixed_axes(node.output_shape or (), "a fixed size")
    new = len(times) - len(x)
    dims = [axis * n for axis, n in zip(x.dims, times[new:], strict=True)]
    return Axes((*(fixed(n) for n in times[:new]), *dims))


def repeat_interleave(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Every element several times in a row."""
    x: Axes = args[0]
    times, dim = given(args, kwargs, 1, "repeats"), given(args, kwargs, 2, "dim")
    if not isinstance(times, int) or dim is None:
        walk.must_be_fixed(x.dims, "how often it repeats is computed")
        return walk.fixed_axes(shape_of(node), f"made by {node.name}")
    return x.replaced(dim, repeated(x.dims[dim], times))


def mixed(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Elements along given dimensions in another order, or summed up from the first on."""
    place = 2 if node.op == "roll" else 1
    named = given(args, kwargs, place, "dims", kwargs.get("dim"))
    chosen = _listed(named) if place == 2 or node.op.startswith("cum") else _sizes(args[1:]) or _listed(named)
    walk.must_be_fixed(args[0].dims if None in chosen else [args[0].dims[k] for k in chosen], "it mixes channels")
    return Axes(args[0].dims)


def picked(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Any:
    """Some elements along one dimension: the largest ones, those of a window, those at given places."""
    place = {"topk": 2, "kthvalue": 2}.get(node.op, 1)
    x, dim = args[0], given(args, kwargs, place, "dim", kwargs.get("dimension", -1))
    walk.must_be_fixed((x.dims[dim],), "it picks channels")
    rest = [axis for k, axis in enumerate(x.dims) if k != dim % len(x)]
    shapes = node.output_shapes or (shape_of(node),)
    several: list[Axes] = []
    for shape in shapes:
        dims = list(rest)
        if len(shape) >= len(x):
            dims.insert(dim % len(x), fixed(shape[dim % len(x)]))
        several.append(Axes((*dims, *map(fixed, shape[len(dims) :]))))
    return several if node.op in ("topk", "sort", "kthvalue", "tensor_split") else several[0]


def gathered(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """The element at a given place along one dimension, for every element of the others."""
    x, dim, index = args[0], given(args, kwargs, 1, "dim"), given(args, kwargs, 2, "index")
    walk.must_be_fixed((x.dims[dim], index.dims[dim]), "it picks channels")
    for k, (axis, place) in enumerate(zip(x.dims, index.dims, strict=True)):
        if k != dim % len(x) and size(axis) == size(place):
            walk.variables.join(axis, place, node.name)
        elif k != dim % len(x):
            walk.must_be_fixed((axis, place), "it picks channels")
    return Axes(index.dims)


def best(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Any:
    """The largest or smallest along a dimension, and where; or of two tensors, element by element."""
    x, dim = args[0], given(args, kwargs, 1, "dim")
    if isinstance(dim, Axes):
        return elementwise(walk, node, args, kwargs)
    if dim is None:
        return Axes(())
    kept = given(args, kwargs, 2, "keepdim", False)
    walk.obstacle(node, (x.dims[dim],), "nothing")
    dims = [fixed(1) if k == dim % len(x) else a for k, a in enumerate(x.dims) if kept or k != dim % len(x)]
    return [Axes(tuple(dims))] * len(node.output_shapes or (0, 0))


def normalize(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """`F.normalize`: divided by the norm along dimensions."""
    dims = _listed(given(args, kwargs, 2, "dim", 1))
    walk.obstacle(node, [args[0].dims[k] for k in dims], "nothing")
    return Axes(args[0].dims)


def pad(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Fixed elements before and after, from the last dimension on."""
    x, amounts = args[0], given(args, kwargs, 1, "pad")
    if given(args, kwargs, 2, "mode", "constant") != "constant":
        return spatial_only(walk, node, x)
    dims = list(x.dims)
    for k, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True), start=1):
        if not isinstance(before, int) or not isinstance(after, int) or min(before, after) < 0:
            raise NotUnderstood("how much it pads is computed")
        sides = [fixed(n, f"{node.name} pads with zeros") if n else () for n in (before, after)]
        dims[-k] = (*sides[0], *dims[-k], *sides[1])
    return Axes(tuple(dims))


def reduce(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """A mean, sum or extreme over dimensions."""
    norm = "norm" in node.op  # its exponent comes first
    x, dim = args[0], given(args, kwargs, 1 + norm, "dim")
    keep = given(args, kwargs, 2 + norm, "keepdim", False)
    listed = _listed(dim)
    chosen = list(range(len(x))) if dim is None else [d % len(x) for d in listed]
    gone = [x.dims[k] for k in chosen]
    if node.op not in ("amax", "amin"):
        walk.obstacle(node, gone, "multiples" if node.op == "mean" else "nothing")
    dims = [fixed(1) if k in chosen else axis for k, axis in enumerate(x.dims) if keep or k not in chosen]
    return Axes(tuple(dims))


def softmax(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """A sum over one dimension."""
    x, dim = args[0], given(args, kwargs, 1, "dim", -1)
    walk.obstacle(node, (x.dims[dim if dim is not None else -1],), "nothing")
    return Axes(x.dims)


def spatial(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Pooling and resampling of the spatial dimensions."""
    return spatial_only(walk, node, args[0])


def pixel_shuffle(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Blocks of channels become pixels."""
    return shuffle_pixels(walk, node, args[0], given(args, kwargs, 1, "upscale_factor"))


_VIEWS = (view, reshape_as, flatten, unflatten, transpose, permute, unsqueeze, squeeze, expand)
_PARTS = (chunk, split, unbind, getitem)
_COPIES = (like, cat, stack, repeat, repeat_interleave, pad, pixel_shuffle, mixed, picked, gathered)
_COMPUTE = (elementwise, reduce, best, softmax, normalize, spatial)
RULES: Mapping[str, Rule] = {
    **{rule.__name__: rule for rule in (*_VIEWS, *_PARTS, *_COPIES, *_COMPUTE)},
    **axes_parameters.RULES,
}
"""By the word that a row of the table of operations says."""
