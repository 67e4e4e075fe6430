"""Quantised multi-head attention of torch."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paretobit.nn.quantized import Quantized


class QuantizedMultiheadAttention(Quantized, nn.MultiheadAttention):
    """`nn.MultiheadAttention` with slots.

    `weight` and `bias` are those of the projections. `data_in` is everything that is multiplied and
    is no parameter: the inputs, both operands of the two products, and what the last projection takes.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As torch's; see there for shapes."""
        if not self.carries_formats:
            return super().forward(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )
        single = query.dim() == 2
        rows_first = self.batch_first and not single
        q, k, v = (self._rows_first(x, single, rows_first) for x in self._projected(query, key, value))
        k, v = self._extended(k, v)
        mask = self._mask(key_padding_mask, attn_mask, q, k.size(1) - key.size(1 if rows_first else 0))
        q, k, v = (x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2) for x in (q, k, v))
        scores = self.data("data_in", q) @ self.data("data_in", k).transpose(-2, -1) / math.sqrt(q.size(-1))
        weights = torch.softmax(scores if mask is None else scores + mask, -1)
        dropped = F.dropout(weights, self.dropout) if self.training and self.dropout else weights
        heads = self.data("data_in", dropped) @ self.data("data_in", v)
        joined = self.data("data_in", heads.transpose(1, 2).flatten(2))
        projection = self.out_proj
        out = F.linear(joined, self._stored("weight", projection.weight), self._stored("bias", projection.bias))
        if single:
            out, weights = out[0], weights[0]
        elif not rows_first:
            out = out.transpose(0, 1)
        if not need_weights:
            return out, None
        return out, weights.mean(-3) if average_attn_weights else weights

    def _projected(self, *inputs: Tensor) -> list[Tensor]:
        """Query, key and value after their projections."""
        bias: Tensor | None = self.in_proj_bias
        biases = (None,) * 3 if bias is None else self._stored("bias", bias).chunk(3)
        packed: Any = self.in_proj_weight  # None where keys or values have sizes of their own
        if packed is not None:
            weights = self._stored("weight", packed).chunk(3)
        else:
            own = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
            weights = tuple(self._stored("weight", weight) for weight in own)
        parts = zip(inputs, weights, biases, strict=True)
        return [F.linear(self.data("data_in", x), weight, bias) for x, weight, bias in parts]

    def _stored(self, slot: str, value: Tensor | None) -> Any:
        return self.stored(slot, value, part=id(value))

    @staticmethod
    def _rows_first(x: Tensor, single: bool, rows_first: bool) -> Tensor:
        return x.unsqueeze(0) if single else x if rows_first else x.transpose(0, 1)

    def _extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values with the learned one and the zero one that the layer may add."""
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(len(k), -1, -1)], 1)
            v = torch.cat([v, self.bias_v.expand(len(v), -1, -1)], 1)
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        return k, v

    def _mask(self, padding: Tensor | None, attention: Tensor | None, q: Tensor, added: int) -> Tensor | None:
        """What is added to the scores `(rows, heads, queries, keys)`."""
        total: Tensor | None = None
        if padding is not None:
            rows = self._added(padding, q, added)
            total = rows.view(-1, 1, 1, rows.size(-1))
        if attention is not None:
            mask = self._added(attention, q, added)
            mask = mask.view(-1, self.num_heads, *mask.shape[1:]) if mask.dim() == 3 else mask
            total = mask if total is None else total + mask
        return total

    @staticmethod
    def _added(mask: Tensor, q: Tensor, added: int) -> Tensor:
        """A mask as numbers to add (True masks), with nothing to add for keys that the layer added."""
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask, -math.inf)
        return F.pad(mask, (0, added))


def run_by_modules(model: nn.Module) -> None:
    """Keep torch from its fused transformer kernels where they would pass over quantised layers, in place.

    In evaluation `nn.TransformerEncoderLayer` hands its parameters to one kernel and calls no layer,
    unless a hook is there; `nn.TransformerEncoder` makes nested tensors for that kernel.
    """
    for module in model.modules():
        if not isinstance(module, nn.TransformerEncoderLayer | nn.TransformerEncoder):
            continue
        if not any(isinstance(part, Quantized) for part in module.modules()):
            continue
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
        elif _in_the_way not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_in_the_way)


def _in_the_way(module: nn.Module, args: Any) -> None:
    """A hook that does nothing: that it is there is enough."""
