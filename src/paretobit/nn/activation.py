"""Quantised activations and poolings: what has no weight, one class for each of torch's."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paretobit.formats import FULL
from paretobit.nn.quantized import Quantized, classes_for


class QuantizedReLU(Quantized, nn.ReLU):
    """`nn.ReLU` with a slot for its data."""

    slot_names = ("data_in",)
    quantizes_input = True

    def forward(self, input: Tensor) -> Tensor:
        """Elementwise; writes its result into `input` where the layer it replaces did."""
        if self.slots["data_in"] is FULL:
            return super().forward(input)
        result = F.relu(self.data("data_in", input), inplace=not torch.is_grad_enabled())
        return input.copy_(result) if self.inplace else result


class QuantizedPReLU(Quantized, nn.PReLU):
    """`nn.PReLU` with slots."""

    slot_names = ("data_in", "weight")
    quantizes_input = True

    def forward(self, input: Tensor) -> Tensor:
        """Elementwise, with one slope or one a channel."""
        return F.prelu(self.data("data_in", input), self.parameter("weight"))


class _OfData(Quantized):
    """A layer without weights: torch's own `forward` on quantised data."""

    slot_names = ("data_in",)
    quantizes_input = True

    def forward(self, input: Tensor) -> Tensor:
        """As the torch layer; writes its result into `input` where that one does."""
        x = self.data("data_in", input)
        result: Tensor = super().forward(x)
        return input.copy_(result) if x is not input and getattr(self, "inplace", False) else result


_WITHOUT_WEIGHTS = (
    *(nn.CELU, nn.ELU, nn.GELU, nn.GLU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU),
    *(nn.LogSigmoid, nn.LogSoftmax, nn.Mish, nn.ReLU6, nn.RReLU, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softmax),
    *(nn.Softmax2d, nn.Softmin, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh, nn.Tanhshrink, nn.Threshold),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.LPPool1d, nn.LPPool2d, nn.LPPool3d),
)


WITHOUT_WEIGHTS = classes_for(_OfData, _WITHOUT_WEIGHTS, globals())
"""The classes of activations and poolings."""
