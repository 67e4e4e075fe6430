"""Tables show what was measured, and nothing else."""

from __future__ import annotations

import csv
import io

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.report import (
    baseline_row,
    best_trial_row,
    cell,
    draw_front,
    explain,
    front_rows,
    to_csv,
    to_markdown,
    trial_rows,
)


@pytest.fixture(scope="module")
def study() -> pb.Study:
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    y = (x[:, 0] > 0).long()
    return pb.search(
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)),
        val=(x, y),
        test=(x[:10], y[:10]),
        space=pb.Quantize(by="type", seed={"linear": {"data_in_width": [3, 8], "weight_width": [3, 8]}}),
        maximize="accuracy",
        minimize="bitops",
    )


def test_csv_holds_every_trial_with_all_metrics_and_knobs(study: pb.Study) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(trial_rows(study.trials)))))
    assert [int(row["number"]) for row in rows] == list(range(16))
    for row, trial in zip(rows, study.trials, strict=True):
        assert float(row["loss"]) == trial.metrics["loss"]
        assert int(row["0.data_in_width"]) == trial.config["0.data_in_width"]


def test_the_front_shows_validation_and_test_side_by_side(study: pb.Study) -> None:
    rows = front_rows(study)
    assert [row["number"] for row in rows] == [trial.number for trial in study.front()]
    assert all(0 <= row["test_accuracy"] <= 1 for row in rows)
    assert baseline_row(study)["accuracy"] == study.baseline["accuracy"]


def test_the_best_trial_table_has_the_columns_of_the_reports(study: pb.Study) -> None:
    trial = study.best("min bitops")
    row = best_trial_row(study, trial)
    assert list(row) == ["number", "software_metrics", "hardware_metrics", "scaled_metrics"]
    assert set(row["software_metrics"]) == {"accuracy", "loss", "total_flops", "total_bitops"}
    assert set(row["hardware_metrics"]) >= {"average_bitwidth", "model_size"}
    assert row["scaled_metrics"] == {
        "accuracy": trial.metrics["accuracy"],
        "total_bitops": trial.metrics["total_bitops"],
    }


def test_a_trial_is_spelt_out_in_the_words_of_the_reports(study: pb.Study) -> None:
    trial = study.trials[0]
    assert explain(study, trial)["2"] == {
        "config": {
            "name": "integer",
            "data_in_width": 3,
            "data_in_frac_width": 1,
            "weight_width": 3,
            "weight_frac_width": 1,
        }
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, ""), (3.0, "3"), (1234567, "1,234,567"), (0.123456, "0.12346"), (1.5e-9, "1.5e-09"), (True, "True")],
)
def test_cells_are_short_and_exact_where_they_can_be(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_markdown_has_one_line_a_row() -> None:
    assert to_markdown([{"a": 1, "b": None}]).splitlines() == ["| a | b |", "|---|---|", "| 1 |  |"]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_front_is_drawn(study: pb.Study, tmp_path_factory: pytest.TempPathFactory, suffix: str) -> None:
    target = tmp_path_factory.mktemp("figures") / f"front.{suffix}"
    draw_front(study, target)
    content = target.read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    assert len(content) > 5_000
