"""Rules for functions and methods: how axes pass through them."""

from collections.abc import Mapping
from typing import Any

from paretobit.graph.axes import Axis, fixed, size
from paretobit.graph.axes_layers import shuffle_pixels, spatial_only
from paretobit.graph.axes_reshape import check_literal, reshape
from paretobit.graph.axes_walk import COMPUTED, Axes, Computed, Layer, NotUnderstood, Rule, Walk, shape_of, tensors_in
from paretobit.graph.model_graph import Node

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def _given(args: Args, kwargs: Kwargs, place: int, name: str, default: Any = None) -> Any:
    """An argument by place or by name."""
    return args[place] if len(args) > place else kwargs.get(name, default)


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
    x, dim = args[0], _given(args, kwargs, 1, "dim") % len(args[0])
    sizes = _given(args, kwargs, 2, "sizes")
    return reshape(walk, node, x, [*[-1] * dim, *sizes, *[-1] * (len(x) - dim - 1)])


def transpose(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Two dimensions exchanged."""
    x: Axes = args[0]
    first, second = (_given(args, kwargs, 1, "dim0"), _given(args, kwargs, 2, "dim1"))
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
    dims, dim = list(args[0].dims), _given(args, kwargs, 1, "dim")
    dims.insert(dim if dim >= 0 else dim + len(dims) + 1, fixed(1))
    return Axes(tuple(dims))


def squeeze(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Dimensions of one element left out; a width of one is fixed by it."""
    x, dim = args[0], _given(args, kwargs, 1, "dim")
    chosen = range(len(x)) if dim is None else [d % len(x) for d in (dim if isinstance(dim, tuple) else (dim,))]
    gone = [k for k in chosen if size(x.dims[k]) == 1]
    for k in gone:
        walk.variables.freeze(x.dims[k], f"{node.name} leaves the dimension out")
    return Axes(tuple(axis for k, axis in enumerate(x.dims) if k not in gone))


def cat(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Segments of one axis one after the other; the other axes are equal."""
    values, dim = tensors_in(args[0] if args else kwargs["tensors"]), _given(args, kwargs, 1, "dim", 0)
    for value in values:
        walk.only_copied(value)
    dim %= len(values[0])
    rest = walk.broadcast([value.replaced(dim, fixed(1)) for value in values], node)
    return rest.replaced(dim, tuple(segment for value in values for segment in value.dims[dim]))


def stack(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Equal tensors along a new dimension."""
    values, dim = tensors_in(args[0] if args else kwargs["tensors"]), _given(args, kwargs, 1, "dim", 0)
    dims = list(walk.broadcast(values, node).dims)
    dims.insert(dim % (len(dims) + 1), fixed(len(values)))
    return Axes(tuple(dims))


def chunk(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> list[Axes]:
    """Equal tiles."""
    x, number = args[0], _given(args, kwargs, 1, "chunks")
    dim = _given(args, kwargs, 2, "dim", 0)
    if not isinstance(number, int) or size(x.dims[dim]) % number:
        raise NotUnderstood("its pieces are not equal")
    return [x.replaced(dim, walk.tiles(x.dims[dim], number, node, "pieces"))] * number


def split(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> list[Axes]:
    """Pieces of given sizes: only fixed axes have them."""
    x, dim = args[0], _given(args, kwargs, 2, "dim", 0)
    named = (value for key, value in kwargs.items() if key.startswith("split_size"))
    sizes = args[1] if len(args) > 1 else next(named, None)
    asked = "of its pieces" if isinstance(sizes, Computed) else str(sizes)
    walk.must_be_fixed((x.dims[dim],), f"it asks for the sizes {asked}")
    total = size(x.dims[dim])
    if isinstance(sizes, int):
        sizes = [min(sizes, total - start) for start in range(0, total, sizes)]
    if not isinstance(sizes, list | tuple) or not all(isinstance(n, int) for n in sizes):
        raise NotUnderstood("its sizes are computed")
    return [x.replaced(dim, fixed(n)) for n in sizes]


def unbind(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> list[Axes]:
    """One tensor for every element of a dimension."""
    x, dim = args[0], _given(args, kwargs, 1, "dim", 0) % len(args[0])
    walk.must_be_fixed((x.dims[dim],), "it takes a width apart")
    return [Axes(tuple(a for k, a in enumerate(x.dims) if k != dim))] * size(x.dims[dim])


def getitem(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Any:
    """An element of several results, or a part of a tensor."""
    x, index = args
    if not isinstance(x, Axes):
        return x[index] if isinstance(x, list | tuple | dict) and not isinstance(index, Computed) else COMPUTED
    items = list(index) if isinstance(index, tuple) else [index]
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


def _part(walk: Walk, axis: Axis, place: int, node: Node) -> Axis:
    """A slice of an axis: of a width only the whole."""
    length = shape_of(node)[place]
    if length == size(axis):
        return axis
    walk.must_be_fixed((axis,), "it picks channels")
    return fixed(length)


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


def pad(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Fixed elements before and after, from the last dimension on."""
    x, amounts = args[0], _given(args, kwargs, 1, "pad")
    if _given(args, kwargs, 2, "mode", "constant") != "constant":
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
    x, dim = args[0], _given(args, kwargs, 1, "dim")
    keep = _given(args, kwargs, 2, "keepdim", False)
    listed = dim if isinstance(dim, list | tuple) else (dim,)
    chosen = list(range(len(x))) if dim is None else [d % len(x) for d in listed]
    gone = [x.dims[k] for k in chosen]
    if node.op not in ("amax", "amin"):
        walk.obstacle(node, gone, "nothing" if node.op == "sum" else "multiples")
    dims = [fixed(1) if k in chosen else axis for k, axis in enumerate(x.dims) if keep or k not in chosen]
    return Axes(tuple(dims))


def softmax(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """A sum over one dimension."""
    x, dim = args[0], _given(args, kwargs, 1, "dim", -1)
    walk.obstacle(node, (x.dims[dim if dim is not None else -1],), "nothing")
    return Axes(x.dims)


def matmul(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """`(…, M, K) × (…, K, N)`; a parameter on the right makes its columns."""
    a, b = args[0], _given(args, kwargs, 1, "other")
    if len(a) < 2 or len(b) < 2:
        raise NotUnderstood("a product with a vector")
    walk.variables.join(a.dims[-1], b.dims[-2], node.name)
    if b.parameter:
        _weight(walk, node, b, takes=len(b) - 2, gives=len(b) - 1)
    else:
        walk.obstacle(node, (a.dims[-1],), "nothing")
    walk.only_copied(a)
    shared = [Axes(v.dims[:-2]) for v in (a, b)]
    return Axes((*walk.broadcast(shared, node).dims, a.dims[-2], b.dims[-1]))


def _weight(walk: Walk, node: Node, weight: Axes, takes: int, gives: int) -> None:
    """A parameter that works as the weight of a linear layer."""
    walk.use(weight.parameter, weight.dims, node, {takes})
    path = weight.parameter
    walk.layers.setdefault(path, Layer(node.name, path, node.op, weight.dims[takes], weight.dims[gives]))


def linear(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """`F.linear` with parameters of the model."""
    x: Axes = args[0]
    weight, bias = _given(args, kwargs, 1, "weight"), _given(args, kwargs, 2, "bias")
    if not weight.parameter:
        raise NotUnderstood("its weight is computed")
    walk.variables.join(x.dims[-1], weight.dims[1], node.name)
    _weight(walk, node, weight, takes=1, gives=0)
    if isinstance(bias, Axes):
        walk.variables.join(bias.dims[0], weight.dims[0], node.name)
        walk.only_copied(bias)
    return x.replaced(-1, weight.dims[0])


def attention(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """`scaled_dot_product_attention`: `(…, heads, rows, channels)` of queries, keys and values."""
    q, k, v = args[0], _given(args, kwargs, 1, "key"), _given(args, kwargs, 2, "value")
    mask = _given(args, kwargs, 3, "attn_mask")
    if kwargs.get("enable_gqa"):
        raise NotUnderstood("queries share keys")
    walk.must_be_fixed((q.dims[-2], k.dims[-2], v.dims[-2]), "its rows may change")
    walk.variables.join(q.dims[-1], k.dims[-1], node.name)
    walk.obstacle(node, (q.dims[-1],), "nothing")
    shared = walk.broadcast([Axes(x.dims[:-2]) for x in (q, k, v)], node)
    if isinstance(mask, Axes):
        walk.broadcast([shared, Axes(mask.dims[:-2])], node)
    return Axes((*shared.dims, q.dims[-2], v.dims[-1]))


def spatial(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Pooling and resampling of the spatial dimensions."""
    return spatial_only(walk, node, args[0])


def pixel_shuffle(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """Blocks of channels become pixels."""
    return shuffle_pixels(walk, node, args[0], _given(args, kwargs, 1, "upscale_factor"))


def embedding(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """`F.embedding` with a parameter of the model."""
    index, weight = args[0], _given(args, kwargs, 1, "weight")
    walk.must_be_fixed((weight.dims[0],), "its rows may change")
    walk.only_copied(weight)
    return Axes((*index.dims, weight.dims[1]))


_VIEWS = (view, flatten, unflatten, transpose, permute, unsqueeze, squeeze, expand)
_PARTS = (chunk, split, unbind, getitem)
_COPIES = (like, cat, stack, repeat, pad, pixel_shuffle, embedding)
_COMPUTE = (elementwise, reduce, softmax, spatial, matmul, linear, attention)
RULES: Mapping[str, Rule] = {rule.__name__: rule for rule in (*_VIEWS, *_PARTS, *_COPIES, *_COMPUTE)}
"""By the word that a row of the table of operations says."""
