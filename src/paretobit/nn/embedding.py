"""Quantised embeddings: only the table takes a format, indices are no data to quantise."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paretobit.nn.quantized import Quantized


class _QuantizedTable(Quantized):
    slot_names = ("weight",)
    weight: Tensor
    max_norm: float | None
    norm_type: float

    def _table(self, indices: Tensor) -> Tensor:
        """The quantised table; as torch does, rows that are read are cut to `max_norm` in place, before."""
        if self.max_norm is not None:
            table, indices = self.weight.detach(), indices.contiguous()
            torch.embedding_renorm_(table, indices, self.max_norm, self.norm_type)
        quantized: Tensor = self.parameter("weight")
        return quantized


class QuantizedEmbedding(_QuantizedTable, nn.Embedding):
    """`nn.Embedding` with a slot for its table."""

    def forward(self, input: Tensor) -> Tensor:
        """Indices `(...)` to `(..., embedding_dim)`."""
        table = self._table(input)
        return F.embedding(
            input, table, self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq, sparse=self.sparse
        )


class QuantizedEmbeddingBag(_QuantizedTable, nn.EmbeddingBag):
    """`nn.EmbeddingBag` with a slot for its table."""

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """Bags of indices to `(bags, embedding_dim)`."""
        return F.embedding_bag(
            input,
            self._table(input),
            offsets,
            scale_grad_by_freq=self.scale_grad_by_freq,
            mode=self.mode,
            sparse=self.sparse,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
        )
