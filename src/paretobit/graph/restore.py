"""A model as it was, whatever ran it, without a copy of it for every run.

What is put back: weights and buffers, by content, their dtype, memory, gradients, hooks and
`requires_grad`; of every module its class, mode, parameters, buffers, submodules, hooks and attributes;
and what stands in lists, dicts, sets, arrays and objects that it holds, at any depth. Only what differs is
written. Classes and functions are not looked into, nor loggers, threads and what says `is_no_state`.
"""

from __future__ import annotations

import ctypes
import random
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from paretobit.graph.contents import Content, content_of

_VALUES = (int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
_LEAVES = (*_VALUES, type, FunctionType, MethodType, BuiltinFunctionType, ModuleType)
_OF_THE_PROCESS = {"logging", "threading", "multiprocessing", "concurrent", "asyncio", "queue"}
_CONTAINERS = (dict, list, set, deque)
_MOST = 100_000  # containers, so that an attribute that leads to half of the process ends somewhere
_LARGE = 64 * 2**20  # bytes of weights from which a trial takes so long that tidying up costs nothing


class Restorer:
    """Puts one model back into the state in which it was seen last.

    Args:
        model: The model.
        reference: A model with the same parameters and buffers, which nobody changes: what equals
            its own in `model` is put back from there, so that no copy is needed.
        shared: Whether what tensors hold is kept once with others who keep it; so it is with a reference.

    Attributes:
        model: The model.
    """

    def __init__(self, model: nn.Module, reference: nn.Module | None = None, shared: bool = False) -> None:
        self.model, self._reference = model, reference
        self._shared = shared or reference is not None
        self._live: list[Any] = []  # containers: those of modules and objects are their attributes
        self._copies: list[Any] = []
        self._kinds: list[tuple[nn.Module, type]] = []
        self._hidden: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = []
        self._seen: list[Any] = []  # of what is hidden
        self._tensors: dict[int, _Remembered] = {}
        self._met: dict[int, Any] = {}
        self._first = 0  # how many containers there were when all were looked for
        self._like: dict[int, Tensor] = {}
        self._large = sum(tensor.nbytes for tensor in model.parameters()) > _LARGE
        self._give_back()

    def see(self) -> None:
        """Take note of the state."""
        changed = self._changed() if self._live else []
        if not self._live or len(self._live) > 2 * self._first:
            self._look_anew()
        elif changed:
            for i in changed:
                self._copies[i] = _copied(self._live[i])
            self._walk([value for i in changed for value in _inside(self._live[i])])
        self._kinds = [(module, type(module)) for module, _ in self._kinds]
        for kept in self._tensors.values():
            kept.see()
        self._seen = [ask() for ask, _ in self._hidden]

    def restore(self) -> bool:
        """Put everything back; whether anything had changed."""
        others = [(module, kind) for module, kind in self._kinds if type(module) is not kind]
        for module, kind in others:
            module.__class__ = kind
        changed = self._changed()
        for i in changed:
            _fill(self._live[i], self._copies[i])
        written = sum([kept.restore() for kept in self._tensors.values()])
        drawn = [(put, seen) for (ask, put), seen in zip(self._hidden, self._seen, strict=True) if ask() != seen]
        for put, seen in drawn:
            put(seen)
        self._give_back()
        return bool(others or changed or written or drawn)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """After the block the model is as it was before it."""
        self.see()
        try:
            yield
        finally:
            self.restore()

    def _look_anew(self) -> None:
        self._live, self._copies, self._kinds, self._hidden, self._met = [], [], [], [], {}
        before, self._tensors = self._tensors, {}
        if self._reference is not None:
            theirs = dict((*self._reference.named_parameters(), *self._reference.named_buffers()))
            ours = (*self.model.named_parameters(), *self.model.named_buffers())
            self._like = {id(tensor): theirs[name].detach() for name, tensor in ours if name in theirs}
        self._walk([self.model], before)
        self._first = len(self._live)

    def _walk(self, found: list[Any], before: Mapping[int, _Remembered] = MappingProxyType({})) -> None:
        """Note all that can be reached and was not met before."""
        while found:
            value = found.pop()
            kind = type(value)
            if issubclass(kind, _LEAVES) or id(value) in self._met:
                continue
            self._met[id(value)] = value
            if isinstance(value, Tensor):
                if value.layout is torch.strided:
                    new = _Remembered(value, self._like.get(id(value)), self._shared)
                    self._tensors[id(value)] = before.get(id(value), new)
            elif (hidden := _hidden(value)) is not None:
                self._hidden.append(hidden)
            elif isinstance(value, tuple):
                found += value
            elif isinstance(value, _CONTAINERS):
                self._note(value, found)
            elif _is_looked_into(value, kind):
                self._kinds += [(value, kind)] if isinstance(value, nn.Module) else []
                self._note(vars(value), found)

    def _note(self, container: Any, found: list[Any]) -> None:
        if len(self._live) < _MOST:
            self._met[id(container)] = container
            self._live.append(container)
            self._copies.append(_copied(container))
            found += _inside(container)

    def _changed(self) -> list[int]:
        """Numbers of the containers in which something else stands than was noted."""
        if _equal(self._live, self._copies):
            return []
        return [i for i, live in enumerate(self._live) if not _equal(live, self._copies[i])]

    def _give_back(self) -> None:
        """Have the C library (glibc) return what is free: it keeps holes of hundreds of MB otherwise."""
        if self._large and sys.platform == "linux":
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)


