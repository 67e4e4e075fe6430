"""The committed examples do what they promise."""

from __future__ import annotations

from pathlib import Path

import pytest

import paretobit as pb
from paretobit.document import Document
from paretobit.studies.study import Study
from paretobit.workflow.run import run
from paretobit.workflow.run_folder import RunFolder
from paretobit.workflow.settings import Settings
from paretobit.workflow.setup import assemble

EXAMPLES = Path(__file__).parents[2] / "examples"
PAIRS = ["width=16, frac_width=8", "width=8, frac_width=6", "width=8, frac_width=4", "width=4, frac_width=2"]


def searched(name: str, folder: Path) -> Study:
    document = Document.read(EXAMPLES / name)
    return run(assemble(Settings.from_document(document), document), RunFolder(folder))


def check_grid(study: Study) -> None:
    """The table of the third report: 16 pairs in its order, every metric measured."""
    assert len(study) == 16
    assert study.counts()["complete"] == 16
    table = [(t.config["linear.data_in"], t.config["linear.weight"]) for t in study.trials]
    assert table == [(f"integer({data})", f"integer({weight})") for data in PAIRS for weight in PAIRS]
    for trial in study.trials:
        assert set(trial.metrics) >= {"accuracy", "loss", "total_flops", "total_bitops", "model_size"}
    flops = {trial.metrics["total_flops"] for trial in study.trials}
    assert flops == {study.baseline["total_flops"]}
    assert study.trials[0].metrics["total_bitops"] == study.baseline["total_bitops"] / 4
    assert study.trials[0].metrics["accuracy"] == pytest.approx(study.baseline["accuracy"], abs=0.02)
    assert study.trials[15].metrics["loss"] > study.trials[0].metrics["loss"]


def test_the_grid_of_the_third_report_on_embedded_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARETOBIT_TEST_DATA", raising=False)
    study = searched("lab3_grid.toml", tmp_path)
    assert pb.load(tmp_path).seq_blocks[2].in_features == 64
    check_grid(study)
    assert study.baseline["accuracy"] > 0.8


@pytest.mark.slow
def test_the_grid_of_the_third_report_on_pendigits(tmp_path: Path, real_data: Path) -> None:
    study = searched("lab3_grid.toml", tmp_path)
    assert pb.load(tmp_path).seq_blocks[2].in_features == 16
    check_grid(study)


def test_the_demo_finds_a_front_and_keeps_a_winner(tmp_path: Path) -> None:
    study = searched("demo.toml", tmp_path)
    assert len(study) == 80
    assert study.baseline["accuracy"] > 0.93
    assert len(study.front()) >= 5
    winner = study.best("min bitops s.t. accuracy >= baseline - 0.02")
    assert winner.metrics["total_bitops"] < study.baseline["total_bitops"] / 40
    tests = study.facts["test"]
    assert set(tests) == {"baseline", *(str(trial.number) for trial in study.front())}
    assert tests["baseline"]["accuracy"] > 0.9
