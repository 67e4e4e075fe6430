"""The operations that a model is run by, made from its steps."""

import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from paretobit.formats import FULL, Format
from paretobit.graph.contents import Content, content_of
from paretobit.graph.executable import Instruction, Result, results_in
from paretobit.graph.model_graph import filled
from paretobit.nn import Quantized, QuantizedFunction, layer_at
from paretobit.nn.linear import QuantizedLinear
from paretobit.trials.evaluation.purity import is_pure_function, is_pure_layer
from paretobit.trials.evaluation.reuse import Sightings

Values = list[Any]
_ADDRESSES = 10_000
NARROW = range(2, 11)
MANY_ROWS = 1000
_FRESH = (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)


class Formats:
    """Numbers for formats: equal ones have the same. One that draws random numbers has none."""

    def __init__(self) -> None:
        self._by_address: dict[int, tuple[Format, int | None]] = {}
        self._numbers: dict[Format, int | None] = {}

    def number(self, number_format: Format) -> int | None:
        """The number of a format."""
        known = self._by_address.get(id(number_format))
        if known is None:
            if len(self._by_address) >= _ADDRESSES:
                self._by_address.clear()
            if number_format not in self._numbers:
                drawn = not number_format.traits.deterministic
                self._numbers[number_format] = None if drawn else len(self._numbers)
            known = self._by_address[id(number_format)] = (number_format, self._numbers[number_format])
        return known[1]


@dataclass(eq=False)
class Operation:
    """Something that is computed at once.

    Attributes:
        inputs: Numbers of the operations whose results it takes.
        compute: Its result, from the results of all before.
        state: What the result depends on besides the inputs; None where nobody can say.
        pure: False: it runs whether or not its result is needed.
        in_place: It writes into its first input.
        fresh: Nothing else refers to the memory of its result.
        quantizes: For the quantisation of a layer's input: the format, as it is now.
        varies: Its state was seen to change.
        seconds: What it took lately.
        size: Bytes of its results lately, all batches together.
        last: Its state lately.
        key: The key of its result lately.
        taken: The keys of its inputs then.
        sightings: Of its results.
    """

    inputs: tuple[int, ...]
    compute: Callable[[Values], Any]
    state: Callable[[], Hashable | None]
    pure: bool = True
    in_place: bool = False
    fresh: bool = False
    quantizes: Callable[[], Format] | None = None
    varies: bool = False
    seconds: float = 0.0
    size: int = 0
    last: Hashable = None
    key: int | None = None
    taken: tuple[int | None, ...] = ()
    sightings: Sightings = field(default_factory=Sightings)


def operations_of(model: nn.Module, steps: Sequence[Instruction], formats: Formats) -> list[Operation]:
    """What runs a model, in order; the last one gives its result.

    The quantisation of what a layer takes is an operation of its own: the same data in the same format
    are the same for other weights, and for other layers.
    """
    made: list[Operation] = []
    place: list[int] = []  # of each step's result

    def at(value: Any) -> Any:
        return filled(value, Result, lambda result: Result(place[result.step]))

    for step in steps:
        args, kwargs = at(step.args), at(step.kwargs)
        if step.node.kind == "placeholder":
            made.append(Operation((), lambda values: values[0], _unknown))
        elif step.node.kind == "get_attr":
            made.append(_attribute(model, str(step.target)))
        elif step.node.kind == "output":
            made.append(Operation(tuple(results_in(args)), _filler(args[0]), lambda: ()))
        elif step.node.kind == "call_module":
            layer = model.get_submodule(str(step.target))
            splits = isinstance(layer, Quantized) and layer.quantizes_input and args and not kwargs
            if splits and len(args) == 1 and isinstance(args[0], Result):
                made.append(_quantisation(layer, args[0].step, formats))
                args = (Result(len(made) - 1),)
            made.append(_layer(layer, args, kwargs, formats, bool(splits), step.in_place))
        else:
            made.append(_function(model, step, args, kwargs, formats))
        place.append(len(made) - 1)
    return made


def _attribute(model: nn.Module, path: str) -> Operation:
    """A parameter, buffer or other attribute of the model."""
    inside, _, name = path.rpartition(".")
    owner = weakref.ref(model.get_submodule(inside))

    def value() -> Any:
        return getattr(owner(), name)

    kept: list[Content] = []

    def state() -> Hashable | None:
        return _numbers([value()], kept) if isinstance(value(), Tensor) else None

    return Operation((), lambda _: value(), state)


def _quantisation(layer: Any, source: int, formats: Formats) -> Operation:
    """The data of a layer through their format."""

    def number_format() -> Format:
        found: Format = layer.slots["data_in"]
        return found

    def compute(values: Values) -> Any:
        return number_format().quantize(values[source])

    return Operation((source,), compute, lambda: formats.number(number_format()), fresh=True, quantizes=number_format)


