"""Rows of what multiplies and adds up."""

from dataclasses import replace

from paretobit.graph.operations.row import Operand, Switch
from paretobit.graph.operations.write import FIRST, operands, rows


def _product(*places: tuple[str, int, str]) -> tuple[Operand, ...]:
    """Operands of `(…, M, K) × (…, K, N)`: the outputs of the second lie last."""
    return tuple(replace(o, outputs=-1) if o.slot == "weight" else o for o in operands(*places))


_PRODUCT = _product(FIRST, ("weight", 1, "other mat2 vec tensor"))
_AFFINE = operands(FIRST, ("weight", 1, "weight"), ("bias", 2, "bias"))

rows("product", "linear", _AFFINE, cost="linear", widths="linear")
rows("product", "conv1d conv2d conv3d", _AFFINE, cost="convolution", widths="convolution")
rows(
    "product", "conv_transpose1d conv_transpose2d conv_transpose3d", cost="transposed convolution", widths="convolution"
)
rows("product", "matmul=imatmul=rmatmul=linalg_matmul bmm", _PRODUCT, cost="contraction", widths="matmul")
rows("product", "mm", _PRODUCT, cost="contraction", widths="matmul")
rows("product", "mv", _PRODUCT, cost="contraction")
rows("product", "dot vdot=linalg_vecdot inner", cost="contraction")
for _name, _part in (("addmm", "mat"), ("baddbmm", "batch")):
    _added = _product(("bias", 0, "input self"), ("data_in", 1, f"{_part}1"), ("weight", 2, f"{_part}2"))
    rows("product", _name, _added, cost="contraction")
rows("product", "addmv", cost="contraction of the second")
rows("product", "addbmm", cost="contraction of all")
rows("product", "tensordot bilinear", cost="*")
rows("product", "einsum", cost="*", widths="einsum")
rows("product", "chain_matmul linalg_multi_dot grouped_mm scaled_mm", cost="unknown")
rows(
    "product",
    "scaled_dot_product_attention",
    operands(("data_in", 0, "query"), ("weight", 1, "key"), ("weight", 2, "value")),
    cost="attention",
    widths="attention",
    random=Switch(4, ("dropout_p",)),
)
rows("product", "multihead_attention", cost="attention layer")
rows("product", "multi_head_attention_forward", cost="unknown", random=True)
rows("product", "lstm gru rnn=rnn_tanh=rnn_relu", cost="recurrent")
rows("product", "lstmcell=lstm_cell grucell=gru_cell rnncell=rnn_cell=rnn_tanh_cell=rnn_relu_cell", cost="recurrent")
