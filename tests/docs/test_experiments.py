"""The experiments of the reports: every file is a search that can begin, with and without the real data."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paretobit.cli.main import app
from paretobit.document import Document
from paretobit.report.figures import FIGURES
from paretobit.studies.study import Study
from paretobit.workflow.settings import Settings
from paretobit.workflow.setup import assemble

ROOT = Path(__file__).parents[2]
OTHERS = re.compile("bert|resnet")
"""Experiments on other models, which need more than the embedded data."""
TAGGERS = sorted(p for p in (ROOT / "examples/reports").glob("*.toml") if not OTHERS.search(p.stem))
SIZES = {
    "batch_size": 7,
    "epochs": 7,
    "learning_rate": 6,
    "channel_multiplier_uniform": 5,
    "channel_multiplier_grid": 625,
    "channel_multiplier_tpe": 64,
    "ptq_qat": 8,
    "sparsity": 18,
    "format_families": 168,
    "qat_3bit": 3,
    "halving": 70,
    "joint": 125 * 20 * 5,
    "joint_widths": 125,
    "joint_formats": 160_000,
    "joint_sparsity": 625,
}


def check(path: Path) -> None:
    document = Document.read(path)
    search = assemble(Settings.from_document(document), document).session
    assert search.space.tree.size == SIZES[path.stem]


def test_all_files_are_counted() -> None:
    assert {path.stem for path in TAGGERS} == set(SIZES)


@pytest.mark.parametrize("path", TAGGERS, ids=lambda path: path.stem)
def test_every_experiment_can_begin_with_the_real_data(path: Path, real_data: Path) -> None:
    check(path)


@pytest.mark.parametrize("path", TAGGERS, ids=lambda path: path.stem)
def test_every_experiment_can_begin_without_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARETOBIT_TEST_DATA", raising=False)
    check(path)


def test_an_experiment_runs_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARETOBIT_TEST_DATA", raising=False)
    less = ("train.max_epochs=1", "search.pipeline.finetune.max_epochs=1")
    settings = [text for change in less for text in ("--set", change)]
    file, out = ROOT / "examples/reports/qat_3bit.toml", tmp_path / "run"
    done = CliRunner().invoke(app, ["search", "--config", str(file), "--out", str(out), "-q", *settings])
    assert done.exit_code == 0, done.output
    with Study.open(out) as study:
        assert study.counts()["complete"] == 3
        assert {len(trial.curve) for trial in study} == {1}


def test_the_script_runs_files_that_are_there_and_draws_what_the_page_shows() -> None:
    page = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    experiments = importlib.import_module("run_experiments").EXPERIMENTS.values()
    files = {file for experiment in experiments for file, _ in experiment.runs.values()}
    assert files == set(SIZES)
    shots = [shot for experiment in experiments for shot in experiment.shots]
    assert {shot.figure for shot in shots} <= set(FIGURES.names())
    shown = re.findall(r"\]\(images/experiments/(\S+)\.png\)", page)
    assert sorted(shown) == sorted(shot.file for shot in shots)
    for name in shown:
        assert 5_000 < (ROOT / f"docs/images/experiments/{name}.png").stat().st_size < 120_000


def test_links_of_the_page_point_at_files_that_exist() -> None:
    page = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page):
        assert (ROOT / "docs" / target).exists(), target
