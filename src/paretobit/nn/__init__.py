"""Quantised layers and functions, and their slots."""

from paretobit.nn.attention import run_by_modules
from paretobit.nn.cache import TensorCache
from paretobit.nn.functions import QuantizedFunction, function_slots, function_terms, possible_function_slots
from paretobit.nn.layers import (
    LAYERS,
    dot_product,
    dot_terms,
    instrument,
    lies_transposed,
    possible_slots,
    slots_of,
    weight_rows,
)
from paretobit.nn.parameter_use import ParameterUse, ParameterUses, Stored, parameter_uses
from paretobit.nn.quantized import Quantized, formats_of
from paretobit.nn.sites import SiteNotReached, add_site, instrument_at, layer_at, places_of, why_no_site
