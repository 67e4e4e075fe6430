"""Operations that are functions, not modules: a module without parameters holds the formats of one call.

Which operand goes through which slot: the data of an operation through `data_in`, the second
operand of a product through `weight`, what is added to a product through `bias`. Operands that are
not floating-point tensors (masks, indices, numbers) stay as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.formats import FULL, Format
from paretobit.nn.cache import TensorCache
from paretobit.nn.quantized import Quantized

ATTENTION = "scaled_dot_product_attention"


@dataclass(frozen=True)
class Operand:
    """An operand of a function: its slot, its position, and the names it can be given by."""

    slot: str
    position: int
    names: tuple[str, ...]

    def find(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What a call gives for it; None where it gives nothing."""
        if self.position < len(args):
            return args[self.position]
        return next((kwargs[name] for name in self.names if name in kwargs), None)


def _operands(*places: tuple[str, int, str]) -> tuple[Operand, ...]:
    return tuple(Operand(slot, position, tuple(names.split())) for slot, position, names in places)


_FIRST = ("data_in", 0, "input self")
_OF_DATA = _operands(_FIRST)
_BOTH = _operands(_FIRST, ("data_in", 1, "other"))
_PRODUCT = _operands(_FIRST, ("weight", 1, "other mat2 vec tensor"))
_AFFINE = _operands(_FIRST, ("weight", 1, "weight"), ("bias", 2, "bias"))
_UNARY = (
    *("relu", "relu6", "leaky_relu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish", "glu"),
    *("sigmoid", "tanh", "softplus", "softsign", "hardswish", "hardsigmoid", "hardtanh", "logsigmoid"),
    *("log_sigmoid", "softmax", "log_softmax", "softmin", "threshold", "hardshrink", "softshrink"),
    *("tanhshrink", "mean", *(f"{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3))),
    *(f"adaptive_{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3)),
)

FUNCTIONS: dict[str, tuple[Operand, ...]] = {
    **dict.fromkeys(_UNARY, _OF_DATA),
    **dict.fromkeys(("add", "sub", "mul", "div"), _BOTH),
    **dict.fromkeys(("matmul", "mm", "bmm", "mv"), _PRODUCT),
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d"), _AFFINE),
    "addmm": _operands(("bias", 0, "input self"), ("data_in", 1, "mat1"), ("weight", 2, "mat2")),
    "baddbmm": _operands(("bias", 0, "input self"), ("data_in", 1, "batch1"), ("weight", 2, "batch2")),
    "prelu": _operands(_FIRST, ("weight", 1, "weight")),
    "embedding": _operands(("weight", 1, "weight")),
    "batch_norm": _operands(_FIRST, ("weight", 3, "weight"), ("bias", 4, "bias")),
    "instance_norm": _operands(_FIRST, ("weight", 3, "weight"), ("bias", 4, "bias")),
    "layer_norm": _operands(_FIRST, ("weight", 2, "weight"), ("bias", 3, "bias")),
    "group_norm": _operands(_FIRST, ("weight", 2, "weight"), ("bias", 3, "bias")),
    "rms_norm": _operands(_FIRST, ("weight", 2, "weight")),
    ATTENTION: _operands(("data_in", 0, "query"), ("weight", 1, "key"), ("weight", 2, "value")),
}
"""Every function that can be quantised, and its operands."""

_SLOT_ORDER = ("data_in", "weight", "bias")
_CONVS = ("conv1d", "conv2d", "conv3d")


def possible_function_slots(op: str) -> tuple[str, ...]:
    """Slots of a function; empty where it is not supported."""
    used = {operand.slot for operand in FUNCTIONS.get(op, ())}
    return tuple(slot for slot in _SLOT_ORDER if slot in used)


def function_slots(op: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """Slots of one call: no `bias` where the call gives none."""
    used = {o.slot for o in FUNCTIONS.get(op, ()) if o.find(args, kwargs) is not None}
    return tuple(slot for slot in _SLOT_ORDER if slot in used)


def function_terms(op: str, shapes: Mapping[str, Sequence[int]]) -> int | None:
    """How many products a call adds up for one output, from the shapes of `data_in` and `weight`.

    None where it is no dot product, or several (attention).
    """
    if op in _CONVS:
        return math.prod(shapes["weight"][1:]) if "weight" in shapes else None
    if op in ("matmul", "mm", "bmm", "mv", "linear", "addmm", "baddbmm"):
        return shapes["data_in"][-1] if shapes.get("data_in") else None
    return None


class QuantizedFunction(Quantized):
    """The formats of one function call, at its site in the calling module; it has no parameters.

    Args:
        op: The function, one of `FUNCTIONS`.
        number: Which call of this function by this caller, in order of execution, counted from 0.
        caller: Path of the calling module.
        cache: For operands that are parameters.

    Raises:
        BadInput: No such function can be quantised.
    """

    def __init__(self, op: str, number: int, caller: str, cache: TensorCache) -> None:
        super().__init__()
        if op not in FUNCTIONS:
            raise BadInput("this function cannot be quantised", found=op, allowed=FUNCTIONS)
        self.op, self.number, self.caller = op, number, caller
        self.slot_names = possible_function_slots(op)
        self._cache = cache
        self.set_slots({})

    def available_slots(self) -> tuple[str, ...]:
        """All slots of the function: which operands a call gives is known when it is made."""
        return self.slot_names

    def set_slots(self, formats: Mapping[str, Format]) -> None:
        """Set every slot: those not named return to full precision."""
        super().set_slots(formats)
        self.active = any(f is not FULL for f in self.slots.values())

    def operand(self, slot: str, value: Any) -> Any:
        """An operand through the format of its slot."""
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        is_stored = slot != "data_in" and isinstance(value, nn.Parameter)
        return self.stored(slot, value) if is_stored else self.data(slot, value)

    def forward(self, *args: Any, function: Callable[..., Any], **kwargs: Any) -> Any:
        """What `function` computes on quantised operands; where it works in place, this does."""
        if self.op == ATTENTION:
            return _attention(self, *args, **kwargs)
        given, named = list(args), dict(kwargs)
        for operand in FUNCTIONS[self.op]:
            if operand.position < len(given):
                given[operand.position] = self.operand(operand.slot, given[operand.position])
            for name in operand.names:
                if name in named:
                    named[name] = self.operand(operand.slot, named[name])
        result = function(*given, **named)
        before: Any = args[0] if args else kwargs.get("input")
        after = given[0] if given else named.get("input")
        return before.copy_(result) if result is after and after is not before else result

    def _operation(self) -> str:
        return "".join(part[:1].upper() + part[1:] for part in self.op.split("_"))


def _attention(
    site: QuantizedFunction,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(q̂ k̂ᵀ · scale + mask) · v̂, the probabilities quantised as the data of the second product.

    As `torch.nn.functional.scaled_dot_product_attention`: a row whose every key is masked gives 0.

    Args:
        site: Whose slots: `data_in` for the query and the probabilities, `weight` for key and value.
        query: `(..., heads, queries, width)`.
        key: `(..., heads, keys, width)`.
        value: `(..., heads, keys, value width)`.
        attn_mask: Broadcast to `(..., heads, queries, keys)`: booleans (False masks) or what is added.
        dropout_p: Probability with which a probability is dropped.
        is_causal: A query sees the keys up to its own position; then there is no `attn_mask`.
        scale: 1 / √width unless told.
        enable_gqa: Each head of keys and values serves several heads of queries.
    """
    q, k, v = site.operand("data_in", query), site.operand("weight", key), site.operand("weight", value)
    if enable_gqa:
        k = k.repeat_interleave(q.size(-3) // k.size(-3), -3)
        v = v.repeat_interleave(q.size(-3) // v.size(-3), -3)
    scores = q @ k.transpose(-2, -1) * (1 / math.sqrt(q.size(-1)) if scale is None else scale)
    if is_causal:
        if attn_mask is not None:
            raise RuntimeError("attention takes either attn_mask or is_causal")
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    masked = (scores == -math.inf).all(-1, keepdim=True)
    probabilities = torch.softmax(scores.masked_fill(masked, 0), -1).masked_fill(masked, 0)
    if dropout_p:
        probabilities = F.dropout(probabilities, dropout_p)
    result: Tensor = site.operand("data_in", probabilities) @ v
    return result


_SITE = re.compile(r"(?P<op>.+?)(?:_(?P<number>[1-9]\d*))?")


def read_site(site: str) -> tuple[str, str, int]:
    """Caller, function and number of a site.

    >>> read_site("encoder.attention.matmul_1"), read_site("add")
    (('encoder.attention', 'matmul', 1), ('', 'add', 0))
    """
    caller, _, name = site.rpartition(".")
    if name in FUNCTIONS:
        return caller, name, 0
    match = _SITE.fullmatch(name)
    assert match is not None
    return caller, match["op"], int(match["number"] or 0)
