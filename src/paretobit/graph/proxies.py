"""Symbols that work in place where tensors do: `x += y` writes into `x`, which torch.fx forgets."""

import operator
from collections.abc import Callable
from typing import Any

from torch import fx

from paretobit.graph.operations import row_of

_AUGMENTED = ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor")


class TensorProxy(fx.Proxy):
    """A symbol of a tensor, or of a number that was asked of one."""


def _augmented(name: str) -> Callable[[fx.Proxy, Any], Any]:
    function = getattr(operator, name)
    plain = getattr(operator, {"iand": "and_", "ior": "or_"}.get(name, name[1:]))

    def work(self: fx.Proxy, other: Any) -> Any:
        target = plain if _is_number(self.node) else function
        return self.tracer.create_proxy("call_function", target, (self, other), {})

    return work


for _name in _AUGMENTED:
    setattr(TensorProxy, f"__{_name}__", _augmented(_name))


def _is_number(node: fx.Node) -> bool:
    """Whether a symbol comes from a question (`x.size(0)`, `x.shape[1] // 2`), and so stands for no tensor."""
    if node.op == "call_method":
        return row_of(str(node.target)).kind == "question"
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return row_of(str(node.args[1])).kind == "question"
    plain = getattr(node.target, "__module__", "") in ("_operator", "builtins")
    return plain and bool(node.all_input_nodes) and all(map(_is_number, node.all_input_nodes))
