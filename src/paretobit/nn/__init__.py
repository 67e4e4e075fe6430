"""Quantised layers and their slots."""

from paretobit.nn.cache import TensorCache
from paretobit.nn.layers import LAYERS, Quantized, instrument, slots_of

__all__ = ["LAYERS", "Quantized", "TensorCache", "instrument", "slots_of"]
