"""Rules for layers: which axis of a parameter is which channel axis."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from paretobit.graph.axes import Axis, fixed, repeated, size
from paretobit.graph.axes_reshape import reshape
from paretobit.graph.axes_walk import COMPUTED, Axes, NotUnderstood, Walk, shape_of
from paretobit.graph.model_graph import Node

LayerRule = Callable[[Walk, Node, Any, Axes], Any]


def linear(walk: Walk, node: Node, module: Any, x: Axes) -> Axes:
    """`nn.Linear`, and the `Conv1D` of transformers, whose weight is transposed."""
    takes = x.dims[-1]
    if isinstance(module, nn.Linear):
        gives = walk.produced(node, module.out_features)
        walk.own(node, weight_summed_1=(gives, takes), bias=(gives,))
        walk.attribute(node, in_features=takes, out_features=gives)
    else:
        gives = walk.produced(node, module.nf)
        walk.own(node, weight_summed_0=(takes, gives), bias=(gives,))
        walk.attribute(node, nx=takes, nf=gives)
    walk.layer(node, takes, gives)
    return x.replaced(-1, gives)


def convolution(walk: Walk, node: Node, module: Any, x: Axes) -> Axes:
    """Convolutions of 1 to 3 dimensions, transposed ones, groups, and depthwise ones."""
    places = len(module.kernel_size)
    walk.must_be_fixed(x.dims[len(x) - places :], "a spatial axis may change")
    takes, kernel = x.dims[-places - 1], tuple(map(fixed, module.kernel_size))
    gives, one_in, one_out = _grouped(walk, node, module, takes)
    if module.transposed:
        walk.own(node, weight_summed_0=(takes, one_out, *kernel), bias=(gives,))
    elif module.groups == module.in_channels > 1:  # a single channel each: nothing is summed
        walk.own(node, weight=(gives, fixed(1), *kernel), bias=(gives,))
    else:
        walk.own(node, weight_summed_1=(gives, one_in, *kernel), bias=(gives,))
    walk.attribute(node, in_channels=takes, out_channels=gives)
    walk.layer(node, takes, gives)
    return Axes((*x.dims[: -places - 1], gives, *map(fixed, shape_of(node)[-places:])))


def _grouped(walk: Walk, node: Node, module: Any, takes: Axis) -> tuple[Axis, Axis, Axis]:
    """Output channels, and the input and output channels of one group.

    A group keeps its share of both: their widths become `groups` equal tiles. Where every channel is
    a group, the number of groups follows the input.
    """
    groups, channels = module.groups, module.out_channels
    if groups == 1:
        gives = walk.produced(node, channels)
        return gives, takes, gives
    if groups == module.in_channels:
        multiplier = channels // groups
        gives = repeated(takes, multiplier)
        walk.attribute(node, groups=takes)
        return gives, fixed(1), fixed(multiplier)
    gives = walk.produced(node, channels)
    one_in, one_out = (walk.tiles(axis, groups, node, f"{groups} groups") for axis in (takes, gives))
    return gives, one_in, one_out


def channel_norm(walk: Walk, node: Node, module: Any, x: Axes) -> Axes:
    """Batch and instance norm: one statistic a channel."""
    channel = 1 if "batch" in node.op else len(x) - int(type(module).__name__[-2]) - 1  # InstanceNorm2d
    axis = (x.dims[channel],)
    walk.own(node, weight=axis, bias=axis, running_mean=axis, running_var=axis)
    walk.attribute(node, num_features=axis[0])
    walk.layer(node, axis[0], None)
    return Axes(x.dims)


def layer_norm(walk: Walk, node: Node, module: Any, x: Axes) -> Axes:
    """Layer and RMS norm: a statistic over the last dimensions."""
    axes = x.dims[len(x) - len(module.normalized_shape) :]
    walk.own(node, weight=axes, bias=axes)
    walk.attribute(node, normalized_shape=axes)
    walk.obstacle(node, axes, "multiples")
    walk.layer(node, axes[-1], None)
    return Axes(x.dims)


def group_norm(walk: Walk, node: Node, module: Any, x: Axes) -> Axes:
    """Group norm: the channels become `num_groups` equal tiles."""
    axis = x.dims[1]
    if module.num_groups == module.num_channels:  # a group each
        tile = fixed(1)
        walk.attribute(node, num_groups=axis)
    else:
        tile = walk.tiles(axis, module.num_groups, node, f"{module.num_groups} groups")
    walk.own(node, weight=(axis,), bias=(axis,))
    walk.attribute(node, num_channels=axis)
    walk.obstacle(node, (tile,), "multiples")
    walk.layer(node, axis, None)
    return Axes(x.dims)


def prelu(walk: Walk, node: Node, module: Any, x: Axes) -> Axes:
    """A slope for all channels, or one a channel."""
    if module.num_parameters > 1:
        axis = x.dims[1]
        walk.own(node, weight=(axis,))
        walk.attribute(node, num_parameters=axis)
        walk.layer(node, axis, None)
    return Axes(x.dims)


def embedding(walk: Walk, node: Node, module: Any, x: Axes) -> Axes:
    """A row of channels for every index."""
    gives = walk.produced(node, module.embedding_dim)
    walk.own(node, weight=(fixed(module.num_embeddings, f"the vocabulary of {node.name}"), gives))
    walk.attribute(node, embedding_dim=gives)
    walk.layer(node, None, gives)
    return Axes((*x.dims, gives))


def elementwise(walk: Walk, node: Node, module: Any, x: Axes) -> Axes:
    """Activations, dropout: every element by itself."""
    return Axes(x.dims)


def softmax(walk: Walk, node: Node, module: Any, x: Axes) -> Axes:
    """A sum over one dimension."""
    dim = module.dim if module.dim is not None else -1
    walk.obstacle(node, (x.dims[dim],), "nothing")
    return Axes(x.dims)


def gated(walk: Walk, node: Node, module: Any, x: Axes) -> Axes:
    """`nn.GLU`: half of the channels gate the other half."""
    return x.replaced(module.dim, walk.tiles(x.dims[module.dim], 2, node, "halves"))


def spatial(walk: Walk, node: Node, module: Any, x: Axes) -> Axes:
    """Pooling, padding and resampling of the spatial dimensions: channels pass."""
    return spatial_only(walk, node, x)


def spatial_only(walk: Walk, node: Node, x: Axes) -> Axes:
    """The same axes; those whose size changed must have been fixed."""
    shape = shape_of(node)
    if len(shape) != len(x):
        raise NotUnderstood("its shape is not known")
    walk.must_be_fixed((a for a, n in zip(x.dims, shape, strict=True) if size(a) != n), "a width is pooled")
    walk.must_be_fixed(x.dims[2:], "a spatial axis may change")
    return Axes(tuple(a if size(a) == n else fixed(n) for a, n in zip(x.dims, shape, strict=True)))


def flatten(walk: Walk, node: Node, module: Any, x: Axes) -> Axes:
    """`nn.Flatten`."""
    return reshape(walk, node, x, [COMPUTED] * len(node.output_shape or ()))


def unflatten(walk: Walk, node: Node, module: Any, x: Axes) -> Axes:
    """`nn.Unflatten`: the sizes stand in the layer."""
    dim = module.dim % len(x)
    asked = [*[-1] * dim, *module.unflattened_size, *[-1] * (len(x) - dim - 1)]
    return reshape(walk, node, x, asked)


def pixel_shuffle(walk: Walk, node: Node, module: Any, x: Axes) -> Axes:
    """Blocks of channels become pixels."""
    return shuffle_pixels(walk, node, x, module.upscale_factor)


def shuffle_pixels(walk: Walk, node: Node, x: Axes, factor: int) -> Axes:
    """`(…, C·r², H, W)` to `(…, C, H·r, W·r)`."""
    channels = walk.variables.over(x.dims[-3], factor**2)
    if channels is None or node.output_shape is None:
        raise NotUnderstood("its blocks do not line up with the channels")
    return Axes((*x.dims[:-3], channels, *map(fixed, node.output_shape[-2:])))


def shuffle_channels(walk: Walk, node: Node, module: Any, x: Axes) -> Axes:
    """`(…, g·k, …)`: channels of the groups in turn."""
    tile = walk.tiles(x.dims[1], module.groups, node, "groups")
    return x.replaced(1, repeated(tile, module.groups))


_WITH_WEIGHTS = (linear, convolution, channel_norm, layer_norm, group_norm, prelu, embedding)
_WITHOUT = (elementwise, softmax, gated, spatial, flatten, unflatten, pixel_shuffle, shuffle_channels)
RULES: Mapping[str, LayerRule] = {rule.__name__: rule for rule in (*_WITH_WEIGHTS, *_WITHOUT)}
"""By the word that a row of the table of operations says."""
