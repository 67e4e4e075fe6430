"""The model zoo of the field, and models on disk."""

import paretobit.models.convnets
import paretobit.models.jet_taggers  # noqa: F401  (both register what they have)
from paretobit.models.checkpoint import load_state, read_state, save_weights
from paretobit.models.huggingface import input_dtype
from paretobit.models.saved import SavedModel, load, read_manifest, resized, save, write_manifest
from paretobit.models.source import ModelSettings, build, layout, source_of
from paretobit.models.zoo import MODELS

__all__ = [
    "MODELS",
    "ModelSettings",
    "SavedModel",
    "build",
    "input_dtype",
    "layout",
    "load",
    "load_state",
    "read_manifest",
    "read_state",
    "resized",
    "save",
    "save_weights",
    "source_of",
    "write_manifest",
]
