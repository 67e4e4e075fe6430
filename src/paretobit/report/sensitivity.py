"""Tables of sensitivity and of statistics."""

from __future__ import annotations

from collections.abc import Iterable

from paretobit.passes.analysis import TensorStatistics
from paretobit.report.tables import Row
from paretobit.strategies.insight.sensitivity import SensitivityReport


def sensitivity_rows(report: SensitivityReport) -> list[Row]:
    """The most fragile layer first."""
    return [
        {
            "Layer": row.layer,
            "OP": row.op,
            "Format": row.format,
            "Slots": ", ".join(row.slots),
            "SQNR layer (dB)": row.layer_sqnr,
            "SQNR model (dB)": row.model_sqnr,
            "Loss change": row.loss_change,
        }
        for row in report.rows
    ]


def skipped_rows(report: SensitivityReport) -> list[Row]:
    """What was not measured, by reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in report.skipped.items():
        by_reason.setdefault(reason, []).append(name)
    return [
        {"Reason": reason, "Count": len(names), "Not measured": ", ".join(names)}
        for reason, names in by_reason.items()
    ]


def statistics_rows(found: Iterable[TensorStatistics]) -> list[Row]:
    """One row a tensor."""
    return [
        {
            "Layer": row.layer,
            "Tensor": row.tensor,
            "Count": row.count,
            "Mean": row.mean,
            "Variance": row.variance,
            "Min": row.minimum,
            "Max": row.maximum,
            **{f"|x| {share:.4g}": value for share, value in row.quantiles.items()},
            "Zeros": row.zeros,
            "NaN": row.nan,
            "Inf": row.infinite,
            **{f"SQNR {name} (dB)": ratio for name, ratio in row.sqnr.items()},
        }
        for row in found
    ]
