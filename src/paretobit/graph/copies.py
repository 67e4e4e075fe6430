"""Copies of models."""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def copy_of(model: Model, memo: Mapping[int, Any] | None = None) -> Model:
    """A deep copy, also where hooks keep a weight that they computed as an attribute, which torch cannot copy.

    `torch.nn.utils.weight_norm`, `spectral_norm` and `prune` do, and recurrent layers in a list; the copy
    computes it again when it runs.

    Args:
        model: Left as it is.
        memo: What the copy holds in the place of other objects, by their identity.
    """
    kept = (value for module in model.modules() for value in vars(module).values())
    values = (leaf for value in kept for leaf in (value if isinstance(value, list | tuple) else (value,)))
    computed = [value for value in values if isinstance(value, Tensor) and not value.is_leaf]
    return copy.deepcopy(model, {**{id(value): value.detach().clone() for value in computed}, **(memo or {})})
