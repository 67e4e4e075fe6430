"""Accumulators of integer layers: the width that a dot product needs, and what data make of it."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput
from paretobit.formats import Integer, bits_for, sum_range
from paretobit.graph import ModelGraph
from paretobit.nn import Quantized, dot_product, dot_terms, weight_rows

WIDTHS = (8, 16, 24, 32)


@dataclass(frozen=True)
class Accumulator:
    """What one layer adds up, in codes of `2^-frac_width`.

    Attributes:
        layer: Name of the node.
        terms: Products a sum.
        frac_width: Fractional bits of a product: those of data and weight together.
        width: Bits that no data and no weights overflow.
        width_for_weights: Bits that no data overflow with the weights (and bias) the layer has.
        width_seen: Bits that the sums on the calibration data needed.
        overflow: Accumulator width to the fraction of those sums that it does not hold.
    """

    layer: str
    terms: int
    frac_width: int
    width: int
    width_for_weights: int
    width_seen: int
    overflow: Mapping[int, float]


def accumulators(
    graph: ModelGraph, batches: Iterable[Tensor], widths: Sequence[int] = WIDTHS
) -> tuple[Accumulator, ...]:
    """Run calibration data through a quantised model and watch the sums of its integer layers.

    Sums are exact up to 53 bits. Only final sums count: two's complement forgives an overflow on
    the way that is undone. A layer without integer formats in `data_in` and `weight` is left out.

    Args:
        graph: The model; its quantised layers carry their formats.
        batches: Inputs as the model takes them.
        widths: Accumulator widths, 1 to 64, of which overflow is counted.

    Raises:
        BadInput: There is no batch, or a width is no width.
    """
    for width in widths:
        if not 1 <= width <= 64:
            raise BadInput("no accumulator width", key="widths", found=width, allowed="1 to 64")
    watched: dict[str, _Watch] = {}
    seen = False
    for node in graph.layers:
        module = graph.module(node)
        if isinstance(module, Quantized) and _accumulates_integers(module):
            watched.setdefault(node.owner, _Watch(node.name, module, tuple(widths)))
    with ExitStack() as stack, torch.no_grad():
        for watch in watched.values():
            handle = watch.module.register_forward_pre_hook(watch.see, with_kwargs=True)
            stack.callback(handle.remove)
        for batch in batches:
            graph.model(batch)
            seen = True
    if not seen:
        raise BadInput("accumulators need calibration data", found="no batch")
    return tuple(watch.result() for watch in watched.values())


def _accumulates_integers(module: Quantized) -> bool:
    slots = (module.slots.get("data_in"), module.slots.get("weight"))
    return dot_terms(module) is not None and all(isinstance(f, Integer) for f in slots)


class _Watch:
    """The sums of one layer."""

    def __init__(self, name: str, module: Quantized, widths: tuple[int, ...]) -> None:
        data, weight = module.slots["data_in"], module.slots["weight"]
        assert isinstance(data, Integer)
        assert isinstance(weight, Integer)
        self.name, self.module, self.data = name, module, data
        self.range = sum_range(data, weight, dot_terms(module) or 0)
        self.frac_width = (data.frac_width or 0) + (weight.frac_width or 0)
        self.weights = module.parameter("weight").detach().double() / weight.step
        bias = module.parameter("bias")
        self.bias = None if bias is None else (bias.detach().double() * 2.0**self.frac_width).round()
        self.low = self.high = 0.0
        self.sums = 0
        self.over = dict.fromkeys(widths, 0)

    def see(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A forward pre-hook."""
        x = arguments[0] if arguments else next(iter(named.values()))
        codes = self.data.quantize(x.detach()).double() / self.data.step
        sums = dot_product(self.module, codes, self.weights, self.bias)
        self.low, self.high = min(self.low, float(sums.min())), max(self.high, float(sums.max()))
        self.sums += sums.numel()
        for width in self.over:
            held = (sums >= -(2.0 ** (width - 1))) & (sums <= 2.0 ** (width - 1) - 1)
            self.over[width] += int((~held).sum())

    def result(self) -> Accumulator:
        """What was seen, beside what could be."""
        return Accumulator(
            layer=self.name,
            terms=dot_terms(self.module) or 0,
            frac_width=self.frac_width,
            width=bits_for(*self.range),
            width_for_weights=self._width_for_weights(),
            width_seen=bits_for(min(int(self.low), -1), int(self.high)),
            overflow={width: count / max(self.sums, 1) for width, count in self.over.items()},
        )

    def _width_for_weights(self) -> int:
        low, high = self.data.code_range
        rows = weight_rows(self.module, self.weights)
        assert rows is not None
        positive, negative = rows.clamp(min=0).sum(1), rows.clamp(max=0).sum(1)
        bias = self.bias if self.bias is not None else torch.zeros(len(rows), dtype=torch.float64)
        most = positive * high + negative * low + bias
        least = positive * low + negative * high + bias
        return bits_for(min(int(least.min()), -1), int(most.max()))
