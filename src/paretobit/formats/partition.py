"""How a tensor falls into the parts that share a scale: blocks, channels, groups, or all of it.

A part is given by its extent along each dimension. The last part along a dimension is shorter where
the extent does not divide it; no part crosses from one row into the next.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.formats.compiled import outside_graph

BlockSize = int | str
Per = Literal["tensor", "channel", "group"]
SCALED_REACH = torch.finfo(torch.float32).max * (1 - 2.0**-20)
"""What a float32 scale times a code may stand for, so that their product does not round to infinity."""


def parse_block_size(value: Any) -> BlockSize:
    """A block size in its plain form: `16`, or `"1x16"` for several dimensions.

    Args:
        value: `16`, `"16"`, `"1x16"`, `[16]` or `[1, 16]`.

    >>> parse_block_size([16]), parse_block_size("1x16")
    (16, '1x16')
    """
    if isinstance(value, str):
        parts = [int(p) for p in value.split("x")] if re.fullmatch(r"\d+(x\d+)*", value) else []
    else:
        parts = list(value) if isinstance(value, list | tuple) else [value]
    if not parts or any(type(p) is not int or p < 1 for p in parts):
        raise BadInput(
            "not a block size", key="block_size", found=value, allowed="a positive integer, or text like '1x16'"
        )
    return parts[0] if len(parts) == 1 else "x".join(map(str, parts))


def block_extents(shape: Sequence[int], block_size: BlockSize, axis: int) -> tuple[int, ...]:
    """The extents of a block in a tensor of this shape.

    One number counts along `axis`. Several are aligned with the last dimensions: dimensions that
    they do not reach have blocks of one, numbers that have no dimension are left out.

    Raises:
        BadInput: The tensor has no such axis.
    """
    rank = len(shape)
    if isinstance(block_size, str):
        sizes = [int(part) for part in block_size.split("x")][-rank or None :]
        sizes = [1] * (rank - len(sizes)) + sizes
        return tuple(max(min(size, extent), 1) for size, extent in zip(sizes, shape, strict=False))
    extents = [1] * rank
    if rank:
        axis = checked_axis(shape, axis)
        extents[axis] = max(min(block_size, shape[axis]), 1)
    return tuple(extents)


def shared_extents(shape: Sequence[int], per: Per, axis: int, group_size: int = 1) -> tuple[int, ...]:
    """The extents of the part that shares a scale: all, one channel, or a group along an axis.

    A tensor of fewer than two dimensions is one channel.
    """
    if per == "tensor" or (per == "channel" and len(shape) < 2):
        return tuple(shape)
    if per == "group":
        return block_extents(shape, group_size, axis)
    channel = checked_axis(shape, axis)
    return tuple(1 if i == channel else extent for i, extent in enumerate(shape))


def checked_axis(shape: Sequence[int], axis: int) -> int:
    """The axis counted from the front."""
    if not -len(shape) <= axis < len(shape):
        raise BadInput(f"a tensor of {len(shape)} dimensions has no such axis", key="axis", found=axis)
    return axis % len(shape)


def count(shape: Sequence[int], extents: Sequence[int]) -> int:
    """How many parts there are."""
    return math.prod(math.ceil(size / max(extent, 1)) for size, extent in zip(shape, extents, strict=True))


def split(x: Tensor, extents: Sequence[int], fill: float = 0.0) -> tuple[Tensor, tuple[int, ...]]:
    """`x` with every divided dimension as two, the number of the part and the place in it.

    Short parts are filled up with `fill`.

    Returns:
        The tensor, a view where nothing had to be filled, and the dimensions within a part.
    """
    missing = [-size % extent for size, extent in zip(x.shape, extents, strict=True)]
    if any(missing):
        x = F.pad(x, [side for gap in reversed(missing) for side in (0, gap)], value=fill)
    shape: list[int] = []
    inside: list[int] = []
    for size, extent in zip(x.shape, extents, strict=True):
        if extent == size:
            inside.append(len(shape))
            shape.append(size)
        elif extent == 1:
            shape.append(size)
        else:
            inside.append(len(shape) + 1)
            shape += [size // extent, extent]
    return x.reshape(shape), tuple(inside)


def join(blocked: Tensor, shape: Sequence[int], extents: Sequence[int]) -> Tensor:
    """What `split` took apart, contiguous."""
    if blocked.numel() == math.prod(shape):
        return blocked.reshape(shape)
    padded = [math.ceil(size / extent) * extent for size, extent in zip(shape, extents, strict=True)]
    # Not compiled: torch 2.13 splits a loop over 45 elements in blocks of 16 and forgets the last 13.
    return outside_graph(_cropped, blocked.reshape(padded), shape)


def _cropped(x: Tensor, shape: Sequence[int]) -> Tensor:
    for dim, size in enumerate(shape):
        x = x.narrow(dim, 0, size)
    return x.contiguous()


def parts(x: Tensor, extents: Sequence[int]) -> Tensor:
    """One row a part, in the order of the scales; short parts are filled up with NaN."""
    blocked, inside = split(x, extents, fill=math.nan)
    outside = [dim for dim in range(blocked.ndim) if dim not in inside]
    return blocked.permute(outside + list(inside)).reshape(math.prod(blocked.shape[d] for d in outside), -1)


def in_slices(function: Callable[[Tensor], Tensor], x: Tensor, extents: Sequence[int]) -> Tensor:
    """A function of many passes, on slices of the first dimension that a cache holds.

    Only where no part reaches from one slice into another; otherwise on all of `x`.
    """
    if torch.compiler.is_compiling() or x.numel() <= 2 * _CACHED or extents[:1] != (1,):
        return function(x)
    return torch.cat([function(slice_) for slice_ in torch.split(x, max(_CACHED * len(x) // x.numel(), 1))])


def extremes(blocked: Tensor, inside: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each part, of the shape that broadcasts; NaN does not count."""
    if torch.compiler.is_compiling():
        return _aminmax(torch.where(blocked == blocked, blocked, 0.0), inside)
    if blocked.numel() > _SMALL:
        low, high = _aminmax(blocked, inside)
        if not high.isnan().any():
            return low, high
    return _aminmax(blocked.nan_to_num(0.0, math.inf, -math.inf), inside)


