"""Rows of what multiplies and adds up."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from paretobit.graph.operations.row import Operand, Switch
from paretobit.graph.operations.write import FIRST, operands, rows


def _product(*places: tuple[str, int, str]) -> tuple[Operand, ...]:
    """Operands of `(…, M, K) × (…, K, N)`."""
    axes = {"data_in": (-1,), "weight": (-2,)}
    return tuple(replace(o, terms=axes.get(o.slot)) for o in operands(*places))


def _einsum(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Operand, ...]:
    """The tensors of an equation that multiplies; terms of a sum lie along what the result has not.

    >>> [(o.slot, o.terms) for o in _einsum(("bd,vd->bv", "x", "w"), {})]
    [('data_in', (1,)), ('weight', (1,))]
    """
    equation = re.sub(r"\s", "", args[0]) if args and isinstance(args[0], str) else ""
    taken, arrow, result = equation.partition("->")
    parts = taken.split(",")
    if len(parts) < 2 or len(parts) != len(args) - 1:
        return ()
    if not arrow:  # what stands once is in the result
        result = "".join(letter for letter in taken if taken.count(letter) == 1)
    return tuple(
        Operand("weight" if i else "data_in", i + 1, (), _summed(indices, result)) for i, indices in enumerate(parts)
    )


def _summed(indices: str, result: str) -> tuple[int, ...]:
    """Axes of a tensor that a result has not; those after an ellipsis are counted from the end."""
    before, _, after = indices.partition("...")
    first = [i for i, letter in enumerate(before) if letter not in result]
    return (*first, *(i - len(after) for i, letter in enumerate(after) if letter not in result))


def _tensordot(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Operand, ...]:
    """Of `tensordot(a, b, dims)`: so many axes, the last of the one and the first of the other, or those listed."""
    dims = args[2] if len(args) > 2 else kwargs.get("dims", 2)
    if isinstance(dims, int):
        dims = (tuple(range(-dims, 0)), tuple(range(dims)))
    if not isinstance(dims, Sequence) or len(dims) != 2:
        return ()
    one, other = (tuple(axes) if isinstance(axes, Sequence) else (axes,) for axes in dims)
    return Operand("data_in", 0, ("a",), one), Operand("weight", 1, ("b",), other)


def _transposed(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Operand, ...]:
    groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
    return tuple(replace(o, groups=groups) if o.slot == "weight" else o for o in _AFFINE)


_PRODUCT = _product(FIRST, ("weight", 1, "other mat2 vec tensor"))
_GROUPED = _product(("data_in", 0, "mat_a input self"), ("weight", 1, "mat_b mat2"))
_VECTORS = tuple(replace(o, terms=(-1,)) for o in _PRODUCT)
_AFFINE = operands(FIRST, ("weight", 1, "weight"), ("bias", 2, "bias"))
_TENSORS = operands(("data_in", 1, ""), ("weight", 2, ""))

rows("product", "linear", _AFFINE, cost="linear", widths="linear")
rows("product", "conv1d conv2d conv3d", _AFFINE, cost="convolution", widths="convolution")
rows(
    "product",
    "conv_transpose1d conv_transpose2d conv_transpose3d",
    _AFFINE,
    arrange=_transposed,
    cost="transposed convolution",
    widths="convolution",
)
rows(
    "product",
    "matmul=imatmul=rmatmul=linalg_matmul bmm",
    _PRODUCT,
    either_way=True,
    cost="contraction",
    widths="matmul",
)
rows("product", "mm", _PRODUCT, either_way=True, cost="contraction", widths="matmul")
rows("product", "mv", _PRODUCT, either_way=True, cost="contraction")
rows("product", "dot vdot=linalg_vecdot inner", _VECTORS, either_way=True, cost="contraction")
for _name, _part in (("addmm", "mat"), ("baddbmm", "batch")):
    _added = _product(("bias", 0, "input self"), ("data_in", 1, f"{_part}1"), ("weight", 2, f"{_part}2"))
    rows("product", _name, _added, either_way=True, cost="contraction")
_ADDED = _product(("bias", 0, "input self"), ("data_in", 1, "mat"), ("weight", 2, "vec"))
rows("product", "addmv", _ADDED, either_way=True, cost="contraction of the second")
_SUMMED = operands(("bias", 0, "input self"), ("data_in", 1, "batch1"), ("weight", 2, "batch2"))
_SUMMED = tuple(o if o.slot == "bias" else replace(o, terms=(0, 3 - o.position)) for o in _SUMMED)
rows("product", "addbmm", _SUMMED, either_way=True, cost="contraction of all")
rows("product", "einsum", _TENSORS, arrange=_einsum, either_way=True, cost="einsum", widths="einsum")
rows(
    "product",
    "tensordot",
    _product(("data_in", 0, "a"), ("weight", 1, "b")),
    arrange=_tensordot,
    either_way=True,
    cost="tensordot",
)
_PAIR = operands(("data_in", 0, "input1"), ("data_in", 1, "input2"), ("weight", 2, "weight"), ("bias", 3, "bias"))
rows("product", "bilinear", _PAIR, cost="bilinear")
rows("product", "grouped_mm", _GROUPED, cost="contraction")
rows("product", "chain_matmul linalg_multi_dot scaled_mm scaled_grouped_mm", cost="unknown")
rows(
    "product",
    "scaled_dot_product_attention",
    operands(("data_in", 0, "query"), ("weight", 1, "key"), ("weight", 2, "value")),
    cost="attention",
    widths="attention",
    random=Switch(4, ("dropout_p",)),
)
rows("product", "multihead_attention", cost="attention layer")
_ATTENTION = operands(
    *(("data_in", i, name) for i, name in enumerate(("query", "key", "value"))),
    *(("weight", 5, "in_proj_weight"), ("bias", 6, "in_proj_bias")),
    *(("weight", 11, "out_proj_weight"), ("bias", 12, "out_proj_bias")),
    *(("weight", 18 + i, f"{name}_proj_weight") for i, name in enumerate("qkv")),
)
rows("product", "multi_head_attention_forward", _ATTENTION, cost="unknown", random=True)
rows("product", "lstm gru rnn=rnn_tanh=rnn_relu", cost="recurrent")
rows("product", "lstmcell=lstm_cell grucell=gru_cell rnncell=rnn_cell=rnn_tanh_cell=rnn_relu_cell", cost="recurrent")
