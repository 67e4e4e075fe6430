"""Quantised layers and their slots."""

from paretobit.nn.cache import TensorCache
from paretobit.nn.layers import LAYERS, Quantized, dot_terms, instrument, slots_of

__all__ = ["LAYERS", "Quantized", "TensorCache", "dot_terms", "instrument", "slots_of"]
