"""Quantised layers: one class per operation, with slots that take any format.

Setting the slots *is* applying a configuration. A slot at full precision leaves the operation
exactly as torch computes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.formats import FULL, Format
from paretobit.nn.cache import TensorCache


class Quantized(nn.Module):
    """Mixin of every quantised layer: the slots and the cache of quantised parameters."""

    slot_names: ClassVar[tuple[str, ...]]
    slots: dict[str, Format]
    _cache: TensorCache

    def available_slots(self) -> tuple[str, ...]:
        """Slots this layer really has: no `bias` where there is no bias."""
        return tuple(s for s in self.slot_names if s == "data_in" or getattr(self, s, None) is not None)

    def set_slots(self, formats: Mapping[str, Format]) -> None:
        """Set every slot: those not named return to full precision.

        Raises:
            BadInput: A slot this operation does not have.
        """
        for name in formats:
            if name not in self.slot_names:
                raise BadInput(f"{type(self).__name__} has no such slot", found=name, allowed=self.slot_names)
        self.slots = {name: formats.get(name, FULL) for name in self.slot_names}

    def data(self, slot: str, x: Tensor) -> Tensor:
        """A data tensor through the format of its slot."""
        number_format = self.slots[slot]
        return x if number_format is FULL else number_format.quantize(x)

    def parameter(self, slot: str) -> Any:
        """A parameter through the format of its slot; None where the layer has none."""
        value: Tensor | None = getattr(self, slot)
        number_format = self.slots[slot]
        if value is None or number_format is FULL:
            return value
        quantize = number_format.quantize_latent if self.training else number_format.quantize
        if not number_format.traits.deterministic or (torch.is_grad_enabled() and value.requires_grad):
            return quantize(value)
        return self._cache.get((id(self), slot, number_format, self.training), value, quantize)

    def _get_name(self) -> str:
        operation = next(base for base in type(self).__mro__ if base in LAYERS).__name__
        formats = [self.slots[name] for name in ("weight", *self.slot_names) if name in self.slots]
        family = next((type(f).__name__ for f in formats if f is not FULL), "")
        return operation + family


class QuantizedLinear(Quantized, nn.Linear):
    """`nn.Linear` with slots."""

    slot_names = ("data_in", "weight", "bias")

    def forward(self, input: Tensor) -> Tensor:
        """`(..., in_features)` to `(..., out_features)`."""
        return F.linear(self.data("data_in", input), self.parameter("weight"), self.parameter("bias"))


class _QuantizedConv(Quantized):
    slot_names = ("data_in", "weight", "bias")
    _conv_forward: Any

    def forward(self, input: Tensor) -> Tensor:
        """`(batch, in_channels, ...)` to `(batch, out_channels, ...)`; padding comes after `data_in`."""
        x = self.data("data_in", input)
        result: Tensor = self._conv_forward(x, self.parameter("weight"), self.parameter("bias"))
        return result


class QuantizedConv1d(_QuantizedConv, nn.Conv1d):
    """`nn.Conv1d` with slots."""


class QuantizedConv2d(_QuantizedConv, nn.Conv2d):
    """`nn.Conv2d` with slots."""


class _QuantizedBatchNorm(Quantized):
    slot_names = ("data_in", "weight", "bias")
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    momentum: float | None
    track_running_stats: bool
    eps: float
    _check_input_dim: Any

    def forward(self, input: Tensor) -> Tensor:
        """As the torch layer; the statistics stay in full precision."""
        self._check_input_dim(input)
        batch_statistics = self.training or self.running_mean is None
        momentum = self.momentum if self.momentum is not None else 0.0
        tracked = self.track_running_stats or not self.training
        if self.training and tracked and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # cumulative average
                momentum = 1.0 / float(self.num_batches_tracked)
        return F.batch_norm(
            self.data("data_in", input),
            self.running_mean if tracked else None,
            self.running_var if tracked else None,
            self.parameter("weight"),
            self.parameter("bias"),
            batch_statistics,
            momentum,
            self.eps,
        )


class QuantizedBatchNorm1d(_QuantizedBatchNorm, nn.BatchNorm1d):
    """`nn.BatchNorm1d` with slots."""


class QuantizedBatchNorm2d(_QuantizedBatchNorm, nn.BatchNorm2d):
    """`nn.BatchNorm2d` with slots."""


class QuantizedReLU(Quantized, nn.ReLU):
    """`nn.ReLU` with a slot for its data."""

    slot_names = ("data_in",)

    def forward(self, input: Tensor) -> Tensor:
        """Elementwise; writes its result into `input` where the layer it replaces did."""
        if self.slots["data_in"] is FULL:
            return super().forward(input)
        result = F.relu(self.data("data_in", input), inplace=not torch.is_grad_enabled())
        return input.copy_(result) if self.inplace else result


LAYERS: dict[type[nn.Module], type[Quantized]] = {
    nn.Linear: QuantizedLinear,
    nn.Conv1d: QuantizedConv1d,
    nn.Conv2d: QuantizedConv2d,
    nn.BatchNorm1d: QuantizedBatchNorm1d,
    nn.BatchNorm2d: QuantizedBatchNorm2d,
    nn.ReLU: QuantizedReLU,
}
"""Every operation that can be quantised, and the class that does it."""


def slots_of(module: nn.Module) -> tuple[str, ...]:
    """Slots that `module` has or would have once quantised; empty where its type is not supported."""
    if isinstance(module, Quantized):
        return module.available_slots()
    layer = LAYERS.get(type(module))
    if layer is None:
        return ()
    return tuple(s for s in layer.slot_names if s == "data_in" or getattr(module, s, None) is not None)


def dot_terms(module: nn.Module) -> int | None:
    """How many products a layer adds up for one output; None where it is no dot product."""
    if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
        return None
    return module.weight.shape[1:].numel()


def instrument(module: nn.Module, cache: TensorCache) -> Quantized:
    """Turn `module`, in place, into its quantised layer with every slot at full precision.

    Parameters, buffers, hooks and identity stay: shared layers remain shared.

    Raises:
        BadInput: No quantised layer exists for this exact type.
    """
    if isinstance(module, Quantized):
        return module
    if type(module) not in LAYERS:
        raise BadInput(
            "this layer type cannot be quantised",
            found=type(module).__name__,
            allowed=[known.__name__ for known in LAYERS],
        )
    module.__class__ = LAYERS[type(module)]
    assert isinstance(module, Quantized)
    module._cache = cache
    module.set_slots({})
    return module
