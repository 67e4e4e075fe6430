"""Bias correction: the mean error that quantisation leaves in a layer's output, taken off its bias."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput
from paretobit.graph import Example, ModelGraph, at_rest
from paretobit.graph.copies import copy_of
from paretobit.nn import Quantized
from paretobit.passes.registry import PASSES
from paretobit.passes.streaming import Moments, call
from paretobit.passes.taking import takes

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SPATIAL = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}

OutputMeans = Mapping[str, Sequence[Tensor]]
"""Path of a layer to the mean of each output channel after every call so far, call by call, float64."""


def correctable(model: nn.Module) -> dict[str, nn.Module]:
    """The linear and convolution layers with a bias, by path."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _LAYERS) and module.bias is not None
    }


def output_means(model: nn.Module, batches: Iterable[Example]) -> dict[str, list[Tensor]]:
    """What the layers of the float model give on average, one pass in evaluation mode.

    Returns:
        As `OutputMeans`; the last mean of a layer is that of all batches.

    Raises:
        BadInput: There is no batch.
    """
    means: dict[str, list[Tensor]] = {name: [] for name in correctable(model)}
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(at_rest(model))
        for name, layer in correctable(model).items():
            hook = partial(_see, Moments(), means[name])
            stack.callback(layer.register_forward_hook(hook).remove)
        rows = list(batches)
        for batch in rows:
            call(model, batch)
        if not rows:
            raise BadInput("bias correction needs data", key="batches", found="no batch")
    return {name: seen for name, seen in means.items() if seen}


def correct_biases(model: nn.Module, means: OutputMeans, batches: Iterable[Example]) -> dict[str, float]:
    """Shift the biases of a quantised model, in place, so that its layers give the float model's means.

    Empirical bias correction (Nagel et al. 2019, arXiv 1906.04721, section 4.2), the layers one after
    the other: each sees what the corrected layers before it give. What a layer gives is compared with
    what the float model's gives on the same rows: on the first batch its error is taken off at once,
    the batches after it refine the estimate. A layer that is called several times in a run has one
    shift, for the mean over its calls.

    Args:
        model: Quantised.
        means: Of the float model, on the same batches, from `output_means`.
        batches: Inputs as the model takes them; the more rows the first has, the better.

    Returns:
        Path of each corrected layer to the largest shift of a bias.

    Raises:
        BadInput: A layer is called more often than the float model's was.
    """
    layers = {name: layer for name, layer in correctable(model).items() if name in means}
    before = {name: layer.get_parameter("bias").detach().clone() for name, layer in layers.items()}
    shifts = {name: _Shift(name, means[name]) for name in layers}
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(at_rest(model))
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(shifts[name].see).remove)
        for batch in batches:
            call(model, batch)
    found = {}
    with torch.no_grad():
        for name, layer in layers.items():
            if shifts[name].error is not None:
                bias = layer.get_parameter("bias")
                bias.copy_(before[name] - shifts[name].error.to(bias.dtype))
                found[name] = float(shifts[name].error.abs().max())
    return found


class _Shift:
    """The mean error of one layer so far; its output leaves without it."""

    def __init__(self, name: str, wanted: Sequence[Tensor]) -> None:
        self._name, self._wanted, self._calls = name, wanted, 0
        self._seen = Moments()
        self.error: Any = None

    def see(self, layer: nn.Module, args: Any, output: Tensor) -> Tensor:
        """A forward hook."""
        if self._calls == len(self._wanted):
            found = f"more than {self._calls} calls"
            raise BadInput("other batches than the float model ran on", key=self._name, found=found)
        self._seen.add(output, _reduced(layer, output))
        self.error = self._seen.mean - self._wanted[self._calls]
        self._calls += 1
        return output - _as_channels(layer, output, self.error.to(output.dtype))


@PASSES.register("correct_bias", summary="biases that take the mean error of quantisation off, from data")
@takes()
def correct_bias_pass(
    graph: ModelGraph, table: Mapping[str, Any], batches: Iterable[Example] = ()
) -> tuple[ModelGraph, dict[str, Any]]:
    """`correct_biases` as a pass: the float model is the graph's own without its formats; no keys."""
    rows = list(batches)
    plain, model = copy_of(graph.model), copy_of(graph.model)
    for module in plain.modules():
        if isinstance(module, Quantized):
            module.set_slots({})
    corrected = correct_biases(model, output_means(plain, rows), rows)
    return graph.with_model(model), {"corrected": corrected, "batches": len(rows)}


def _see(moments: Moments, means: list[Tensor], layer: nn.Module, args: Any, output: Tensor) -> None:
    moments.add(output, _reduced(layer, output))
    means.append(moments.mean)


def _channel_axis(layer: nn.Module, output: Tensor) -> int:
    """Linear layers keep their outputs on the last axis, convolutions before the spatial ones."""
    spatial = next((n for kind, n in _SPATIAL.items() if isinstance(layer, kind)), 0)
    return output.ndim - 1 - spatial


def _reduced(layer: nn.Module, output: Tensor) -> list[int]:
    axis = _channel_axis(layer, output)
    return [dim for dim in range(output.ndim) if dim != axis]


def _as_channels(layer: nn.Module, output: Tensor, values: Tensor) -> Tensor:
    shape = [1] * output.ndim
    shape[_channel_axis(layer, output)] = -1
    return values.view(shape)
