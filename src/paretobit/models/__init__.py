"""The model zoo of the field, and models on disk."""

import paretobit.models.convnets
import paretobit.models.jet_taggers
from paretobit.models.checkpoint import load_state, read_state, save_weights
from paretobit.models.huggingface import input_dtype
from paretobit.models.saved import SavedModel, load, read_manifest, resized, save, write_manifest
from paretobit.models.source import ModelSettings, build, layout, source_of
from paretobit.models.zoo import MODELS
