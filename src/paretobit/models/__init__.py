"""The model zoo of the field, and models on disk."""

from paretobit.models.checkpoint import load_state, read_state, save_weights
from paretobit.models.saved import load, read_manifest, save, source_of, write_manifest
from paretobit.models.source import ModelSettings, build, layout
from paretobit.models.zoo import MODELS

__all__ = [
    "MODELS",
    "ModelSettings",
    "build",
    "layout",
    "load",
    "load_state",
    "read_manifest",
    "read_state",
    "save",
    "save_weights",
    "source_of",
    "write_manifest",
]
