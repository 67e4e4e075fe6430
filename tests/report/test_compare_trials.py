"""Two trials side by side: what differs is shown, with the numbers of the study."""

from __future__ import annotations

import pytest

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.report.two_trials import compare_trials


def test_metrics_knobs_and_layers_that_differ_are_listed(layers: pb.Study) -> None:
    a, b = layers.trials[0], layers.trials[-1]
    both = compare_trials(layers, "0", "35")
    rows = {row["Metric"]: row for row in both.metrics}
    assert rows["accuracy"] == {
        "Metric": "accuracy",
        "trial 0": a.metrics["accuracy"],
        "trial 35": b.metrics["accuracy"],
        "Difference": b.metrics["accuracy"] - a.metrics["accuracy"],
        "Unit": "share of rows",
    }
    assert set(rows) >= set(a.metrics)
    differing = {name for name in a.config if a.config[name] != b.config[name]}
    assert {row["Knob"]: (row["trial 0"], row["trial 35"]) for row in both.knobs} == {
        name: (a.config[name], b.config[name]) for name in differing
    }
    assert {(row["Layer"], row["Place"]) for row in both.layers} == {
        (layer, slot) for layer in "02" for slot in ("data_in", "weight")
    }
    assert both.alike == (0, 2)  # no knob; both biases


def test_the_float_model_and_the_best_trial_can_be_named(layers: pb.Study) -> None:
    both = compare_trials(layers, "float", "best")
    best = layers.best()
    assert [side.number for side in both.sides] == [None, best.number]
    rows = {row["Metric"]: row for row in both.metrics}
    assert rows["accuracy"]["float"] == layers.baseline["accuracy"]
    tests = layers.facts["test"]
    assert rows["test_accuracy"]["Difference"] == pytest.approx(
        tests[str(best.number)]["accuracy"] - tests["baseline"]["accuracy"]
    )
    assert all(row["float"] == "float" for row in both.layers)


def test_a_trial_that_was_not_tested_has_no_test_number(layers: pb.Study) -> None:
    dominated = next(t.number for t in layers if t.number not in {f.number for f in layers.front()})
    rows = {row["Metric"]: row for row in compare_trials(layers, str(dominated), "best").metrics}
    assert rows["test_accuracy"][f"trial {dominated}"] == "-" == rows["test_accuracy"]["Difference"]


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [("0", "36", "0 to 35"), ("-1", "3", "0 to 35"), ("first", "3", "best or float"), ("3", "3", "with another one")],
)
def test_what_is_no_pair_of_trials_is_refused(layers: pb.Study, a: str, b: str, told: str) -> None:
    with pytest.raises(BadInput) as refused:
        compare_trials(layers, a, b)
    assert told in str(refused.value)