@contextmanager
def undone(model: nn.Module) -> Iterator[list[bool]]:
    """What a run leaves in the model is undone after the block; whether it left anything is then in the list."""
    restorer, left = Restorer(model, shared=True), list[bool]()
    restorer.see()
    try:
        yield left
    finally:
        left.append(restorer.restore())


class _Remembered:
    """One tensor: its memory, its content, and what else there is to it.

    Args:
        tensor: The tensor.
        like: One that never changes: what equals it needs no copy.
        shared: What it holds is asked for by others too, as long as it lives.
    """

    def __init__(self, tensor: Tensor, like: Tensor | None, shared: bool) -> None:
        self.tensor, self._like, self._shared = tensor, like, shared
        self._content: Content | None = None

    def see(self) -> None:
        """Take note of the state."""
        tensor: Any = self.tensor
        self._memory, self._grad = tensor.detach(), tensor.grad if tensor.is_leaf else None
        self._attributes = dict(vars(tensor))
        self._hooks = None if tensor._backward_hooks is None else dict(tensor._backward_hooks)
        self._state = self._now()
        if self._shared:
            self._content = content_of(tensor, self._like)
        elif self._content is None or not self._content.holds(tensor):
            self._content = Content(tensor)

    def restore(self) -> bool:
        """Put it back; whether anything had changed."""
        tensor: Any = self.tensor
        assert self._content is not None
        content = self._content.copy
        if self._state == self._now() and self._content.is_in(tensor) and vars(tensor) == self._attributes:
            return False
        if tensor.is_leaf:
            if tensor.requires_grad != self._state[0]:
                tensor.requires_grad_(self._state[0])
            tensor.grad = self._grad
        vars(tensor).clear()
        vars(tensor).update(self._attributes)
        tensor._backward_hooks = None if self._hooks is None else OrderedDict(self._hooks)
        tensor._post_accumulate_grad_hooks = None
        with torch.no_grad():
            lost = self._memory.untyped_storage().nbytes() < content.nbytes
            if lost or tensor.dtype != self._memory.dtype or tensor.data_ptr() != self._memory.data_ptr():
                tensor.data = content.clone() if lost else self._memory
                self._memory = tensor.detach()
            if tensor.shape != self._memory.shape or tensor.stride() != self._memory.stride():
                tensor.data = self._memory
            if not self._content.holds(tensor):
                tensor.copy_(content)
        self._state = self._now()
        return True

    def _now(self) -> tuple[Any, ...]:
        tensor: Any = self.tensor
        own = (tensor.requires_grad, tensor.dtype, tensor.data_ptr(), tensor.shape, tensor.stride())
        hooks, after = tensor._backward_hooks, tensor._post_accumulate_grad_hooks
        return (*own, tensor.is_leaf and id(tensor.grad), hooks and tuple(hooks), after and len(after))


def _is_looked_into(value: Any, kind: type) -> bool:
    """Whether what an object holds belongs to the model: not to its process, and not to who runs it."""
    if not hasattr(value, "__dict__") or getattr(kind, "is_no_state", False):
        return False
    return kind.__module__.partition(".")[0] not in _OF_THE_PROCESS


def _inside(container: Any) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _copied(container: Any) -> Any:
    plain: Any = next(kind for kind in _CONTAINERS if isinstance(container, kind))
    return plain(container)


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # tensors, arrays and the user's own objects that have no answer
        return False


def _fill(container: Any, before: Any) -> None:
    """Have a container hold what it held."""
    container.clear()
    if isinstance(container, dict | set):
        container.update(before)
    else:
        container.extend(before)


def _hidden(value: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]] | None:
    """How to ask for, and how to set, the state of something that is neither tensor nor container."""
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return value.tobytes, lambda seen: np.copyto(value, np.frombuffer(seen, value.dtype).reshape(value.shape))
    if isinstance(value, torch.Generator):
        return lambda: value.get_state().tolist(), lambda seen: value.set_state(torch.tensor(seen, dtype=torch.uint8))
    if isinstance(value, random.Random):
        return value.getstate, value.setstate
    return None
