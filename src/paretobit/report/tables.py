"""Tables: rows of plain values that the command line prints and the run folder keeps."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paretobit.passes.analysis import Accumulator, CostReport, LayerComparison, TypeSummary
from paretobit.spaces import SPACES
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial

Row = dict[str, Any]


def trial_rows(trials: Iterable[Trial]) -> list[Row]:
    """One row a trial: number, state, metrics, knobs."""
    return [
        {
            "number": trial.number,
            "state": trial.state,
            **trial.metrics,
            "seconds": round(trial.seconds, 6),
            "duplicate_of": trial.duplicate_of,
            **trial.config,
        }
        for trial in trials
    ]


def front_rows(study: Study, *, shown: bool = False) -> list[Row]:
    """The front, and for each point what the test split says where it was asked.

    `test_accuracy_difference`, `test_accuracy_error` and `test_accuracy_p` compare a point with the
    float baseline on the same rows: difference, its paired standard error, and how likely chance alone
    makes one as large (McNemar's exact test). The loss has the first two.

    Args:
        study: Finished, or still running.
        shown: For reading: `test_accuracy_change` is `-0.012 ± 0.004`, in place of these numbers.
    """
    tests, paired = study.facts.get("test", {}), study.facts.get("paired", {})
    rows = []
    for trial in study.front():
        judged = {f"test_{name}": value for name, value in tests.get(str(trial.number), {}).items()}
        compared = paired.get(str(trial.number), {})
        changes = {name: compared[name] for name in ("accuracy", "loss") if name in compared}
        judged |= _changes_shown(changes) if shown else _changes_in_numbers(changes)
        rows.append({"number": trial.number, **trial.metrics, **judged, **trial.config})
    return rows


def _changes_shown(changes: Mapping[str, Mapping[str, float]]) -> Row:
    return {
        f"test_{name}_change": f"{change['difference']:+.3f} ± {change['error']:.3f}"
        for name, change in changes.items()
    }


def _changes_in_numbers(changes: Mapping[str, Mapping[str, float]]) -> Row:
    return {
        f"test_{name}_{key}": change[key]
        for name, change in changes.items()
        for key in ("difference", "error", "p")
        if key in change
    }


def baseline_row(study: Study) -> Row:
    """The float model in the columns of `front_rows`; it is what the front is compared with."""
    tests = study.facts.get("test", {}).get("baseline", {})
    return {"number": "float", **study.baseline, **{f"test_{name}": value for name, value in tests.items()}}


def best_trial_row(study: Study, trial: Trial) -> Row:
    """The reports' table: `number | software_metrics | hardware_metrics | scaled_metrics`."""
    kinds = {name: about["kind"] for name, about in study.facts.get("metrics", {}).items()}

    def of(kind: str) -> dict[str, float]:
        return {name: value for name, value in trial.metrics.items() if kinds.get(name, "software") == kind}

    scaled: dict[str, float] = {}
    for objective in study.objectives:
        scaled |= objective.scaled(trial.metrics)
    return {
        "number": trial.number,
        "software_metrics": of("software"),
        "hardware_metrics": of("hardware"),
        "scaled_metrics": scaled,
    }


def explain(study: Study, trial: Trial) -> dict[str, Any]:
    """A trial's configuration spelt out layer by layer, as the nested JSON of the reports."""
    space = study.facts["space"]
    return SPACES[space["name"]].explain(space, trial.config)


def cost_rows(report: CostReport) -> list[Row]:
    """The reports' table of FLOPs and BitOPs; inputs and outputs have empty cells, `?` is not known.

    The convention `standard` shows more columns than the reports did.
    """
    columns = {
        "Parameters": "parameters",
        "Forward FLOPS": "forward_flops",
        "Backward FLOPS": "backward_flops",
        "Forward bitops": "forward_bitops",
        "Backward bitops": "backward_bitops",
    }
    if report.convention == "standard":
        columns |= {
            "MACs": "macs",
            "Other FLOPS": "other_flops",
            "BOPs": "bops",
            "Activations": "activations",
            "Stored bytes": "stored_bytes",
            "Average bits": "average_bitwidth",
        }
    rows = []
    for row in report.rows:
        blank = row.op in ("placeholder", "output") or (row.op == "get_attr" and not row.parameters)
        cells = {title: getattr(row, name) for title, name in columns.items()}
        shown = {
            title: None if blank else value if row.counted or columns[title] in _STORED else "?"
            for title, value in cells.items()
        }
        rows.append({"Node name": row.node, "Node type": row.op, **shown})
    total = {title: getattr(report.totals, name) for title, name in columns.items()}
    return [*rows, {"Node name": "total", "Node type": "", **total}]


_STORED = ("parameters", "activations", "stored_bytes", "average_bitwidth")  # known whatever is computed


def quantization_rows(summary: Iterable[TypeSummary]) -> list[Row]:
    """`Original type | OP | Total | Changed | Unchanged`."""
    return [
        {
            "Original type": row.original_type,
            "OP": row.op,
            "Total": row.total,
            "Changed": row.changed,
            "Unchanged": row.unchanged,
        }
        for row in summary
    ]


def comparison_rows(layers: Iterable[LayerComparison]) -> list[Row]:
    """Layers before and after, side by side."""
    return [
        {
            "Node name": layer.node,
            "Before": layer.before,
            "After": layer.after,
            "Distinct weights": None if layer.distinct_weights is None else layer.distinct_weights,
            "Max error": layer.max_error,
        }
        for layer in layers
    ]


def accumulator_rows(layers: Iterable[Accumulator]) -> list[Row]:
    """Widths of accumulators: needed by the formats, by the weights, and on the data; and overflow."""
    return [
        {
            "Layer": layer.layer,
            "Terms": layer.terms,
            "Fractional bits": layer.frac_width,
            "Bits for any data": layer.width,
            "Bits for these weights": layer.width_for_weights,
            "Bits seen": layer.width_seen,
            **{f"Overflow at {width}": share for width, share in layer.overflow.items()},
        }
        for layer in layers
    ]


def by_reason(missing: Mapping[str, str]) -> dict[str, list[str]]:
    """Reason to the figures that are missing for it.

    >>> by_reason({"front": "none", "bars": "none"})
    {'none': ['front', 'bars']}
    """
    found: dict[str, list[str]] = {}
    for name, reason in missing.items():
        found.setdefault(reason, []).append(name)
    return found


def columns(rows: Sequence[Row]) -> list[str]:
    """The union of the rows' columns, in order of first appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def to_csv(rows: Sequence[Row]) -> str:
    """CSV text with one header line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    names = columns(rows)
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    shown = ([cell(row.get(name)).replace("|", r"\|") for name in names] for row in rows)
    lines += ["| " + " | ".join(cells) + " |" for cells in shown]
    return "\n".join(lines) + "\n"


def cell(value: Any) -> str:
    """A value as a table shows it: five significant digits, whole numbers whole."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{key}: {cell(item)}" for key, item in value.items()) + "}"
        return str(value)
    if isinstance(value, int) or value.is_integer():
        return f"{int(value):,}"
    return f"{value:.5g}"