def _layer(
    layer: nn.Module, args: Any, kwargs: Any, formats: Formats, quantized_before: bool, in_place: bool
) -> Operation:
    """The call of a layer; one whose data are quantised already takes them as they are."""
    call = _caller(layer, args, kwargs)
    if isinstance(layer, nn.Linear) and is_narrow(layer) and len(args) == 1 and isinstance(args[0], Result):
        call = _narrow(layer, args[0].step)
    pure, parts = is_pure_layer(layer), tuple(layer.modules())
    slotted = tuple(part for part in parts if isinstance(part, Quantized))
    skipped, kept = "data_in" if quantized_before else "", list[Content]()

    def compute(values: Values) -> Any:
        slots = slotted[0].slots
        own = slots["data_in"]
        slots["data_in"] = FULL
        try:
            return call(values)
        finally:
            slots["data_in"] = own

    def state() -> Hashable | None:
        if any(part.training for part in parts):
            return None
        held = [t for part in parts for own in (part._parameters, part._buffers) for t in own.values()]
        found: list[Hashable] = [*_numbers(held, kept)]
        for part in slotted:
            for slot, number_format in part.slots.items():
                if slot != skipped:
                    number = formats.number(number_format)
                    if number is None:
                        return None
                    found.append(number)
        return tuple(found)

    return Operation(
        tuple(results_in((args, kwargs))),
        compute if quantized_before else call,
        state if pure else _unknown,
        pure=pure,
        in_place=in_place,
        fresh=isinstance(layer, _FRESH),
    )


def is_narrow(layer: nn.Linear) -> bool:
    """Whether a layer has so few outputs that for many rows `weight · inputᵀ` is 1.5 to 4 times as fast.

    The sums are the same, their order is not: the last bits differ.
    """
    return type(layer) in (nn.Linear, QuantizedLinear) and layer.out_features in NARROW


def _narrow(layer: nn.Linear, source: int) -> Callable[[Values], Any]:
    """The call of a layer with few outputs; its result has one contiguous row per output."""

    def compute(values: Values) -> Any:
        x = values[source]
        hooked = layer._forward_pre_hooks or layer._forward_hooks
        if x.dim() != 2 or len(x) < MANY_ROWS or hooked or torch.is_grad_enabled():
            return layer(x)
        weight: Tensor = layer.weight
        bias: Tensor | None = layer.bias
        if isinstance(layer, QuantizedLinear):
            x, weight, bias = layer.data("data_in", x), layer.parameter("weight"), layer.parameter("bias")
        if bias is None:
            return torch.mm(weight, x.t()).t()
        return torch.addmm(bias[:, None], weight, x.t()).t()

    return compute


def _function(model: nn.Module, step: Instruction, args: Any, kwargs: Any, formats: Formats) -> Operation:
    """The call of a function or method, by the module that quantises it where there is one."""
    function = getattr(Tensor, step.target) if isinstance(step.target, str) else step.target
    plain = _caller(function, args, kwargs)
    inputs, pure = tuple(results_in((args, kwargs))), is_pure_function(step.target, args, kwargs)
    site = layer_at(model, step.node.site) if step.node.site else None
    if not isinstance(site, QuantizedFunction):
        return Operation(inputs, plain, (lambda: ()) if pure else _unknown, pure=pure, in_place=step.in_place)
    quantized = _caller(site, args, {**kwargs, "function": function})

    def compute(values: Values) -> Any:
        return quantized(values) if site.active else plain(values)

    def state() -> Hashable | None:
        numbers = tuple([formats.number(number_format) for number_format in site.slots.values()])
        return None if None in numbers else numbers

    return Operation(inputs, compute, state if pure else _unknown, pure=pure, in_place=step.in_place)


def _caller(function: Callable[..., Any], args: Any, kwargs: Any) -> Callable[[Values], Any]:
    """Calls a function on results; quickly where it takes one or two of them."""
    if not kwargs and len(args) == 1 and isinstance(args[0], Result):
        only = args[0].step
        return lambda values: function(values[only])
    if not kwargs and len(args) == 2 and all(isinstance(arg, Result) for arg in args):
        left, right = args[0].step, args[1].step
        return lambda values: function(values[left], values[right])
    positional, named = _filler(args), _filler(kwargs)
    return lambda values: function(*positional(values), **named(values))


def _filler(value: Any) -> Callable[[Values], Any]:
    return lambda values: filled(value, Result, lambda result: values[result.step])


def _numbers(tensors: Iterable[Tensor | None], kept: list[Content]) -> tuple[int, ...]:
    """What tensors hold, in numbers; noted in `kept`, so that it is the same as long as they hold it."""
    present = [tensor for tensor in tensors if tensor is not None]
    if len(kept) != len(present) or not all(c.is_of(t) and c.is_in(t) for t, c in zip(present, kept, strict=True)):
        kept[:] = [content_of(tensor) for tensor in present]
    return tuple([content.number for content in kept])


def _unknown() -> None:
    return None
