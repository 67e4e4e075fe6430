"""Copies of models."""

import copy
from typing import TypeVar

from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def copy_of(model: Model) -> Model:
    """A deep copy, also where hooks keep a weight that they computed as an attribute, which torch cannot copy.

    `torch.nn.utils.weight_norm`, `spectral_norm` and `prune` do; the copy computes it again when it runs.
    """
    values = (value for module in model.modules() for value in vars(module).values())
    computed = [value for value in values if isinstance(value, Tensor) and not value.is_leaf]
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in computed})