def _aminmax(values: Tensor, inside: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    if not inside:
        return values, values
    if len(inside) > 1 or values.numel() > _SMALL:  # `aminmax` saves a call but is three times slower
        return values.amin(inside, keepdim=True), values.amax(inside, keepdim=True)
    low, high = torch.aminmax(values, dim=inside[0], keepdim=True)
    return low, high


def largest_magnitude(blocked: Tensor, inside: tuple[int, ...]) -> Tensor:
    """The largest |x| of each part, of the shape that broadcasts; NaN does not count."""
    magnitude = blocked.abs()
    if torch.compiler.is_compiling():  # one fused kernel: `where` costs nothing there
        return _amax(torch.where(magnitude == magnitude, magnitude, 0.0), inside)
    if magnitude.numel() <= _SMALL:
        return _amax(magnitude.nan_to_num_(nan=0.0, posinf=math.inf), inside)
    largest = _halving_amax(magnitude) if inside == (blocked.ndim - 1,) else _amax(magnitude, inside)
    if not largest.isnan().any():
        return largest
    return _amax(magnitude.nan_to_num_(nan=0.0, posinf=math.inf), inside)


def as_float32(scale: Tensor) -> Tensor:
    """A scale as a normal float32 number, in the dtype it came in; zero becomes the smallest one."""
    return scale.clamp_(min=torch.finfo(torch.float32).tiny).float().to(scale.dtype)


def mean(values: Tensor, inside: tuple[int, ...], where: Tensor | None = None) -> Tensor:
    """The mean of values that are not negative, of each part, as a float32 number in their dtype.

    NaN and infinity are left out. Summed in float64, which neither overflows for values of float32
    nor, in the sum of equal ones, rounds.

    Args:
        where: 1 for the elements that count, 0 for the others; where none counts the mean is 0.
    """
    counted = values if where is None else values * where
    total = _sum(counted, inside)
    size = values.numel() // total.numel()
    if where is None:
        result = total.div_(size)
    elif size <= 2**24:  # float32 counts so far
        result = total.div_((where.sum(inside, keepdim=True) if inside else where).clamp(min=1))
    else:
        result = total.div_(_sum(where, inside).clamp_(min=1))
    if not math.isfinite(result.sum()):  # no cancelling: values are not negative
        finite = values.isfinite()
        kept = finite if where is None else finite & (where > 0)
        bounded = values.masked_fill(~finite, 0.0).clamp_(max=SCALED_REACH)  # their sum is finite
        return mean(bounded, inside, kept.to(values.dtype))
    return result.clamp_(max=torch.finfo(torch.float32).max).float().to(values.dtype)


def _sum(values: Tensor, inside: tuple[int, ...]) -> Tensor:
    return values.sum(inside, keepdim=True, dtype=torch.float64) if inside else values.double()


def _amax(magnitude: Tensor, inside: tuple[int, ...]) -> Tensor:
    return magnitude.amax(inside, keepdim=True) if inside else magnitude


def _halving_amax(magnitude: Tensor) -> Tensor:
    """Over the last dimension, by halves: several times faster than `amax` over a few elements."""
    while 1 < (size := magnitude.shape[-1]) <= _SHORT and size % 2 == 0:
        magnitude = torch.maximum(magnitude[..., : size // 2], magnitude[..., size // 2 :])
    return magnitude if magnitude.shape[-1] == 1 else magnitude.amax(-1, keepdim=True)


_SMALL = 2**14  # elements, below which calls cost more than passes over memory
_SHORT = 256
_CACHED = 2**18
