"""Activation pruning: a fraction of a layer's inputs is set to zero each time it runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput
from paretobit.passes.transform.prune_scores import keep_largest_in_rows, number_removed, random_scores
from paretobit.schemas import check_fields

ActivationMethod = Literal["l1-norm", "random"]
Per = Literal["sample", "call"]
_PRUNER = "_input_pruner"


@dataclass(frozen=True)
class InputPruning:
    """What is done to the first input of one layer, whenever it runs.

    Exactly `round(sparsity · elements)` elements become zero, of each sample or of the whole call;
    gradients flow through the others. A quantised layer quantises what is left. The mask of an
    `l1-norm` pruning follows the data: the smallest absolute values go, of equal ones the first.
    That of a `random` one does not: the same positions of every sample, drawn from the seed.

    Args:
        sparsity: 0 to 1.
        method: `l1-norm` or `random`.
        per: `sample`: along all axes but the first, so that a row's result does not depend on the
            rows beside it. `call`: over the whole tensor. A vector is one sample.
        seed: Of `random`.

    Raises:
        BadInput: A value out of range.
    """

    sparsity: float
    method: ActivationMethod = "l1-norm"
    per: Per = "sample"
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        check_sparsity(self.sparsity)

    def keep(self, x: Tensor) -> Tensor:
        """The mask for one input, in its shape, True where it stays."""
        rows = x.detach().reshape(1 if self.per == "call" or x.dim() < 2 else x.shape[0], -1)
        removed = number_removed(self.sparsity, rows.shape[1])
        if self.method == "l1-norm":
            scores = rows.abs()
            mask = keep_largest_in_rows(scores.float() if scores.element_size() < 4 else scores, removed)
        else:
            drawn = random_scores((1, rows.shape[1]), self.seed)
            mask = keep_largest_in_rows(drawn, removed).to(x.device).expand_as(rows)
        return mask.reshape(x.shape)


def check_sparsity(value: Any, key: str = "sparsity") -> None:
    """Refuse what is no fraction."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadInput("not a sparsity", key=key, found=value, allowed="a fraction from 0 to 1")


def set_input_pruning(module: nn.Module, pruning: InputPruning | None) -> None:
    """Prune the inputs of a layer from now on, in place; None stops it."""
    pruner = module.__dict__.get(_PRUNER)
    if pruner is None:
        pruner = _Pruner()
        setattr(module, _PRUNER, pruner)
        module.register_forward_pre_hook(pruner, with_kwargs=True)
    pruner.pruning = pruning


def input_prunings_of(model: nn.Module) -> dict[str, InputPruning]:
    """Path of a layer to what is done to its inputs, for all where something is."""
    found = {path: module.__dict__.get(_PRUNER) for path, module in model.named_modules()}
    return {path: pruner.pruning for path, pruner in found.items() if pruner and pruner.pruning}


class _Pruner:
    """The hook before a layer runs."""

    def __init__(self) -> None:
        self.pruning: InputPruning | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self.pruning is None:
            return None
        name = None if args else next(iter(kwargs))
        x: Tensor = args[0] if name is None else kwargs[name]
        if not x.is_floating_point():
            raise TypeError(f"only floating-point inputs can be pruned, not {x.dtype}")
        pruned = torch.where(self.pruning.keep(x), x, 0)
        return ((pruned, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: pruned})
