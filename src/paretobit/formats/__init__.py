"""Number formats: pure functions on tensors that know nothing of models."""

from paretobit.formats.accumulator import accumulator, bits_for, sum_range
from paretobit.formats.base import (
    FORMATS,
    FULL,
    Description,
    Format,
    FullPrecision,
    LossyFormat,
    Traits,
    make,
    parameters_of,
    parse,
)
from paretobit.formats.binary import Binary, BinaryResidual, BinaryScaling
from paretobit.formats.block import BlockFormat, BlockFP, BlockLog, BlockMinifloat
from paretobit.formats.compiled import compiled
from paretobit.formats.integer import Integer
from paretobit.formats.log import Log
from paretobit.formats.microscaling import MXFP4, MXFP6E2M3, MXFP6E3M2, MXFP8E4M3, MXFP8E5M2, MXINT8, NVFP4
from paretobit.formats.minifloat import (
    BF16,
    FP4E2M1,
    FP6E2M3,
    FP6E3M2,
    FP8E4M3,
    FP8E5M2,
    FP16,
    MinifloatDenorm,
    MinifloatIEEE,
)
from paretobit.formats.partition import BlockSize, parse_block_size
from paretobit.formats.scaled import ScaledFormat
from paretobit.formats.scaled_integer import ScaledInteger
from paretobit.formats.ternary import Ternary

__all__ = [
    "BF16",
    "FORMATS",
    "FP4E2M1",
    "FP6E2M3",
    "FP6E3M2",
    "FP8E4M3",
    "FP8E5M2",
    "FP16",
    "FULL",
    "MXFP4",
    "MXFP6E2M3",
    "MXFP6E3M2",
    "MXFP8E4M3",
    "MXFP8E5M2",
    "MXINT8",
    "NVFP4",
    "Binary",
    "BinaryResidual",
    "BinaryScaling",
    "BlockFP",
    "BlockFormat",
    "BlockLog",
    "BlockMinifloat",
    "BlockSize",
    "Description",
    "Format",
    "FullPrecision",
    "Integer",
    "Log",
    "LossyFormat",
    "MinifloatDenorm",
    "MinifloatIEEE",
    "ScaledFormat",
    "ScaledInteger",
    "Ternary",
    "Traits",
    "accumulator",
    "bits_for",
    "compiled",
    "make",
    "parameters_of",
    "parse",
    "parse_block_size",
    "sum_range",
]
