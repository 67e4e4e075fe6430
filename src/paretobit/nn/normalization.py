"""Quantised normalisations: data, weight and bias take formats, statistics stay in full precision."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from paretobit.nn.quantized import Quantized, classes_for


class _QuantizedBatchNorm(Quantized):
    quantizes_input = True
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


class _QuantizedInstanceNorm(Quantized):
    running_mean: Tensor | None
    running_var: Tensor | None
    momentum: float | None
    track_running_stats: bool
    eps: float

    def _apply_instance_norm(self, input: Tensor) -> Tensor:
        """What the torch layer calls once the shape is checked; the statistics stay in full precision."""
        return F.instance_norm(
            self.data("data_in", input),
            self.running_mean,
            self.running_var,
            self.parameter("weight"),
            self.parameter("bias"),
            self.training or not self.track_running_stats,
            self.momentum if self.momentum is not None else 0.0,
            self.eps,
        )


class QuantizedLayerNorm(Quantized, nn.LayerNorm):
    """`nn.LayerNorm` with slots."""

    quantizes_input = True

    def forward(self, input: Tensor) -> Tensor:
        """`(..., *normalized_shape)` to the same shape."""
        x, weight, bias = self.data("data_in", input), self.parameter("weight"), self.parameter("bias")
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class QuantizedGroupNorm(Quantized, nn.GroupNorm):
    """`nn.GroupNorm` with slots."""

    quantizes_input = True

    def forward(self, input: Tensor) -> Tensor:
        """`(batch, num_channels, ...)` to the same shape."""
        x, weight, bias = self.data("data_in", input), self.parameter("weight"), self.parameter("bias")
        return F.group_norm(x, self.num_groups, weight, bias, self.eps)


class QuantizedRMSNorm(Quantized, nn.RMSNorm):
    """`nn.RMSNorm` with slots."""

    slot_names = ("data_in", "weight")
    quantizes_input = True

    def forward(self, x: Tensor) -> Tensor:
        """`(..., *normalized_shape)` to the same shape."""
        return F.rms_norm(self.data("data_in", x), self.normalized_shape, self.parameter("weight"), self.eps)


NORMALIZATIONS = (
    *classes_for(_QuantizedBatchNorm, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), globals()),
    *classes_for(_QuantizedInstanceNorm, (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), globals()),
    *(QuantizedLayerNorm, QuantizedGroupNorm, QuantizedRMSNorm),
)
