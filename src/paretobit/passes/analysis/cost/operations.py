"""What is known of operations that multiply no matrices: which move data, which cost operations.

An operation that stands in none of these tables, and in none of `counting`, is uncounted.
"""

from __future__ import annotations

from paretobit.graph import Node


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


VIEWS = _names("""
    alias chunk detach expand expand_as flatten getitem identity moveaxis movedim mT narrow permute
    ravel reshape select split squeeze swapaxes swapdims T t tensor_split transpose unbind unflatten
    unsqueeze view view_as contiguous dropout dropout1d dropout2d dropout3d alpha_dropout
    feature_alpha_dropout setitem
""")
"""The result shares the memory of the argument: no time, no memory. Dropout is one at inference."""

REORDERING = _names("expand expand_as mT movedim moveaxis permute swapaxes swapdims T t transpose")
"""Views after which memory is out of order, so that `COMPACTING` views have to copy."""

COMPACTING = _names("contiguous flatten ravel reshape")

COPIES = _names("""
    arange bool cat clone concat concatenate copy cpu diag diagonal double embedding empty
    empty_like eye fill fill_diagonal flip float full full_like gather half hstack vstack index_copy
    index_fill index_select int linspace long masked_fill masked_select meshgrid new_empty new_full
    new_ones new_tensor new_zeros one_hot ones ones_like pad constant_pad1d constant_pad2d constant_pad3d
    reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
    replication_pad3d zero_pad1d zero_pad2d zero_pad3d circular_pad1d circular_pad2d circular_pad3d
    channel_shuffle pixel_shuffle pixel_unshuffle repeat repeat_interleave roll scalar_tensor scatter stack
    take take_along_dim tensor tile to tril triu type type_as unfold where zero zeros zeros_like bfloat16
    as_tensor broadcast_to broadcast_tensors complex real imag channels_last
""")
"""Data is moved or made: memory and bandwidth, no operation."""

NO_TENSORS = _names("""
    size shape dim ndim numel nelement len dtype device getattr item tolist is_floating_point stride
    finfo data_ptr is_contiguous assert manual_seed placeholder get_attr output requires_grad layout
    is_cuda is_complex element_size get_device set_grad_enabled
""")
"""Questions, and the nodes of a graph that are no operations."""

NORMS = _names("""
    batch_norm batch_norm1d batch_norm2d batch_norm3d sync_batch_norm layer_norm group_norm instance_norm
    instance_norm1d instance_norm2d instance_norm3d rms_norm normalize
""")

_SOFTMAX = _names("softmax softmax2d log_softmax softmin logsumexp")

_ELEMENTWISE = _names("""
    abs add addcdiv addcmul and bitwise_and bitwise_not bitwise_or bitwise_xor ceil celu clamp clamp_max
    clamp_min clip cos div elu eq erf exp expm1 floor floor_divide floordiv fmod ge gelu glu gt hardshrink
    hardsigmoid hardswish hardtanh iadd iand idiv imul invert ior ipow isub itruediv le leaky_relu lerp log
    log10 log1p log2 log_sigmoid logical_and logical_not logical_or logical_xor logsigmoid lt maximum minimum
    mish mod mul multiply ne neg negative or outer pow prelu reciprocal relu relu6 remainder round rpow
    rrelu rsqrt rsub rtruediv selu sgn sigmoid sign silu sin softplus softshrink softsign sqrt square sub
    subtract tan tanh tanhshrink threshold true_divide truediv trunc xor isnan isinf isfinite logit
    nan_to_num sinh cosh atan atan2 gelu_new quick_gelu
""")

_REDUCTIONS = _names("""
    all any amax amin argmax argmin cumprod cumsum max mean min norm prod std sum var count_nonzero
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d lp_pool2d lp_pool3d max_pool1d
    max_pool2d max_pool3d vector_norm linalg_vector_norm
""")

PER_OUTPUT = dict.fromkeys(_ELEMENTWISE, 1) | dict.fromkeys(NORMS, 4) | dict.fromkeys(_SOFTMAX, 3)
"""Operations per element of the result: one; a norm subtracts, divides, multiplies and adds; a softmax
exponentiates, adds and divides."""

PER_INPUT = dict.fromkeys(_REDUCTIONS, 1)
"""Operations per element of the argument: reductions and pooling."""

_UNTIMED = VIEWS | NO_TENSORS


def bare(op: str) -> str:
    """The operation of an in-place method: `add_` is `add`."""
    return op.rstrip("_") or op


def moves_only(op: str) -> bool:
    """Whether an operation computes nothing."""
    return op in _UNTIMED or op in COPIES


def passes_on(op: str) -> bool:
    """Whether the values of the result are those of the arguments, in another place or order."""
    return bare(op) in VIEWS or (bare(op) in COPIES and bare(op) != "embedding")


def takes_no_time(node: Node) -> bool:
    """Whether a node neither computes nor moves anything: views, questions, inputs and outputs."""
    return bare(node.op) in _UNTIMED or (node.batch is not None and not node.output_shapes)


def other_operations(node: Node) -> int | None:
    """Operations of one sample besides multiply-accumulates; None where the operation is not known."""
    op = bare(node.op)
    if moves_only(op) or not node.output_shapes:
        return 0
    if op in PER_OUTPUT:
        return PER_OUTPUT[op] * (node.output_elements or 0)
    if op in PER_INPUT:
        return PER_INPUT[op] * (node.input_elements or 0)
    return None
