"""Rows of what computes nothing: views, copies, what makes data, and questions; and of comparisons."""

from torch.nn.utils.parametrize import ParametrizationList

from paretobit.graph.operations.row import Operand, Switch
from paretobit.graph.operations.write import rows

_TRAINING = Switch(2, ("training", "train"), True)
_IN_TRAINING = Switch(2, ("training", "train"))

# --- views: the result shares the memory of the argument --------------------------------------------
rows("view", "alias identity positive data detach requires_grad", widths="elementwise")
rows("view", "dropout dropout1d dropout2d dropout3d feature_dropout", widths="elementwise", random=_TRAINING)
rows("view", "alpha_dropout feature_alpha_dropout", widths="elementwise", random=_IN_TRAINING)
rows("view", "view", widths="view")
rows("view", "view_as vsplit hsplit dsplit unsafe_chunk unsafe_split")
rows("view", "select narrow tensor_split", widths="picked")
rows("view", "split_with_sizes", widths="split")
rows("view", "atleast_1d atleast_2d atleast_3d view_as_real view_as_complex real imag conj resolve_conj")
rows("view", "squeeze unsqueeze chunk split unbind getitem=get_item unflatten", widths="*")
rows("view", "setitem=set_item", writes=True)
rows("view", "flatten", widths="flatten", order="restores")
rows("view", "reshape", widths="view", order="restores")
rows("view", "reshape_as", widths="*", order="restores")
rows("view", "ravel", order="restores")
rows("view", "contiguous", widths="elementwise", order="restores")
rows("view", "transpose=swapaxes=swapdims t T mT", widths="transpose", order="other")
rows("view", "H mH adjoint diagonal as_strided movedim=moveaxis", order="other")
rows("view", "permute", widths="permute", order="other")
rows("view", "expand expand_as broadcast_to", widths="expand", order="other")

# --- copies: the values of the arguments in memory of their own -------------------------------------
rows("copy", "clone to type float half double bfloat16 cpu cuda", widths="elementwise", casts=True)
rows("copy", "type_as", widths="like", casts=True)
PARAMETRIZATION = "parametrization"
"""Of a parameter of a module of one's own, by `torch.nn.utils.parametrize`: what it makes of its originals."""
rows("copy", PARAMETRIZATION, layer=ParametrizationList)
rows("copy", "long int bool", widths="elementwise")
rows("copy", "short char byte chalf cfloat cdouble copy masked_scatter")
rows("copy", "where masked_fill", widths="elementwise")
rows("copy", "cat=concat=concatenate stack repeat repeat_interleave pad pixel_shuffle", widths="*")
rows("copy", "flip roll", widths="mixed")
rows("copy", "index_select unfold", widths="picked")
rows("copy", "gather", widths="gathered")
rows("copy", "channel_shuffle", widths="shuffle_channels")
rows(
    "copy",
    """
    hstack vstack=row_stack dstack column_stack block_diag diag diag_embed diagflat tril triu fliplr flipud
    rot90 tile index_copy index_fill index_put take take_along_dim
    masked_select scatter select_scatter slice_scatter diagonal_scatter narrow_copy fill_diagonal
    meshgrid broadcast_tensors complex pixel_unshuffle channels_last unique unique_consecutive
    combinations cartesian_prod pad_sequence pack_sequence pack_padded_sequence pad_packed_sequence put
""",
)
rows(
    "copy",
    """
    zero_pad1d zero_pad2d zero_pad3d constant_pad1d constant_pad2d constant_pad3d constant_pad_nd
    reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d
    circular_pad1d circular_pad2d circular_pad3d
""",
    widths="spatial",
)
rows("copy", "native_dropout", random=_TRAINING)
rows("copy", "topk sort", widths="picked", cost="reduction")
rows("copy", "msort", cost="reduction")
rows("copy", "embedding", (Operand("weight", 1, ("weight",)),), widths="embedding", writes=Switch(3, ("max_norm",)))

# --- what makes data --------------------------------------------------------------------------------
rows("make", "zeros_like ones_like full_like", widths="like")
rows(
    "make",
    """
    arange range linspace logspace eye full new_ones new_zeros new_full new_tensor ones zeros zero fill one_hot
    scalar_tensor tensor as_tensor asarray from_numpy tril_indices triu_indices vander hann_window
    hamming_window blackman_window bartlett_window kaiser_window
""",
)
rows("make", "empty_like rand_like randn_like", widths="like", random=True)
rows(
    "make",
    """
    empty empty_strided empty_permuted new_empty new_empty_strided rand randn randint randint_like randperm
    bernoulli binomial multinomial normal poisson exponential random uniform cauchy geometric log_normal
""",
    random=True,
)

# --- questions --------------------------------------------------------------------------------------
rows(
    "question",
    """
    size shape dim ndim numel=nelement len dtype device getattr item tolist is_floating_point stride finfo iinfo
    data_ptr is_contiguous assert layout is_cuda is_cpu is_complex is_signed is_nonzero element_size itemsize
    nbytes get_device is_inference is_sparse is_quantized is_leaf is_tensor is_same_size storage_offset
    untyped_storage equal allclose grad grad_fn names numpy result_type promote_types can_cast broadcast_shapes
""",
)
rows("question", "manual_seed set_grad_enabled", writes=True)

# --- comparisons: what results is no data of the model ----------------------------------------------
rows(
    "comparison",
    """
    eq=equal_to ne=not_equal lt=less le=less_equal gt=greater ge=greater_equal isnan isinf isfinite isposinf
    isneginf isclose isreal isin signbit logical_and logical_or logical_not logical_xor
    and=bitwise_and=iand=__rand__ or=bitwise_or=ior=ror xor=bitwise_xor=ixor=rxor invert=bitwise_not=not
    lshift=bitwise_left_shift=ilshift rshift=bitwise_right_shift=irshift
""",
)
rows(
    "comparison",
    """
    all any argmax argmin argsort count_nonzero nonzero argwhere searchsorted bucketize bincount histc histogram
""",
    cost="reduction",
    widths=None,
)
