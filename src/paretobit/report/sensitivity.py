"""Tables of sensitivity."""

from paretobit.report.tables import Row, by_reason
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
    return [
        {"Reason": reason, "Count": len(names), "Not measured": ", ".join(names)}
        for reason, names in by_reason(report.skipped).items()
    ]
