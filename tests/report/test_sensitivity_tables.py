"""Sensitivity as tables: every figure in its column, words where there is no number."""

import torch
from torch import nn

from paretobit.formats import ScaledInteger
from paretobit.graph import trace
from paretobit.report.sensitivity import sensitivity_rows, skipped_rows
from paretobit.strategies.insight.sensitivity import sensitivity


def graph():
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 3)

        def forward(self, x):
            return self.a(x) + 1 + 1

    return trace(Net(), torch.zeros(1, 4))


def test_sensitivity_has_a_row_a_trial_and_groups_what_was_skipped_by_reason():
    report = sensitivity(graph(), [torch.randn(8, 4)], [ScaledInteger(4)], loss="kl")
    (row,) = sensitivity_rows(report)
    assert (row["Layer"], row["OP"], row["Format"]) == ("a", "linear", "scaled_integer(width=4)")
    assert row["Slots"] == "data_in, weight"
    assert row["SQNR model (dB)"] == report.rows[0].model_sqnr
    assert {"Reason": "the function add is tried where a key names it", "Count": 2, "Not measured": "add, add_1"} in (
        skipped_rows(report)
    )
    assert sum(line["Count"] for line in skipped_rows(report)) == len(report.skipped)
