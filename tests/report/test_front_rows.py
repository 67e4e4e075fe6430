"""The table of the front: the number that chose, the number that judged, and what may be chance."""

from __future__ import annotations

import pytest

from paretobit.report import baseline_row, front_rows
from paretobit.spaces.knobs import Config
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial

CHANGE = {"difference": -0.0123, "error": 0.0041, "low": -0.02, "high": -0.004, "p": 0.003, "worse": 9, "better": 2}
LOSS = {"difference": 0.2, "error": 0.05, "low": 0.1, "high": 0.3}


@pytest.fixture
def study() -> Study:
    """A front of two points, of which one is compared with the baseline."""
    found = Study()
    found.record(
        objectives=[
            {"terms": [["accuracy", 1.0]], "direction": "maximize"},
            {"terms": [["bits", 1.0]], "direction": "minimize"},
        ],
        baseline={"accuracy": 0.95, "bits": 32},
        test={
            "baseline": {"accuracy": 0.94, "loss": 0.2},
            "0": {"accuracy": 0.9277, "loss": 0.4},
            "1": {"accuracy": 0.9, "loss": 0.5},
        },
        paired={"0": {"accuracy": CHANGE, "loss": LOSS}},
    )
    for number, accuracy, bits in ((0, 0.93, 8), (1, 0.91, 4)):
        found.add(Trial(number, Config({"w": bits}), "complete", {"accuracy": accuracy, "bits": bits}))
    return found


def test_numbers_stay_numbers_for_scripts(study: Study) -> None:
    judged, bare = front_rows(study)
    assert judged == {
        "number": 0,
        "accuracy": 0.93,
        "bits": 8,
        "test_accuracy": 0.9277,
        "test_loss": 0.4,
        "test_accuracy_difference": -0.0123,
        "test_accuracy_error": 0.0041,
        "test_accuracy_p": 0.003,
        "test_loss_difference": 0.2,
        "test_loss_error": 0.05,
        "w": 8,
    }
    assert bare == {"number": 1, "accuracy": 0.91, "bits": 4, "test_accuracy": 0.9, "test_loss": 0.5, "w": 4}


def test_for_reading_a_change_has_its_error_beside_it(study: Study) -> None:
    judged, bare = front_rows(study, shown=True)
    assert judged["test_accuracy_change"] == "-0.012 ± 0.004"
    assert judged["test_loss_change"] == "+0.200 ± 0.050"
    assert not any(key.endswith(("_difference", "_error", "_p")) for key in judged)
    assert "test_accuracy_change" not in bare


def test_a_loss_that_could_not_be_compared_has_no_columns(study: Study) -> None:
    study.record(paired={"0": {"accuracy": CHANGE, "loss_absent": "losses that are not finite"}})
    row = front_rows(study)[0]
    assert "test_accuracy_difference" in row
    assert "test_loss_difference" not in row


def test_the_baseline_shows_both_its_numbers(study: Study) -> None:
    assert baseline_row(study) == {
        "number": "float",
        "accuracy": 0.95,
        "bits": 32,
        "test_accuracy": 0.94,
        "test_loss": 0.2,
    }
