"""What torch's own counter says of calls that the table of operations gives no count for."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from paretobit.graph.operations import row_of

T = TypeVar("T")


def needs_counter(op: str) -> bool:
    """Whether torch's counter is asked: the operation is not known, or its rule may give no count."""
    row = row_of(op)
    return row.cost in ("unknown", "einsum") or (row.is_product and not row.operands)


def counted(run: Callable[[], T]) -> tuple[T, int | None]:
    """The result of a call, and its multiply-accumulates; None where torch's counter finds none."""
    counter = FlopCounterMode(display=False, custom_mapping=_ALSO)
    with counter:
        result = run()
    return result, counter.get_total_flops() // 2 or None


def _attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _grouped(left: Any, right: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Each group has its own rows of the left operand, columns of the right one, or terms of both."""
    outputs = left[-2] * right[-1] if len(left) == 2 or len(right) == 2 else math.prod(out_shape)
    return int(2 * outputs * left[-1])


def _recurrent(steps: Any, inputs: Any, states: Any, *args: Any, **kwargs: Any) -> int:
    """Every step takes both matrices of weights."""
    return int(2 * math.prod(steps[:-1]) * (math.prod(inputs) + math.prod(states)))


_ALSO = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._grouped_mm: _grouped,
    torch.ops.aten.mkldnn_rnn_layer: _recurrent,
}
"""Kernels with products for which torch has no formula."""
