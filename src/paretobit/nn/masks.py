"""Masked parameters: weights that were pruned are zero, and stay zero.

A mask is a boolean buffer beside its parameter, `weight_mask` beside `weight`, True where a weight
is kept. The zeros are written into the parameter itself, so that whatever reads it sees them: plain
layers, quantised layers (which quantise after masking), costs, files. They are written again after
every step of an optimiser, after a state dict was loaded, and whenever the layer runs or is saved,
whatever changed the parameter. While gradients are on, the gradient of
a masked weight is zero too, so that neither the clipping of gradients nor an optimiser sees it.
"""

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from paretobit.errors import BadInput
from paretobit.graph.contents import as_integers, seen_in_block
from paretobit.nn.quantized import Quantized

SUFFIX = "_mask"
_KEEPER = "_mask_keeper"


def set_mask(module: nn.Module, mask: Tensor, name: str = "weight") -> None:
    """Mask a parameter of a module, in place; a mask that it has is replaced.

    What an earlier mask made zero stays zero: the values are gone.

    Args:
        module: Any module; quantised before or after, it makes no difference.
        mask: Boolean, of the parameter's shape; True keeps a weight.
        name: The parameter.

    Raises:
        BadInput: No such parameter, or a mask that does not fit it.
    """
    parameter = module._parameters.get(name)
    if parameter is None:
        raise BadInput("no such parameter to mask", found=name, allowed=list(module._parameters))
    if mask.dtype != torch.bool or mask.shape != parameter.shape:
        raise BadInput(
            f"a mask that does not fit the parameter '{name}'",
            found=f"{mask.dtype} {tuple(mask.shape)}",
            allowed=f"torch.bool {tuple(parameter.shape)}",
        )
    keeper = _keeper(module)
    if name in keeper.names:
        module.get_buffer(name + SUFFIX).copy_(mask)
    else:
        if hasattr(module, name + SUFFIX):
            raise BadInput("the module has an attribute of the mask's name", found=name + SUFFIX)
        module.register_buffer(name + SUFFIX, mask.detach().to(parameter.device, copy=True))
        keeper.names.append(name)
    _watch(parameter, module.get_buffer(name + SUFFIX)).settle(parameter)


