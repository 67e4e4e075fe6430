"""Where the graph of torch.fx differs from what a model does: branches taken otherwise, work in place."""

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from paretobit.graph.places import Call, watching


class NotFaithful(Exception):
    """What was traced is not what the model does."""


def check_faithful(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    calls: Sequence[str],
    functions: Mapping[Call, int],
    result: Any,
) -> None:
    """Compare what was traced with a run of the model: symbols are no tensors, which a model may ask.

    Args:
        model: At rest.
        args: Of the run.
        kwargs: Of the run.
        calls: Paths of the leaf modules that the traced graph calls, in order.
        functions: The functions it calls that can carry formats, and how often at each place.
        result: What the traced graph gives for the same arguments.

    Raises:
        NotFaithful: Other layers or functions are called, or the result differs.
    """
    with watching(model) as seen:
        found = model(*args, **kwargs)
    paths = {id(module): path for path, module in model.named_modules()}
    if seen.layers != [paths[id(model.get_submodule(path))] for path in calls]:
        raise NotFaithful("the layers it finds are not those of a run")
    if any(seen.functions[call] != number for call, number in functions.items()):
        raise NotFaithful("the functions it finds are not those of a run")
    ours, theirs = ([t for t in tree_leaves(r) if isinstance(t, Tensor)] for r in (result, found))
    if len(ours) != len(theirs) or not all(map(_same, ours, theirs)):
        raise NotFaithful("what it finds does not compute what a run does")


def _same(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and torch.allclose(
        left.double(), right.double(), rtol=1e-4, atol=1e-6, equal_nan=True
    )


class Writers:
    """Which node wrote a tensor last, where operations work in place and torch.fx sees their argument."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._first: dict[str, str] = {}
        self._last: dict[str, str] = {}

    def last(self, source: fx.Node) -> str:
        """Name of the node whose result a use of `source` takes by now."""
        first = self._first.get(source.name, source.name)
        return self._last.get(first, source.name)

    def take(self, node: fx.Node) -> None:
        """Note a node, in order of execution."""
        target = node.args[0] if node.args else node.kwargs.get("input")
        if isinstance(target, fx.Node) and self.in_place(node):
            first = self._first.get(target.name, target.name)
            self._first[node.name] = first
            self._last[first] = node.name

    def in_place(self, node: fx.Node) -> bool:
        """Whether a node writes its result into its first argument."""
        if node.op == "call_module":
            return bool(getattr(self._model.get_submodule(str(node.target)), "inplace", False))
        if node.op not in ("call_function", "call_method"):
            return False
        return works_in_place(node.target, node.args, node.kwargs)


def works_in_place(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the call of a function, or of a method given by its name, writes into its first argument."""
    name = str(getattr(function, "__name__", function))
    if name.endswith("_") and not name.endswith("__"):
        return True
    if name in _OPERATORS or "inplace" in kwargs or not callable(function):
        return name in _OPERATORS or bool(kwargs.get("inplace", False))
    place = _place_of_inplace(function)
    return place is not None and place < len(args) and bool(args[place])


_OPERATORS = frozenset(
    prefix.format(op)
    for op in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
    for prefix in ("i{}", "__i{}__")
)


@functools.lru_cache(maxsize=4096)
def _place_of_inplace(function: Any) -> int | None:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # functions of C have none, and no such argument
        return None
    return names.index("inplace") if "inplace" in names else None
