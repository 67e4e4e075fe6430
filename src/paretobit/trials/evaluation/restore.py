"""A model as it was, whatever a user's function did to it, without a copy of it for every trial.

What is put back: weights and buffers (by content: a change through `.data` or NumPy is seen too), their
dtype, memory, gradients, hooks and `requires_grad`; of every module its class, mode, parameters,
buffers, submodules, hooks and attributes. Of attributes that are neither modules nor tensors a copy is
kept, so that what was changed inside them is undone as well.
"""

from __future__ import annotations

import copy
import ctypes
import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from paretobit.nn import Quantized, TensorCache
from paretobit.nn.sites import Sites

_BY_REFERENCE = (nn.Module, TensorCache, Sites)
_SIMPLE = (int, float, complex, str, bytes, bool, type(None), type, torch.dtype, torch.device, torch.Size)
_LARGE = 64 * 2**20  # bytes of weights from which a trial takes so long that tidying up costs nothing


class Restorer:
    """Puts one model back into the state in which it was seen last.

    Args:
        model: The model.
        reference: A model with the same parameters and buffers, which nobody changes: what equals
            its own in `model` is put back from there, so that no copy is needed.
    """

    def __init__(self, model: nn.Module, reference: nn.Module) -> None:
        self._model = model
        named = [*reference.named_parameters(), *reference.named_buffers()]
        self._reference = {name: tensor.detach() for name, tensor in named}
        self._modules: list[tuple[nn.Module, type, dict[str, Any]]] = []
        self._tensors: dict[int, _Remembered] = {}
        self._objects: dict[tuple[int, str], Any] = {}
        self._same: dict[int, Any] = {}  # what is never copied, by address
        self._large = sum(tensor.nbytes for tensor in self._reference.values()) > _LARGE
        self._give_back()

    def see(self) -> None:
        """Take note of the state."""
        before, self._tensors = self._tensors, {}
        self._modules = [(module, type(module), dict(vars(module))) for module in self._model.modules()]
        for name, tensor in (*self._model.named_parameters(), *self._model.named_buffers()):
            self._note(tensor, before, self._reference.get(name))
        objects: dict[tuple[int, str], Any] = {}
        self._same = {id(module): module for module, _, _ in self._modules}
        for i, (module, _, own) in enumerate(self._modules):
            if isinstance(module, Quantized):
                self._same |= {id(number_format): number_format for number_format in module.slots.values()}
            for name, value in own.items():
                if isinstance(value, Tensor):
                    self._note(value, before, None)
                elif isinstance(value, _BY_REFERENCE):
                    self._same[id(value)] = value
                elif not isinstance(value, _SIMPLE):
                    objects[i, name] = value
        self._same |= {address: kept.tensor for address, kept in self._tensors.items()}
        self._objects = copy.deepcopy(objects, dict(self._same))

    def restore(self) -> None:
        """Put everything back."""
        objects = copy.deepcopy(self._objects, dict(self._same))
        for i, (module, kind, own) in enumerate(self._modules):
            state = {name: objects.get((i, name), value) for name, value in own.items()}
            if type(module) is not kind:
                module.__class__ = kind
            vars(module).clear()
            vars(module).update(state)
        for kept in self._tensors.values():
            kept.restore()
        live = {id(kept.tensor) for kept in self._tensors.values()}
        for thing in self._same.values():
            if isinstance(thing, TensorCache):
                thing.keep_only(live)
        self._give_back()

    def _give_back(self) -> None:
        """Have the C library (glibc) return what is free: it keeps holes of hundreds of MB otherwise."""
        if self._large and sys.platform == "linux":
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)

    def _note(self, tensor: Tensor, before: Mapping[int, _Remembered], reference: Tensor | None) -> None:
        known = before.get(id(tensor))
        if id(tensor) not in self._tensors:
            still = known is not None and known.still_holds()
            self._tensors[id(tensor)] = known if known and still else _Remembered(tensor, reference)


class _Remembered:
    """One tensor: its memory, its content, and what else there is to it."""

    def __init__(self, tensor: Tensor, reference: Tensor | None) -> None:
        self.tensor = tensor
        self._memory = tensor.detach()
        self._requires_grad = tensor.requires_grad
        self._attributes = dict(vars(tensor)) if hasattr(tensor, "__dict__") else {}
        self._hooks = dict(tensor._backward_hooks) if tensor._backward_hooks else None
        same = reference is not None and _same(tensor, reference)
        self._content = reference if same and reference is not None else self._memory.clone()
        self._seen = self._state()

    def still_holds(self) -> bool:
        """Whether nothing was written since; only asked while nobody else had the model."""
        return self._seen == self._state()

    def restore(self) -> None:
        """Put it back."""
        tensor: Any = self.tensor
        if tensor.is_leaf and tensor.requires_grad != self._requires_grad:
            tensor.requires_grad_(self._requires_grad)
        tensor.grad = None
        if vars(tensor) != self._attributes:
            vars(tensor).clear()
            vars(tensor).update(self._attributes)
        tensor._backward_hooks = None if self._hooks is None else OrderedDict(self._hooks)
        tensor._post_accumulate_grad_hooks = None
        with torch.no_grad():
            lost = self._memory.untyped_storage().nbytes() < self._content.nbytes
            if lost or tensor.dtype != self._memory.dtype or tensor.data_ptr() != self._memory.data_ptr():
                tensor.data = self._content.clone() if lost else self._memory
                self._memory = tensor.detach()
            if tensor.shape != self._memory.shape or tensor.stride() != self._memory.stride():
                tensor.data = self._memory
            if not _same(tensor, self._content):
                tensor.copy_(self._content)
        self._seen = self._state()

    def _state(self) -> tuple[Any, ...]:
        return self.tensor._version, self.tensor.data_ptr(), self.tensor.requires_grad


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same bits, NaN aside, which is never taken for the same."""
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
