"""What modules compute from their parameters: parametrisations, and the hooks of `torch.nn.utils`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from paretobit.graph import at_rest
from paretobit.graph.readings import parameters_at


@dataclass(frozen=True)
class Computed:
    """A tensor that is computed from parameters only: it is stored in their place.

    Attributes:
        shape: Its shape.
        parameters: From which it is computed.
        value: Gives the tensor as it is now; None where the graph does not tell.
    """

    shape: tuple[int, ...]
    parameters: tuple[nn.Parameter, ...]
    value: Callable[[], Tensor | None]


def parameters_below(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Parameter]]:
    """What a module itself owns, the originals of what is parametrised included."""
    yield from parameters_at(module, path)
    originals = module._modules.get("parametrizations")
    if originals is not None:
        yield from originals.named_parameters(prefix=f"{path}.parametrizations".lstrip("."))


def computed_in(module: nn.Module) -> dict[str, Computed]:
    """Name of an attribute of a module to what it computes it from: `torch.nn.utils.parametrize`, or its hooks.

    Hooks (`torch.nn.utils.weight_norm`, `spectral_norm`, `prune`) keep `weight` as a plain tensor beside
    `weight_g` and `weight_v`, or `weight_orig`.
    """
    found: dict[str, tuple[nn.Parameter, ...]] = {}
    for name, parametrization in (module._modules.get("parametrizations") or nn.ModuleDict()).named_children():
        found[name] = tuple(parametrization.parameters())
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            own = ((other, p) for other, p in module._parameters.items() if p is not None)
            found[name] = tuple(p for other, p in own if other.startswith(f"{name}_"))
    result = {}
    for name, parameters in found.items():
        if parameters:
            shape = tuple(getattr(module, name).shape)
            result[name] = Computed(shape, parameters, partial(_computed_now, module, name))
    return result


def _computed_now(module: nn.Module, name: str) -> Tensor:
    """An attribute as the module computes it; what its hooks keep may be of an earlier run."""
    own = vars(module)
    before = own.get(name)
    with at_rest(module), torch.no_grad():
        for hook in module._forward_pre_hooks.values() if before is not None else ():
            if type(hook).__module__.startswith("torch.nn.utils."):
                hook(module, ())
        value: Tensor = getattr(module, name)
    if before is not None:
        own[name] = before
    return value
