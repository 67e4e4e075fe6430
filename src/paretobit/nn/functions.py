"""Operations that are functions, not modules: a module without parameters holds the formats of one call.

Which operand goes through which slot: the data of an operation through `data_in`, the second
operand of a product through `weight`, what is added to a product through `bias`. Operands that are
not floating-point tensors (masks, indices, numbers) stay as they are.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, is_grad_enabled, nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.formats import FULL, Format
from paretobit.graph.faithful import works_in_place
from paretobit.graph.operations import OPERATIONS, Operand, row_of
from paretobit.nn.cache import TensorCache
from paretobit.nn.quantized import Quantized, swap_channels

ATTENTION = "scaled_dot_product_attention"


def possible_function_slots(op: str) -> tuple[str, ...]:
    """Slots of a function; empty where it is not supported."""
    return row_of(op).slots


def function_slots(op: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """Slots of one call: no `bias` where the call gives none."""
    row = row_of(op)
    used = {o.slot for o in row.given(args, kwargs, shows_parameter) if o.find(args, kwargs) is not None}
    return tuple(slot for slot in row.slots if slot in used)


def function_terms(op: str, shapes: Mapping[str, Sequence[int]]) -> int | None:
    """How many products a call adds up for one output, from the shapes of `data_in` and `weight`.

    None where it is no dot product, or several (attention).
    """
    cost = row_of(op).cost
    if cost == "convolution":
        return math.prod(shapes["weight"][1:]) if "weight" in shapes else None
    if cost in ("linear", "contraction"):
        return shapes["data_in"][-1] if shapes.get("data_in") else None
    return None


def shows_parameter(value: Any) -> bool:
    """Whether an argument is a parameter, or a view of one."""
    return isinstance(value, nn.Parameter) or (isinstance(value, Tensor) and isinstance(value._base, nn.Parameter))


def shown_once(value: Tensor) -> Tensor:
    """A tensor without what `expand` repeats; itself where nothing is repeated."""
    for axis, size in enumerate(value.shape):
        if value.stride(axis) == 0 and size > 1:
            value = value.narrow(axis, 0, 1)
    return value


def laid_out(operand: Operand | None, value: Tensor) -> Tensor:
    """An operand of a function in the layout in which its format sees it: of a weight `(outputs, terms)`.

    What a layer would have as its weight, in its own layout, lies as it does there.
    """
    if operand is None or operand.slot != "weight":
        return value
    if operand.groups is not None:
        return swap_channels(value, operand.groups)
    if operand.terms is None:
        return value
    outputs, terms = _sides(operand.terms, value.dim())
    return value.permute(*outputs, *terms).reshape(math.prod(value.shape[i] for i in outputs), -1)


def put_back(operand: Operand, value: Tensor, shape: Sequence[int]) -> Tensor:
    """What `laid_out` gave, in the layout of the call, of this shape."""
    if operand.slot != "weight" or (operand.groups is None and operand.terms is None):
        return value
    if operand.groups is not None or operand.terms is None:
        return swap_channels(value, operand.groups or 1)
    outputs, terms = _sides(operand.terms, len(shape))
    order = (*outputs, *terms)
    return value.reshape([shape[i] for i in order]).permute([order.index(i) for i in range(len(order))])


def _sides(terms: Sequence[int], axes: int) -> tuple[list[int], list[int]]:
    """The axes of the outputs and those of the terms; a vector has only terms."""
    inside = {i % axes for i in terms if -axes <= i < axes} or set(range(axes))
    return [i for i in range(axes) if i not in inside], sorted(inside)


class QuantizedFunction(Quantized):
    """The formats of one function call, at its site in the calling module; it has no parameters.

    Args:
        op: The function, one that has operands in the table of operations.
        number: Which call of this function by this caller, in order of execution, counted from 0.
        caller: Path of the calling module.
        cache: For operands that are parameters.
        place: Where in the code it is called, and which of the calls there it is; empty: the number tells.

    Raises:
        BadInput: No such function can be quantised.
    """

    def __init__(self, op: str, number: int, caller: str, cache: TensorCache, place: str = "") -> None:
        super().__init__()
        if not OPERATIONS.operands(op):
            allowed = [entry.name for entry in OPERATIONS if entry.value.operands]
            raise BadInput("this function cannot be quantised", found=op, allowed=allowed)
        self.op, self.number, self.caller, self.place = op, number, caller, place
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

    def operand(self, operand: Operand, value: Any) -> Any:
        """An operand through the format of its slot; a parameter, or a view of one, from the cache."""
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        slot = operand.slot
        number_format, source = self.slots[slot], value if value._base is None else value._base
        if number_format is FULL:
            return value
        once = shown_once(value) if slot == "weight" or isinstance(source, nn.Parameter) else value
        if once is not value:
            return self.operand(operand, once).expand(value.shape)
        stored = slot != "data_in" and isinstance(source, nn.Parameter)

        def quantize(x: Tensor) -> Tensor:
            change = number_format.quantize_latent if stored and self.training else number_format.quantize
            if number_format.traits.scale == "none":  # nothing is shared between elements
                return change(x)
            return put_back(operand, change(laid_out(operand, x)), x.shape)

        if not stored:
            return quantize(value)
        if not number_format.traits.deterministic or (is_grad_enabled() and value.requires_grad):
            return quantize(value)
        place = (operand.terms, operand.groups, value.shape, value.stride(), value.storage_offset())
        key = (id(self), slot, place, number_format, self.training)
        return self._cache.get(key, source, lambda _: quantize(value.detach()))

    def forward(self, *args: Any, function: Callable[..., Any], **kwargs: Any) -> Any:
        """What `function` computes on quantised operands; where it works in place, this does."""
        if self.op == ATTENTION:
            return _attention(self, *args, **kwargs)
        given, named = list(args), dict(kwargs)
        for operand in row_of(self.op).given(args, kwargs, shows_parameter):
            if operand.position < len(given):
                given[operand.position] = self.operand(operand, given[operand.position])
            for name in operand.names:
                if name in named:
                    named[name] = self.operand(operand, named[name])
        before: Any = args[0] if args else kwargs.get("input")
        after: Any = given[0] if given else named.get("input")
        if after is before or not works_in_place(function, given, named):
            return function(*given, **named)
        own = after.clone()  # autograd lets nobody write into what a format returned
        result = function(own, *given[1:], **named) if given else function(**{**named, "input": own})
        return before.copy_(result)

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
    data, weight = Operand("data_in", 0, ()), Operand("weight", 1, ())
    q, k, v = site.operand(data, query), site.operand(weight, key), site.operand(weight, value)
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
    result: Tensor = site.operand(data, probabilities) @ v
    return result


_SITE = re.compile(r"(?P<op>.+?)(?:_(?P<number>\d+))?")


def read_site(site: str) -> tuple[str, str, int]:
    """Caller, function and number of a site.

    >>> read_site("encoder.attention.matmul_1"), read_site("add")
    (('encoder.attention', 'matmul', 1), ('', 'add', 0))
    """
    caller, _, name = site.rpartition(".")
    if OPERATIONS.operands(name):
        return caller, name, 0
    match = _SITE.fullmatch(name)
    assert match is not None
    return caller, match["op"], int(match["number"] or 0)
