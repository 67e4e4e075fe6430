"""Tables and figures."""

from paretobit.report.figures import draw_best_error, draw_front
from paretobit.report.tables import (
    accumulator_rows,
    baseline_row,
    best_trial_row,
    cell,
    columns,
    comparison_rows,
    cost_rows,
    explain,
    front_rows,
    quantization_rows,
    to_csv,
    to_markdown,
    trial_rows,
)
