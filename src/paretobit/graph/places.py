"""Where in the code a function is called: what tells its calls apart, whatever else runs.

A place is the chain of Python functions from the `forward` of the calling module down to the call,
each with the lines and columns of what it is about to do, counted from where the function begins:
`Attention.forward 3:8-3:27 > scaled 1:11-1:24`. It is the same while torch.fx traces, while a run is
recorded and while a model runs with formats, and the same in every version of Python: frames of
torch's and of the standard library are left out (those of torch's layers stay, as their code calls
functions too), and a comprehension belongs to the function around it.
"""

import functools
import os
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from paretobit.graph.operations import OPERATIONS
from paretobit.graph.ops import function_op, is_leaf

Call = tuple[str, str, str]
"""Path of the calling module, operation, and place with the count there."""

_TORCH = os.path.dirname(torch.__file__) + os.sep
_LAYERS = os.path.join(_TORCH, "nn", "modules") + os.sep
_CALL_OF_A_MODULE = _LAYERS + "module.py"
_TRACER = os.path.join(_TORCH, "fx", "_symbolic_trace.py")
_HERE = os.path.dirname(__file__) + os.sep
_STANDARD = sysconfig.get_path("stdlib") + os.sep
_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>")  # frames of their own before Python 3.12

_END, _LEFT_OUT, _KEPT, _INLINE = range(4)
_points: dict[tuple[int, int, int], tuple[CodeType, CodeType, str]] = {}  # code is compared slowly: by identity


def place_of(frame: FrameType | None) -> str:
    """The place of the call that is under way in a frame, or in one that it was called from."""
    points: list[str] = []
    inner: FrameType | None = None
    while frame is not None:
        role = _role(frame.f_code.co_filename, frame.f_code.co_name)
        if role == _END:
            break
        if role != _LEFT_OUT:
            inner = frame if inner is None else inner
            if role == _KEPT:
                points.append(_point(inner, frame.f_code))
                inner = None
        frame = frame.f_back
    return " > ".join(reversed(points))


@functools.cache
def _role(file: str, name: str) -> int:
    """What a frame of a function is to a place."""
    if (file == _CALL_OF_A_MODULE and name in ("_call_impl", "inner")) or (file == _TRACER and name == "trace"):
        return _END
    packages = "site-packages" in file or "dist-packages" in file
    if file.startswith(_TORCH):
        return _KEPT if file.startswith(_LAYERS) and file != _CALL_OF_A_MODULE else _LEFT_OUT
    if file.startswith(_HERE) or name == "__torch_function__" or (file.startswith(_STANDARD) and not packages):
        return _LEFT_OUT
    return _INLINE if name in _COMPREHENSIONS else _KEPT


def _point(inner: FrameType, code: CodeType) -> str:
    """What a function is about to do, or a comprehension within it."""
    key = (id(inner.f_code), inner.f_lasti, id(code))
    known = _points.get(key)
    if known is None:
        line, end_line, column, end = next(islice(inner.f_code.co_positions(), inner.f_lasti // 2, None))
        first = code.co_firstlineno
        span = f"{(line or 0) - first}:{column}-{(end_line or 0) - first}:{end}"
        known = _points[key] = (inner.f_code, code, f"{code.co_qualname} {span}")
    return known[2]


def counted(place: str, number: int) -> str:
    """A place with the count there: the call of that number, from 0, in one run of the model."""
    return f"{place} #{number}"


def uncounted(place: str) -> str:
    """Without the count."""
    return place.rpartition(" #")[0]


class Watch(TorchFunctionMode):
    """What a model calls while it runs in `watching`.

    Attributes:
        layers: Paths of the leaf modules, in order.
        functions: How often which function that can carry formats is called, by caller and place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[str] = []
        self.functions: Counter[Call] = Counter()
        self._path: list[str | None] = [""]  # None: within a leaf

    def enter(self, path: str) -> Callable[..., None]:
        """A forward pre-hook, before all others."""

        def hook(module: nn.Module, args: Any) -> None:
            within, leaf = self._path[-1] is None, is_leaf(module)
            if leaf and not within:
                self.layers.append(path)
            self._path.append(None if leaf or within else path)

        return hook

    def leave(self, module: nn.Module, args: Any, result: Any) -> None:
        """A forward hook."""
        self._path.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        op, caller = function_op(func)[0], self._path[-1]
        if caller is not None and OPERATIONS.operands(op):
            self.functions[caller, op, place_of(sys._getframe(1))] += 1
        return func(*args, **(kwargs or {}))

    @property
    def calls(self) -> frozenset[Call]:
        """Every call of a function, its count in its place."""
        return frozenset(
            (owner, op, counted(place, i)) for (owner, op, place), n in self.functions.items() for i in range(n)
        )


@contextmanager
def watching(model: nn.Module) -> Iterator[Watch]:
    """See what a model calls in the block."""
    watch = Watch()
    with ExitStack() as stack:
        for path, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(watch.enter(path), prepend=True).remove)
            stack.callback(module.register_forward_hook(watch.leave, always_call=True).remove)
        with watch:
            yield watch