def masks_of(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Path of a module to name of a parameter to mask, for all that are masked."""
    found = {path: masks_in(module) for path, module in model.named_modules()}
    return {path: masks for path, masks in found.items() if masks}


def masks_in(module: nn.Module) -> dict[str, Tensor]:
    """Name of a parameter of this module to its mask."""
    keeper = _keeper_of(module)
    return {name: module.get_buffer(name + SUFFIX) for name in keeper.names} if keeper else {}


def place_masks(model: nn.Module, names: Mapping[str, Iterable[str]]) -> None:
    """Give parameters masks that keep everything, where they have none: to load a state dict into.

    Args:
        model: Changed in place.
        names: Path of a module to names of its parameters.

    Raises:
        BadInput: No such module or parameter.
    """
    modules = dict(model.named_modules())
    for path, parameters in names.items():
        if path not in modules:
            raise BadInput("the model has no such layer", found=path, allowed=filter(None, modules))
        present = masks_in(modules[path])
        for name in parameters:
            if name not in present:
                parameter = modules[path]._parameters.get(name)
                shape = () if parameter is None else parameter.shape
                set_mask(modules[path], torch.ones(shape, dtype=torch.bool), name)


def masks_in_state(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, list[str]]:
    """The masks in a state dict that a model has parameters for, but no masks: what `place_masks` takes.

    Args:
        state: Name to tensor, under the names of the model.
        model: Left as it is.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    present = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    found: dict[str, list[str]] = {}
    for name, tensor in state.items():
        path, _, parameter = name.removesuffix(SUFFIX).rpartition(".")
        masked = parameters.get(name.removesuffix(SUFFIX)) if name.endswith(SUFFIX) else None
        if masked is None or name in present:
            continue
        if tensor.dtype == torch.bool and tensor.shape == masked.shape:
            found.setdefault(path, []).append(parameter)
    return found


def effective_weight(module: nn.Module) -> Tensor | None:
    """The weight that a layer computes with: masked, then quantised; None where it has none."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return None
    _settle_all(module)
    if isinstance(module, Quantized) and "weight" in module.slot_names:
        with torch.no_grad():
            weight = module.parameter("weight")
    return weight.detach()


def sparsity_of(model: nn.Module) -> dict[str, float]:
    """Path of a layer to the fraction of exact zeros in its effective weight.

    Zeros count wherever they come from: a mask, rounding, or training. A format without a zero
    (binary) has none.
    """
    weights = {path: effective_weight(module) for path, module in model.named_modules()}
    return {p: zeros_in(w) / w.numel() for p, w in weights.items() if w is not None and w.numel()}


def zeros_in(tensor: Tensor) -> int:
    """How many elements are exactly zero."""
    return tensor.numel() - int(torch.count_nonzero(tensor))


class _Keeper:
    """The hook before a module runs. It holds names only: copies and pickles of a module keep theirs."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = list(names)

    def __call__(self, module: nn.Module, args: Any) -> None:
        for name in self.names:
            parameter, mask = getattr(module, name), getattr(module, name + SUFFIX)
            watched = _watch(parameter, mask)
            watched.settle(parameter)
            if torch.is_grad_enabled() and parameter.requires_grad:
                watched.follow(parameter)


class _Watched:
    """A parameter's mask, the state in which it was last seen masked, and the hook on its gradient."""

    def __init__(self) -> None:
        self.mask: Tensor | None = None
        self._seen: tuple[Any, ...] | None = None
        self._hook: RemovableHandle | None = None

    def settle(self, parameter: Tensor) -> None:
        """Write the zeros.

        They are written whether or not they are there, for to look takes longer, and behind torch's
        back: between the forward and the backward pass of a shared parameter nothing has changed.
        """
        if self.mask is None:
            return
        seen = seen_in_block(parameter)
        if seen is None or (*seen, id(self.mask), self.mask._version) != self._seen:
            with torch.inference_mode(parameter.is_inference()), torch.no_grad():
                bits = as_integers(parameter.data)
                mask = self.mask.to(parameter.device)
                bits.mul_(mask.view(*mask.shape, *[1] * (bits.dim() - mask.dim())))  # NaN times 0 is no zero
            self._seen = seen and (*seen, id(self.mask), self.mask._version)

    def follow(self, parameter: Tensor) -> None:
        """From now on masked weights get no gradient."""
        if self._hook is None or self._hook.id not in (parameter._backward_hooks or {}):
            self._hook = parameter.register_hook(self._gradient)  # type: ignore[no-untyped-call]

    def _gradient(self, gradient: Tensor) -> Tensor | None:
        if self.mask is None or gradient.is_sparse:  # of a sparse one the step after is put right
            return None
        return gradient.masked_fill(~self.mask.to(gradient.device), 0)


_WATCHED: MutableMapping[Tensor, _Watched] = WeakTensorKeyDictionary()
"""Only what is derived from a module and its buffers, and found again when it next runs."""


def _watch(parameter: Tensor, mask: Tensor) -> _Watched:
    watched = _WATCHED.get(parameter)
    if watched is None:
        if not _WATCHED:
            _follow_optimizers()
        watched = _WATCHED[parameter] = _Watched()
    watched.mask = mask  # held, so that its address is not given out again
    return watched


_hooked: list[Any] = []


def _follow_optimizers() -> None:
    """Be told of the steps of all optimisers: momentum from before a mask moves what is masked."""
    if not _hooked:
        register: Callable[..., Any] = register_optimizer_step_post_hook
        _hooked.append(register(_after_step))


def _after_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            watched = _WATCHED.get(parameter)
            if watched is not None:
                watched.settle(parameter)


def _keeper_of(module: nn.Module) -> _Keeper | None:
    keeper = module.__dict__.get(_KEEPER)
    return keeper if isinstance(keeper, _Keeper) else None


def _keeper(module: nn.Module) -> _Keeper:
    """The module's keeper; a new one comes with the hooks."""
    keeper = _keeper_of(module)
    if keeper is None:
        keeper = _Keeper()
        setattr(module, _KEEPER, keeper)
        module.register_forward_pre_hook(keeper)
        module.register_state_dict_pre_hook(_before_saving)  # type: ignore[no-untyped-call]
        module.register_load_state_dict_post_hook(_after_loading)  # type: ignore[no-untyped-call]
    return keeper


def _settle_all(module: nn.Module) -> None:
    for name, mask in masks_in(module).items():
        _watch(getattr(module, name), mask).settle(getattr(module, name))


def _before_saving(module: nn.Module, prefix: str, keep_vars: bool) -> None:
    _settle_all(module)


def _after_loading(module: nn.Module, incompatible: Any) -> None:
    _settle_all(module)
