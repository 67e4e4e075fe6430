"""A model with other sizes of its tensors: a copy with new tensors, and with the attributes that keep sizes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from paretobit.graph.axes import Axis
from paretobit.graph.axes_walk import Tensors
from paretobit.graph.copies import copy_of

Size = Callable[[Axis], int]
"""The new size of an axis."""


def resized(
    model: nn.Module,
    tensors: Iterable[Tensors],
    attributes: Mapping[tuple[str, str], tuple[Axis, ...]],
    size: Size,
    memo: Mapping[int, Any] | None = None,
    fill: Callable[[Tensor, Tensor], None] | None = None,
) -> nn.Module:
    """A copy whose tensors and attributes have new sizes.

    Args:
        model: The model.
        tensors: Those that change.
        attributes: Attributes that change, by path and name.
        size: The new size of an axis.
        memo: What the copy holds in the place of other objects, by their identity.
        fill: Puts values into a new tensor, from the old one; without it they are zero.
    """
    fresh: dict[int, Any] = dict(memo or {})
    for known in tensors:
        fresh[id(known.tensor)] = empty = _empty(known, size)
        if fill is not None:
            fill(known.tensor.detach(), empty.detach())
    new = copy_of(model, fresh)
    for (path, name), axes in attributes.items():
        module = new.get_submodule(path)
        sizes = tuple(map(size, axes))
        setattr(module, name, sizes if isinstance(getattr(module, name), tuple) else sizes[0])
    return new


def _empty(known: Tensors, size: Size) -> Tensor:
    """A tensor of the new shape; of the old one's kind, type and device."""
    empty = torch.zeros(list(map(size, known.dims)), dtype=known.tensor.dtype).to(known.tensor.device)
    if isinstance(known.tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=known.tensor.requires_grad)
    return empty
