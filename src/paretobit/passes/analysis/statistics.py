"""Statistics of weights and activations, streamed over batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput
from paretobit.formats import Format
from paretobit.graph import Example, ModelGraph, Node, at_rest
from paretobit.passes.layers.selection import By, select
from paretobit.passes.streaming import Decibels, Magnitudes, Moments, Noise, call, first_tensor

Which = Literal["input", "output", "weight"]
QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True)
class TensorStatistics:
    """One tensor of one layer over all batches. Values that are NaN or infinite are only counted.

    Attributes:
        layer: Name of the node.
        op: Its operation.
        tensor: `input`, `output`, or the name of a parameter.
        count: Elements seen, all batches together; 0 for a layer that did not run.
        finite: Those that are neither NaN nor infinite. The numbers below are of these; None where
            there are none.
        nan: Elements that are NaN.
        infinite: Elements that are infinite.
        zeros: Elements that are zero.
        mean: Mean.
        variance: Mean squared distance from the mean.
        minimum: Smallest value.
        maximum: Largest value.
        quantiles: Share to the smallest magnitude that so many do not exceed, to within 0.2 %.
        octaves: Exponent `e` to how many values have `2^e ≤ |x| < 2^(e+1)`; zeros are not in it.
        sqnr: Format as text to signal over quantisation noise in dB, the format applied batch by
            batch; empty for integer tensors.
    """

    layer: str
    op: str
    tensor: str
    count: int
    finite: int
    nan: int
    infinite: int
    zeros: int
    mean: float | None
    variance: float | None
    minimum: float | None
    maximum: float | None
    quantiles: Mapping[float, float]
    octaves: Mapping[int, int]
    sqnr: Mapping[str, Decibels]


def statistics(
    graph: ModelGraph,
    batches: Iterable[Example],
    *,
    by: By = "type",
    keys: Sequence[str] | None = None,
    tensors: Sequence[Which] = ("input", "output", "weight"),
    formats: Sequence[Format] = (),
    quantiles: Sequence[float] = QUANTILES,
) -> tuple[TensorStatistics, ...]:
    """Run batches through a model in evaluation mode and describe the tensors of its layers.

    Memory does not depend on the number of batches: at most half a megabyte a tensor, in addition to
    what one batch takes. Calls of a shared layer are counted together.

    Args:
        graph: The model, which is left as it was.
        batches: Inputs as the model takes them; not read where only weights are asked for.
        by: How `keys` choose layers.
        keys: Types, names or patterns; all layers where None.
        tensors: First tensor a layer takes, first it returns, and its parameters.
        formats: Formats whose noise to measure.
        quantiles: Shares in (0, 1].

    Returns:
        In order of execution; for each layer its parameters, its input, its output.

    Raises:
        BadInput: A key matches nothing, a word or a share is none, or there is no batch.
    """
    for which in tensors:
        if which not in get_args(Which):
            raise BadInput("no such tensor of a layer", key="tensors", found=which, allowed=get_args(Which))
    for share in quantiles:
        if not 0 < share <= 1:
            raise BadInput("no share of the values", key="quantiles", found=share, allowed="above 0, up to 1")
    watches: list[_Watch] = []
    make = partial(_Watch, formats=tuple(formats), quantiles=tuple(quantiles))
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(at_rest(graph.model))
        for node in chosen_layers(graph, by, keys):
            watches += _watch(node, graph.module(node), tensors, make, stack)
        if {"input", "output"} & set(tensors):
            _run_all(graph.model, batches)
    return tuple(watch.result() for watch in watches)


def chosen_layers(graph: ModelGraph, by: By, keys: Sequence[str] | None) -> tuple[Node, ...]:
    """The layers that any of the keys means, each once, in order of execution; all where there are no keys.

    Raises:
        BadInput: A key matches nothing.
    """
    if keys is None:
        return graph.layers
    names = {node.name for key in keys for node in select(graph, by, key)}
    return tuple(node for node in graph.layers if node.name in names)


def _run_all(model: nn.Module, batches: Iterable[Example]) -> None:
    seen = False
    for batch in batches:
        call(model, batch)
        seen = True
    if not seen:
        raise BadInput("statistics of activations need data", key="batches", found="no batch")


def _watch(
    node: Node, module: nn.Module, tensors: Sequence[Which], make: Callable[..., _Watch], stack: ExitStack
) -> list[_Watch]:
    """Look at the parameters of a layer now, and at what it takes and returns in what follows."""
    watches = []
    if "weight" in tensors:
        for name, parameter in module.named_parameters():
            watches.append(make(node, name))
            watches[-1].see(parameter.detach())
    if "input" in tensors:
        taken = make(node, "input")
        hook = partial(_see_input, taken)
        stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        watches.append(taken)
    if "output" in tensors:
        returned = make(node, "output")
        stack.callback(module.register_forward_hook(partial(_see_output, returned)).remove)
        watches.append(returned)
    return watches


def _see_input(watch: _Watch, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    watch.see(first_tensor([args, kwargs]))


def _see_output(watch: _Watch, module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
    watch.see(first_tensor(result))


class _Watch:
    """What is known of one tensor so far."""

    def __init__(self, node: Node, tensor: str, *, formats: tuple[Format, ...], quantiles: tuple[float, ...]) -> None:
        self.node, self.tensor, self.quantiles = node, tensor, quantiles
        self.count = self.nan = self.infinite = 0
        self.low, self.high = math.inf, -math.inf
        self.moments, self.magnitudes = Moments(), Magnitudes()
        self.noise = {number_format: Noise() for number_format in formats}
        self.quantised = False

    def see(self, x: Tensor) -> None:
        """One batch's tensor."""
        self.count += x.numel()
        if x.is_floating_point():
            self.quantised = True
            for number_format, noise in self.noise.items():
                noise.add(x, number_format.quantize(x))
        values = (x if x.is_floating_point() else x.double()).flatten()
        if values.numel() and not all(end.isfinite() for end in torch.aminmax(values)):
            self.nan += int(values.isnan().sum())
            self.infinite += int(values.isinf().sum())
            values = values[values.isfinite()]
        if values.numel():
            low, high = torch.aminmax(values)
            self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
            self.moments.add(values)
            self.magnitudes.add(values[None])

    def result(self) -> TensorStatistics:
        """The row."""
        finite = self.count - self.nan - self.infinite
        return TensorStatistics(
            layer=self.node.name,
            op=self.node.op,
            tensor=self.tensor,
            count=self.count,
            finite=finite,
            nan=self.nan,
            infinite=self.infinite,
            zeros=int(self.magnitudes.zeros),
            mean=float(self.moments.mean) if finite else None,
            variance=float(self.moments.variance()) if finite else None,
            minimum=self.low if finite else None,
            maximum=self.high if finite else None,
            quantiles={share: self._quantile(share, finite) for share in self.quantiles} if finite else {},
            octaves=self.magnitudes.octaves(),
            sqnr={str(f): noise.ratio for f, noise in self.noise.items()} if self.quantised else {},
        )

    def _quantile(self, share: float, finite: int) -> float:
        rank = max(math.ceil(share * finite), 1) - int(self.magnitudes.zeros)
        largest = max(abs(self.low), abs(self.high))
        return min(float(self.magnitudes.ranked(torch.tensor([rank]))), largest)
