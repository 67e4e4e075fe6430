"""Whether the code of a model's forward pass can do nothing but compute with tensors, modules and constants.

Code that asks for the formats of a layer, for the time or for a file would do something else in another
trial than when it was traced. What is not known to be harmless counts as harmful.
"""

import builtins
import dis
import inspect
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import torch
from torch import nn

from paretobit.graph.ops import is_leaf

_LIBRARIES = ("torch", "math", "operator", "_operator")
_BUILTINS = {
    *("abs", "all", "any", "bool", "dict", "enumerate", "filter", "float", "int", "isinstance", "len", "list"),
    *("map", "max", "min", "range", "reversed", "round", "set", "slice", "sorted", "sum", "super", "tuple"),
    "zip",
}
_CONSTANTS = (int, float, complex, str, bool, type(None), torch.dtype, torch.device)
_TELLING = {
    *("slots", "slot_names", "set_slots", "carries_formats", "active", "__dict__", "__class__", "__repr__"),
    *("extra_repr", "named_modules", "modules", "named_children", "children", "state_dict", "apply"),
    "_modules",
}
_HARMFUL = {
    *("IMPORT_NAME", "STORE_ATTR", "DELETE_ATTR", "STORE_GLOBAL", "DELETE_GLOBAL", "FORMAT_VALUE"),
    *("FORMAT_SIMPLE", "FORMAT_WITH_SPEC", "CONVERT_VALUE", "LOAD_NAME", "LOAD_BUILD_CLASS"),
}


def is_plain(model: nn.Module) -> bool:
    """Whether every `forward` that runs in a model is plain, and all that it calls."""
    kinds = {type(module) for module in _run_as_code(model)}
    return _Reader(kinds).read(kinds)


def _run_as_code(module: nn.Module) -> Iterator[nn.Module]:
    """The modules of which torch.fx looks into the code."""
    if is_leaf(module):
        return
    yield module
    for child in module.children():
        yield from _run_as_code(child)


class _Reader:
    """Reads functions, each once.

    Args:
        kinds: Classes of the modules: what is a method of one of them is read where its name is met.
    """

    def __init__(self, kinds: set[type[nn.Module]]) -> None:
        self._kinds = kinds
        self._read: set[CodeType] = set()

    def read(self, kinds: set[type[nn.Module]]) -> bool:
        """Whether their forward passes are plain."""
        return all(self._function(inspect.unwrap(kind.forward)) for kind in kinds)

    def _function(self, function: Any) -> bool:
        if _is_of_library(function):
            return True
        if not isinstance(function, FunctionType):
            return False
        free = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        contents = {name: cell.cell_contents for name, cell in free.items() if name != "__class__"}
        return all(map(self._thing, contents.values())) and self._code(function.__code__, function.__globals__)

    def _code(self, code: CodeType, names: dict[str, Any]) -> bool:
        if code in self._read:
            return True
        self._read.add(code)
        for step in dis.get_instructions(code):
            if step.opname in _HARMFUL:
                return False
            if step.opname == "LOAD_GLOBAL" and not self._global(str(step.argval), names):
                return False
            if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and not self._attribute(str(step.argval)):
                return False
        return all(self._code(inner, names) for inner in code.co_consts if isinstance(inner, CodeType))

    def _global(self, name: str, names: dict[str, Any]) -> bool:
        if name in names:
            return self._thing(names[name])
        found = getattr(builtins, name, None)
        return name in _BUILTINS or (isinstance(found, type) and issubclass(found, BaseException))

    def _thing(self, thing: Any) -> bool:
        """Whether something that code takes from outside is harmless."""
        if isinstance(thing, _CONSTANTS) or _is_of_library(thing):
            return True
        if isinstance(thing, tuple):
            return all(map(self._thing, thing))
        return self._function(thing)

    def _attribute(self, name: str) -> bool:
        """Whether an attribute of whatever it may be is harmless: a method or property of a module is read."""
        if name in _TELLING:
            return False
        for kind in self._kinds:
            found = inspect.getattr_static(kind, name, None)
            if isinstance(found, property):
                found = found.fget
            if isinstance(found, staticmethod | classmethod):
                found = found.__func__
            if isinstance(found, FunctionType) and not self._function(found):
                return False
        return True


def _is_of_library(thing: Any) -> bool:
    """Whether something belongs to torch or another library that knows nothing of formats."""
    if isinstance(thing, ModuleType):
        where = thing.__name__
    elif isinstance(thing, FunctionType | BuiltinFunctionType | type):
        where = thing.__module__ or "torch"  # functions of torch's written in C have none
    else:
        where = type(thing).__module__
    return where.split(".")[0] in _LIBRARIES
