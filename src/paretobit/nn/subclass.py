"""Quantised classes for subclasses of torch's layers, made when they are met.

A subclass that keeps the `forward` of its layer, whatever else it changes (arguments, initial values,
padding, where its weight comes from), computes what the layer does. Its quantised class has the
subclass before that of the layer: what the subclass overrides is honoured.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from paretobit.nn.quantized import Quantized

_MADE: dict[type[nn.Module], type[Quantized]] = {}
_OURS = frozenset(
    name for name in (*vars(Quantized), *Quantized.__annotations__) if name[:2] != "__" and name != "_get_name"
)
"""What a quantised class adds to a layer, and a subclass must not mean otherwise."""


def quantized_subclass(
    kind: type[nn.Module], known: Callable[[type[nn.Module]], type[Quantized] | None]
) -> type[Quantized] | None:
    """The quantised class of a subclass of a layer; None where it computes something of its own.

    Args:
        kind: The subclass.
        known: From a layer type to its quantised class.
    """
    if kind in _MADE:
        return _MADE[kind]
    base: Any = next((base for base in kind.__mro__ if known(base) is not None), None)
    layer = None if base is None else known(base)
    if layer is None or kind.forward is not base.forward or not is_ordinary(kind):
        return None
    own = kind.__mro__[: kind.__mro__.index(base)]
    if any(_OURS & vars(part).keys() for part in own):
        return None
    return _made(kind, layer)


def _made(kind: type[nn.Module], layer: type[Quantized]) -> type[Quantized]:
    if kind not in _MADE:
        same = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__reduce_ex__": _reduce}
        _MADE[kind] = type(f"Quantized{kind.__name__}", (kind, layer), {**same, "_made_of": (kind, layer)})
    return _MADE[kind]


def is_ordinary(kind: type[nn.Module]) -> bool:
    """Whether copies and pickles of a class are made by its dictionary, as those of most.

    Those of `torch.nn.utils.parametrize` are, which cannot be pickled.
    """
    copies: Any = getattr(kind, "__deepcopy__", None)
    known = copies is None or copies.__module__ == "torch.nn.utils.parametrize"
    return known and kind.__reduce__ is object.__reduce__ and kind.__reduce_ex__ is object.__reduce_ex__


def _reduce(module: Any, protocol: Any) -> Any:
    """As the subclass, with its quantised class made anew."""
    plainly: Any = nn.Module.__reduce_ex__(module, max(int(protocol), 2))
    _, (_, *arguments), *rest = plainly
    return _again, (*type(module)._made_of, *arguments), *rest


def _again(kind: Any, layer: Any, *arguments: Any) -> Any:
    made = _made(kind, layer)
    return made.__new__(made, *arguments)
