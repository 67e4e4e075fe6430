"""Number formats: pure functions on tensors that know nothing of models."""

from paretobit.formats.base import FORMATS, FULL, Description, Format, FullPrecision, Traits, make, parse
from paretobit.formats.integer import Integer

__all__ = ["FORMATS", "FULL", "Description", "Format", "FullPrecision", "Integer", "Traits", "make", "parse"]
