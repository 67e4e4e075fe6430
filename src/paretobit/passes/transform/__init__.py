"""Passes that return a new graph."""

from paretobit.passes.transform.quantize import (
    PASSES,
    Assignment,
    QuantizeSettings,
    apply_assignment,
    assignment_of,
    instrument_layers,
    quantize,
)

__all__ = [
    "PASSES",
    "Assignment",
    "QuantizeSettings",
    "apply_assignment",
    "assignment_of",
    "instrument_layers",
    "quantize",
]
