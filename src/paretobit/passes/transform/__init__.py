"""Passes that return a new graph."""

from paretobit.passes.registry import PASSES
from paretobit.passes.transform.batch_norm import (
    FoldedBatchNorm,
    fold_batch_norm,
    folds_of,
    recalibrate_batch_norm,
    reestimate_batch_norm,
    with_folds,
)
from paretobit.passes.transform.bias_correction import correct_biases
from paretobit.passes.transform.calibrate import Observed, calibrate, fit_frac_width, freeze_scales
from paretobit.passes.transform.channel_multiplier import channel_multiplier
from paretobit.passes.transform.inherit import resize
from paretobit.passes.transform.prune import prune
from paretobit.passes.transform.prune_activation import InputPruning, input_prunings_of, set_input_pruning
from paretobit.passes.transform.prune_layers import Choice
from paretobit.passes.transform.prune_settings import ActivationPruning, PruneSettings, WeightPruning
from paretobit.passes.transform.quantize import QuantizeSettings, quantize
