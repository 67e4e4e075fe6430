"""Quantised linear layers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paretobit.nn.quantized import Quantized

CONV1D = "transformers.pytorch_utils.Conv1D"
"""GPT-2's linear layer, whose weight is `(in, out)`."""


class QuantizedLinear(Quantized, nn.Linear):
    """`nn.Linear` with slots."""

    quantizes_input = True

    def forward(self, input: Tensor) -> Tensor:
        """`(..., in_features)` to `(..., out_features)`."""
        return F.linear(self.data("data_in", input), self.parameter("weight"), self.parameter("bias"))


class QuantizedBilinear(Quantized, nn.Bilinear):
    """`nn.Bilinear` with slots; both inputs are its data."""

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """`(..., in1_features)` and `(..., in2_features)` to `(..., out_features)`."""
        left, right = self.data("data_in", input1), self.data("data_in", input2)
        return F.bilinear(left, right, self.parameter("weight"), self.parameter("bias"))


class _Conv1D(Quantized):
    """`transformers.pytorch_utils.Conv1D` with slots; its weight is quantised as `(out, in)`."""

    quantizes_input = True
    transposed = True
    weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """`(..., nx)` to `(..., nf)`."""
        data = self.data("data_in", x)
        weight: Tensor = self.parameter("weight")
        bias: Tensor = self.parameter("bias")
        result = torch.addmm(bias, data.reshape(-1, data.size(-1)), weight)
        return result.view(*x.shape[:-1], weight.size(1))

    def __repr__(self) -> str:
        return f"{self._get_name()}(nf={self.weight.size(1)}, nx={self.weight.size(0)})"


def is_conv1d(kind: type[nn.Module]) -> bool:
    """Whether a class is `Conv1D` of transformers, told without importing transformers."""
    return f"{kind.__module__}.{kind.__name__}" == CONV1D


def quantized_conv1d(kind: type[nn.Module]) -> type[Quantized]:
    """The quantised layer for the class `Conv1D` of transformers."""
    made: type[Quantized] | None = globals().get("QuantizedConv1D")
    if made is None:
        made = type("QuantizedConv1D", (_Conv1D, kind), {"__module__": __name__, "__doc__": _Conv1D.__doc__})
        globals()["QuantizedConv1D"] = made  # where pickle looks for it
    return made


def __getattr__(name: str) -> Any:
    """`QuantizedConv1D`, asked for by an unpickler before any layer was made."""
    if name != "QuantizedConv1D":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from transformers.pytorch_utils import Conv1D

    return quantized_conv1d(Conv1D)
