"""Passes that return a new graph."""

from paretobit.passes.transform.quantize import (
    Assignment,
    QuantizeSettings,
    apply_assignment,
    assignment_of,
    instrument_layers,
    quantize,
)

__all__ = [
    "Assignment",
    "QuantizeSettings",
    "apply_assignment",
    "assignment_of",
    "instrument_layers",
    "quantize",
]
