"""Quantised convolutions."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from paretobit.nn.quantized import Quantized, classes_for


class _QuantizedConv(Quantized):
    quantizes_input = True
    _conv_forward: Any

    def forward(self, input: Tensor) -> Tensor:
        """`(batch, in_channels, ...)` to `(batch, out_channels, ...)`; padding comes after `data_in`."""
        x = self.data("data_in", input)
        result: Tensor = self._conv_forward(x, self.parameter("weight"), self.parameter("bias"))
        return result


def transposed_convolution(
    module: Any, x: Tensor, weight: Tensor, bias: Tensor | None, output_size: Sequence[int] | None = None
) -> Tensor:
    """What an `nn.ConvTranspose1d`, `2d` or `3d` computes on these operands."""
    axes = len(module.kernel_size)
    convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
    sizes = None if output_size is None else list(output_size)
    places = (module.stride, module.padding, module.kernel_size)
    output_padding = module._output_padding(x, sizes, *places, axes, module.dilation)
    dilated = (module.groups, module.dilation)
    result: Tensor = convolve(x, weight, bias, module.stride, module.padding, output_padding, *dilated)
    return result


class _QuantizedConvTranspose(Quantized):
    quantizes_input = True
    transposed = True

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """As the torch layer; the weight is quantised as `(out, in / groups, ...)`."""
        operands = (self.data("data_in", input), self.parameter("weight"), self.parameter("bias"))
        return transposed_convolution(self, *operands, output_size)


CONVOLUTIONS = classes_for(_QuantizedConv, (nn.Conv1d, nn.Conv2d, nn.Conv3d), globals())
TRANSPOSED_CONVOLUTIONS = classes_for(
    _QuantizedConvTranspose, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), globals()
)
