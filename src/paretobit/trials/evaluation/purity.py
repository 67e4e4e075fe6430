"""What is certain to give the same result for the same arguments, and to do nothing else."""

import builtins
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paretobit.graph import op_of
from paretobit.graph.operations import OPERATIONS, row_of
from paretobit.graph.restore import Restorer

_PLACES = (torch, F, torch.functional, torch._C._nn, operator, math, builtins)
_OUR_MODULES = ("torch.nn.modules.", "paretobit.nn.", "transformers.pytorch_utils")


def is_pure_function(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a function of torch's, or the name of a tensor's method, draws nothing and keeps nothing."""
    if isinstance(function, str):
        return hasattr(Tensor, function) and row_of(function).is_pure(args, kwargs)
    name = str(getattr(function, "__name__", ""))
    known = any(getattr(place, name, None) is function for place in _PLACES)
    return known and row_of(name).is_pure(args, kwargs)


def is_pure_layer(layer: nn.Module) -> bool:
    """Whether a layer of torch's, or ours, gives the same for the same weights, formats and inputs.

    Its mode and its formats are not looked at: they change.
    """
    for module in layer.modules():
        kind = type(module)
        ours = kind.__module__.startswith(_OUR_MODULES) or OPERATIONS.word_of_layer(module) is not None
        row = OPERATIONS.find(op_of(module))
        if not ours or (row is not None and row.random is True):
            return False
        if getattr(module, "max_norm", None) is not None or has_strange_hooks(module):
            return False
    return True


def has_strange_hooks(module: nn.Module) -> bool:
    """Whether somebody else's code runs when the module does."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    owners = (getattr(hook, "__module__", None) or type(hook).__module__ for hook in hooks)
    return "forward" in vars(module) or any(not str(owner).startswith("paretobit.nn") for owner in owners)


def leaves_no_trace(model: nn.Module, run: Callable[[], Any]) -> bool:
    """Whether a run leaves all that a model holds, and torch's random numbers, alone; undone if not."""
    if any(has_strange_hooks(module) for module in model.modules()):
        return False
    restorer, state = Restorer(model), torch.get_rng_state()
    restorer.see()
    try:
        with torch.no_grad():
            run()
        drew = not torch.equal(state, torch.get_rng_state())
    finally:
        torch.set_rng_state(state)
        changed = restorer.restore()
    return not changed and not drew
