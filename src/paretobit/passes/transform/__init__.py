"""Passes that return a new graph."""

from paretobit.passes.layers.assignment import Assignment, apply_assignment, assignment_of, instrument_layers
from paretobit.passes.registry import PASSES
from paretobit.passes.transform.batch_norm import (
    FoldedBatchNorm,
    fold_batch_norm,
    folds_of,
    recalibrate_batch_norm,
    reestimate_batch_norm,
    with_folds,
)
from paretobit.passes.transform.bias_correction import OutputMeans, correct_biases
from paretobit.passes.transform.calibrate import Observed, calibrate, fit_frac_width, freeze_scales
from paretobit.passes.transform.channel_multiplier import ChannelMultiplierSettings, channel_multiplier
from paretobit.passes.transform.inherit import resize
from paretobit.passes.transform.prune import prune
from paretobit.passes.transform.prune_activation import InputPruning, input_prunings_of, set_input_pruning
from paretobit.passes.transform.prune_layers import Choice
from paretobit.passes.transform.prune_settings import ActivationPruning, PruneSettings, WeightPruning
from paretobit.passes.transform.quantize import QuantizeSettings, quantize

__all__ = [
    "PASSES",
    "ActivationPruning",
    "Assignment",
    "ChannelMultiplierSettings",
    "Choice",
    "FoldedBatchNorm",
    "InputPruning",
    "Observed",
    "OutputMeans",
    "PruneSettings",
    "QuantizeSettings",
    "WeightPruning",
    "apply_assignment",
    "assignment_of",
    "calibrate",
    "channel_multiplier",
    "correct_biases",
    "fit_frac_width",
    "fold_batch_norm",
    "folds_of",
    "freeze_scales",
    "input_prunings_of",
    "instrument_layers",
    "prune",
    "quantize",
    "recalibrate_batch_norm",
    "reestimate_batch_norm",
    "resize",
    "set_input_pruning",
    "with_folds",
]
