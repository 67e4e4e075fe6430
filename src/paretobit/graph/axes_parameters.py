"""Rules for functions that take parameters, and for products: which axes they sum over, and which they make."""

from collections.abc import Mapping
from typing import Any

from paretobit.graph.axes import Axis, fixed, repeated, size
from paretobit.graph.axes_walk import Axes, Layer, NotUnderstood, Rule, Walk, shape_of, tensors_in
from paretobit.graph.model_graph import Node

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def given(args: Args, kwargs: Kwargs, place: int, name: str, default: Any = None) -> Any:
    """An argument by place or by name."""
    return args[place] if len(args) > place else kwargs.get(name, default)


def matmul(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """`(…, M, K) × (…, K, N)`; a parameter on the right makes its columns."""
    a, b = args[0], given(args, kwargs, 1, "other")
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
    weight, bias = given(args, kwargs, 1, "weight"), given(args, kwargs, 2, "bias")
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
    q, k, v = args[0], given(args, kwargs, 1, "key"), given(args, kwargs, 2, "value")
    mask = given(args, kwargs, 3, "attn_mask")
    if kwargs.get("enable_gqa") and size(k.dims[-3]) != size(q.dims[-3]):
        times = size(q.dims[-3]) // size(k.dims[-3])
        k, v = (x.replaced(-3, repeated(x.dims[-3], times)) for x in (k, v))
    walk.must_be_fixed((q.dims[-2], k.dims[-2], v.dims[-2]), "its rows may change")
    walk.variables.join(q.dims[-1], k.dims[-1], node.name)
    walk.obstacle(node, (q.dims[-1],), "nothing")
    shared = walk.broadcast([Axes(x.dims[:-2]) for x in (q, k, v)], node)
    if isinstance(mask, Axes):
        walk.broadcast([shared, Axes(mask.dims[:-2])], node)
    return Axes((*shared.dims, q.dims[-2], v.dims[-1]))


def embedding(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """`F.embedding` with a parameter of the model."""
    index, weight = args[0], given(args, kwargs, 1, "weight")
    walk.variables.freeze(weight.dims[0], f"the vocabulary of {node.name}")
    walk.only_copied(weight)
    path = weight.parameter
    walk.layers.setdefault(path, Layer(node.name, path, node.op, None, weight.dims[1]))
    return Axes((*index.dims, weight.dims[1]))


def convolution(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """`F.conv1d` and its kin with parameters of the model, in groups too."""
    x, weight, bias = args[0], given(args, kwargs, 1, "weight"), given(args, kwargs, 2, "bias")
    if not weight.parameter:
        raise NotUnderstood("its weight is computed")
    transposed, places = "transpose" in node.op, len(weight) - 2
    groups = given(args, kwargs, 6, "groups", 1)
    walk.must_be_fixed((*x.dims[-places:], *weight.dims[2:]), "a spatial axis may change")
    takes, (first, second) = x.dims[-places - 1], weight.dims[:2]
    if groups == 1:
        walk.variables.join(takes, first if transposed else second, node.name)
        gives = second if transposed else first
    elif groups == size(takes) == size(first):  # a single channel each
        if not walk.follows(node, [(groups, takes)]):
            raise NotUnderstood(f"it asks for {groups} groups")
        walk.variables.join(takes, first, node.name)
        gives = repeated(first, size(second)) if transposed else first
        walk.must_be_fixed((second,), "its channels in a group may change")
    else:
        raise NotUnderstood(f"it asks for {groups} groups")
    if groups == 1:
        _weight(walk, node, weight, takes=0 if transposed else 1, gives=1 if transposed else 0)
    else:
        walk.only_copied(weight)
        walk.layers.setdefault(weight.parameter, Layer(node.name, weight.parameter, node.op, takes, gives))
    if isinstance(bias, Axes):
        walk.variables.join(bias.dims[0], gives, node.name)
        walk.only_copied(bias)
    return Axes((*x.dims[: -places - 1], gives, *map(fixed, shape_of(node)[-places:])))


def channel_norm(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """`F.batch_norm` and `F.instance_norm`: parameters and statistics of one number a channel."""
    x = args[0]
    _along(walk, node, x.dims[1], tensors_in((args[1:], kwargs)))
    if node.op == "instance_norm":
        walk.must_be_fixed(x.dims[2:], "a spatial axis may change")
    return Axes(x.dims)


def layer_norm(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """`F.layer_norm` and `F.rms_norm`: the shape is given, and an attribute has to follow where it is a number."""
    x, shape = args[0], given(args, kwargs, 1, "normalized_shape")
    lengths = list(shape) if isinstance(shape, list | tuple) else [shape]
    axes = x.dims[len(x) - len(lengths) :]
    if not walk.follows(node, zip(lengths, axes, strict=True)):
        raise NotUnderstood(f"it asks for the fixed shape {shape}")
    for parameter in tensors_in((args[2:], kwargs)):
        for axis, own in zip(axes, parameter.dims, strict=True):
            _along(walk, node, axis, [Axes((own,), parameter.parameter)])
    walk.obstacle(node, axes, "multiples")
    return Axes(x.dims)


def group_norm(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """`F.group_norm`: the channels become equal tiles."""
    x, groups = args[0], given(args, kwargs, 1, "num_groups")
    tile = walk.tiles(x.dims[1], groups, node, f"{groups} groups")
    walk.must_be_fixed(x.dims[2:], "a spatial axis may change")
    _along(walk, node, x.dims[1], tensors_in((args[2:], kwargs)))
    walk.obstacle(node, (tile,), "multiples")
    return Axes(x.dims)


def _along(walk: Walk, node: Node, axis: Axis, parameters: list[Axes]) -> None:
    """Parameters of one number for every element of an axis."""
    for parameter in parameters:
        walk.variables.join(axis, parameter.dims[0], node.name)
        walk.only_copied(parameter)


def einsum(walk: Walk, node: Node, args: Args, kwargs: Kwargs) -> Axes:
    """A letter is one axis; a letter that the result has not is summed over."""
    terms, _, result = args[0].replace(" ", "").partition("->")
    values, terms = tensors_in(args[1:]), terms.split(",")
    if not result or "." in args[0] or any(len(set(t)) != len(t) for t in terms) or len(terms) != len(values):
        raise NotUnderstood(f"it contracts by {args[0]}")
    axes: dict[str, Axis] = {}
    for term, value in zip(terms, values, strict=True):
        for letter, axis in zip(term, value.dims, strict=True):
            axes[letter] = walk.joined(axes[letter], axis, node) if letter in axes else axis
    parameters = [(term, value) for term, value in zip(terms, values, strict=True) if value.parameter]
    gone = [letter for letter in axes if letter not in result]
    for term, value in parameters:
        summed = {k for k, letter in enumerate(term) if letter in gone}
        walk.use(value.parameter, value.dims, node, summed)
        made = [value.dims[k] for k, letter in enumerate(term) if sum(letter in other for other in terms) == 1]
        for k, axis in enumerate(made):
            key = f"{value.parameter} {k}" if k else value.parameter
            taken = value.dims[min(summed)] if summed else None
            walk.layers.setdefault(key, Layer(node.name, value.parameter, node.op, taken, axis))
    divided = parameters[0][0] if len(parameters) == 1 else ""
    walk.obstacle(node, [axes[letter] for letter in gone if letter not in divided], "nothing")
    return Axes(tuple(axes[letter] for letter in result))


_RULES = (linear, matmul, attention, embedding, convolution, channel_norm, layer_norm, group_norm, einsum)
RULES: Mapping[str, Rule] = {rule.__name__: rule for rule in _RULES}
"""By the word that a row of the table of operations says."""
