"""How much of a signal formats keep: the tables of signal-to-quantisation-noise ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paretobit.formats import FORMATS, Format, parse

Row = dict[str, Any]
ROWS, COLUMNS = 256, 256
SIGMAS = tuple(10.0**power for power in range(-3, 4))

# The parameters of formats that do not look at the data are those that suit a deviation of one best.
EQUAL_BITS = {
    "1 to 3": (
        "binary",
        "binary_scaling",
        "ternary",
        "binary_residual(levels=2)",
        "scaled_integer(width=2, per=channel, calibration=mse)",
        "integer(width=2, frac_width=0)",
        "block_fp(width=2)",
        "binary_residual(levels=3)",
    ),
    "4": (
        "integer(width=4, frac_width=1)",
        "scaled_integer(width=4, per=channel)",
        "scaled_integer(width=4, per=channel, calibration=mse)",
        "scaled_integer(width=4, per=group, group_size=128)",
        "scaled_integer(width=4, per=group, group_size=128, symmetric=false)",
        "minifloat_ieee(width=4, exponent_width=2)",
        "minifloat_denorm(width=4, exponent_width=2)",
        "fp4_e2m1",
        "log(width=4)",
        "block_fp(width=4)",
        "block_minifloat(width=4, exponent_width=2)",
        "block_log(width=4)",
        "mxfp4",
        "nvfp4",
        "binary_residual(levels=4)",
    ),
    "6": (
        "integer(width=6, frac_width=3)",
        "scaled_integer(width=6, per=channel)",
        "scaled_integer(width=6, per=group, group_size=128)",
        "minifloat_ieee(width=6, exponent_width=2)",
        "minifloat_denorm(width=6, exponent_width=2)",
        "fp6_e3m2",
        "fp6_e2m3",
        "log(width=6)",
        "block_fp(width=6)",
        "block_minifloat(width=6, exponent_width=2)",
        "block_log(width=6)",
        "mxfp6_e3m2",
        "mxfp6_e2m3",
        "binary_residual(levels=6)",
    ),
    "8": (
        "integer(width=8, frac_width=5)",
        "scaled_integer(width=8, per=channel)",
        "scaled_integer(width=8, per=group, group_size=128)",
        "minifloat_ieee(width=8, exponent_width=4)",
        "minifloat_denorm(width=8, exponent_width=4)",
        "fp8_e4m3",
        "fp8_e5m2",
        "log(width=8)",
        "block_fp(width=8)",
        "block_minifloat(width=8, exponent_width=4)",
        "block_log(width=8)",
        "mxint8",
        "mxfp8_e4m3",
        "mxfp8_e5m2",
        "binary_residual(levels=8)",
    ),
    "16": ("integer(width=16, frac_width=12)", "bf16", "fp16", "block_fp(width=16)"),
}
SHARED_EXPONENT = (
    "block_fp(width=8)",
    "block_minifloat(width=8, exponent_width=4)",
    "block_log(width=8)",
    "mxint8",
    "mxfp8_e4m3",
    "mxfp8_e5m2",
    "mxfp6_e3m2",
    "mxfp6_e2m3",
    "mxfp4",
)
OTHERS = ("nvfp4", "scaled_integer(width=8, per=channel)", "fp8_e5m2", "fp8_e4m3", "integer(width=8, frac_width=4)")


def normal() -> Tensor:
    """Standard normal data, float64, the same everywhere."""
    return torch.from_numpy(np.random.default_rng(0).standard_normal((ROWS, COLUMNS)))


def heavy_tailed() -> Tensor:
    """Student's t with three degrees of freedom, scaled to a deviation of one."""
    return torch.from_numpy(np.random.default_rng(1).standard_t(3, (ROWS, COLUMNS)) / math.sqrt(3))


def sqnr(number_format: Format, x: Tensor) -> float:
    """Decibels of the signal over the rounding error, of values given as float32."""
    given = x.float()
    error = (number_format.quantize(given).double() - given.double()).square().sum()
    signal = given.double().square().sum()
    return math.inf if error == 0 else 10 * math.log10(signal / error)


def equal_bits() -> dict[str, list[Row]]:
    """By bits, a row a format: what it stores and what it keeps; the best first."""
    bell, tails = normal(), heavy_tailed()
    tables = {}
    for bits, texts in EQUAL_BITS.items():
        rows: list[Row] = [
            {
                "format": f"`{text}`",
                "bits per element": parse(text).bits(bell.shape) / bell.numel(),
                "normal, dB": decibels(sqnr(parse(text), bell)),
                "heavy-tailed, dB": decibels(sqnr(parse(text), tails)),
            }
            for text in texts
        ]
        tables[bits] = sorted(rows, key=lambda row: -float(row["normal, dB"]))
    return tables


def over_sigma(texts: Sequence[str] = SHARED_EXPONENT + OTHERS) -> list[Row]:
    """A row a format: decibels on normal data of every deviation, and how far they are apart."""
    bell = normal()
    rows = []
    for text in texts:
        kept = [sqnr(parse(text), bell * sigma) for sigma in SIGMAS]
        row: Row = {"format": f"`{text}`"}
        row |= {f"σ = {sigma:g}": decibels(value) for sigma, value in zip(SIGMAS, kept, strict=True)}
        rows.append({**row, "max − min": decibels(max(kept) - min(kept))})
    return rows


def decibels(value: float) -> str:
    """Rounded so far that machines agree."""
    return f"{value + 0.0:.1f}".replace("-0.0", "0.0")


def missing() -> set[str]:
    """Registered formats that the table of equal bits lacks, full precision aside."""
    compared = {parse(text).name for texts in EQUAL_BITS.values() for text in texts}
    return set(FORMATS.names()) - compared - {"float"}
