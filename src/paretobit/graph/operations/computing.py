"""Rows of what computes and is no product: elementwise functions, reductions, norms, softmax, resampling."""

from paretobit.graph.operations.row import Switch
from paretobit.graph.operations.write import FIRST, OF_DATA, operands, rows

_BOTH = operands(FIRST, ("data_in", 1, "other"))
_SPATIAL = "spatial"

# --- elementwise ------------------------------------------------------------------------------------
rows("elementwise", "add=iadd=radd sub=isub=rsub=subtract mul=imul=rmul=multiply", _BOTH)
rows("elementwise", "div=true_divide=truediv=divide=itruediv=rtruediv=idiv=rdiv", _BOTH)
rows(
    "elementwise",
    """
    relu=relu_int relu6 leaky_relu elu celu selu gelu silu mish sigmoid=special_expit tanh softplus softsign
    hardswish hardsigmoid hardtanh log_sigmoid=logsigmoid threshold hardshrink softshrink tanhshrink
""",
    OF_DATA,
)
rows("elementwise", "rrelu", OF_DATA, random=Switch(3, ("training",)))
rows("elementwise", "glu", OF_DATA, widths="gated")
rows("elementwise", "prelu", operands(FIRST, ("weight", 1, "weight")), widths="prelu")
rows(
    "elementwise",
    """
    abs=absolute acos=arccos acosh=arccosh addcdiv addcmul angle asin=arcsin asinh=arcsinh atan=arctan
    atan2=arctan2 atanh=arctanh ceil clamp=clip clamp_max clamp_min copysign cos cosh deg2rad rad2deg digamma
    erf=special_erf erfc=special_erfc erfinv=special_erfinv exp exp2=special_exp2 expm1=special_expm1 floor
    floor_divide=floordiv=ifloordiv=rfloordiv fmax fmin fmod frac gelu_new hypot i0=special_i0 ldexp lerp lgamma
    log log10 log1p log2 logaddexp logaddexp2 logit=special_logit maximum minimum mod=remainder=imod=rmod
    nan_to_num neg=negative pow=ipow=rpow=float_power polygamma quick_gelu reciprocal round rsqrt sgn sign sin
    sinc sinh sqrt square tan trunc=fix xlogy=special_xlogy heaviside nextafter gcd lcm
    mse_loss l1_loss smooth_l1_loss huber_loss
""",
)
rows("elementwise", "outer=ger kron cross addr", widths=None)

# --- reductions and pooling -------------------------------------------------------------------------
rows("reduction", "mean", OF_DATA, widths="reduce")
rows("reduction", "sum amax amin var std norm vector_norm=linalg_vector_norm", widths="reduce")
rows("reduction", "max min", widths="best")
rows("reduction", "cumprod cumsum logcumsumexp", widths="mixed")
rows("reduction", "kthvalue", widths="picked")
rows(
    "reduction",
    """
    aminmax cummax cummin prod median nanmedian nanmean nansum mode
    quantile nanquantile var_mean std_mean trace dist renorm diff
    trapezoid scatter_add=scatter_reduce=index_add=index_reduce
    sum_to_size cosine_similarity pairwise_distance cross_entropy nll_loss kl_div binary_cross_entropy
    binary_cross_entropy_with_logits
""",
)
rows(
    "reduction",
    """
    avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
""",
    OF_DATA,
    widths=_SPATIAL,
)
rows("reduction", "lp_pool1d=lppool1d lp_pool2d=lppool2d lp_pool3d=lppool3d", widths=_SPATIAL)
rows("reduction", "fractional_max_pool2d fractional_max_pool3d", widths=_SPATIAL, random=True)
rows("reduction", "max_unpool1d max_unpool2d max_unpool3d fold", cost="unknown")
rows("reduction", "embedding_bag", operands(("weight", 1, "weight")), cost="unknown", writes=Switch(3, ("max_norm",)))
rows(
    "elementwise",
    "interpolate upsample=upsample_nearest=upsample_bilinear upsampling_nearest2d upsampling_bilinear2d",
    widths=_SPATIAL,
    cost="resampling",
)
rows("elementwise", "grid_sample affine_grid cdist", cost="unknown", widths=None)

# --- norms and softmax ------------------------------------------------------------------------------
_TRAINING = Switch(5, ("training",), changed=(1, "running_mean"))
_STATISTICS = Switch(5, ("use_input_stats",), True, changed=(1, "running_mean"))
_CHANNELS = operands(FIRST, ("weight", 3, "weight"), ("bias", 4, "bias"))
_LAST = operands(FIRST, ("weight", 2, "weight"), ("bias", 3, "bias"))
rows("norm", "batch_norm", _CHANNELS, widths="channel_norm", writes=_TRAINING)
rows("norm", "instance_norm", _CHANNELS, widths="channel_norm", writes=_STATISTICS)
rows("norm", "layer_norm", _LAST, widths="layer_norm")
rows("norm", "group_norm", _LAST, widths="group_norm")
rows("norm", "rms_norm", operands(FIRST, ("weight", 2, "weight")), widths="layer_norm")
rows(
    "norm",
    """
    batch_norm1d batch_norm2d batch_norm3d sync_batch_norm instance_norm1d instance_norm2d instance_norm3d
""",
    widths="channel_norm",
)
rows("norm", "normalize", widths="*")
rows("norm", "local_response_norm cross_map_lrn2d", cost="unknown")
rows("softmax", "softmax=special_softmax log_softmax=special_log_softmax softmin", OF_DATA)
rows("softmax", "softmax2d logsumexp=special_logsumexp", widths=None)
rows("softmax", "gumbel_softmax", widths=None, random=True)
