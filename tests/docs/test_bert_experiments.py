"""The experiments with BERT: every file can begin without any data set, on from what the others left."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paretobit.cli.main import app
from paretobit.document import Document
from paretobit.workflow.settings import Settings
from paretobit.workflow.setup import assemble

ROOT = Path(__file__).parents[2]
FILES = ROOT / "examples/reports"
SIZES = {
    "bert_architecture": 28,
    "bert_identity": 16,
    "bert_compression": 15,
    "bert_mixed_precision": 81**8,
    "bert_formats": 317,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the runs that others go on from are there, trained for seconds."""
    place = tmp_path_factory.mktemp("bert")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PARETOBIT_TEST_DATA", raising=False)
        patch.chdir(place)
        out = ("-o", "runs/experiments/bert_tiny", "--set", "train.max_epochs=1")
        result = CliRunner().invoke(app, ["train", "-q", "-c", str(FILES / "bert_tiny.toml"), *out])
        assert result.exit_code == 0, result.output
        shutil.copytree("runs/experiments/bert_tiny", "runs/experiments/bert_architecture")
    return place


def test_all_files_are_counted_and_told_of() -> None:
    names = {path.stem for path in FILES.glob("bert*.toml")}
    assert names == {"bert_tiny", *SIZES}
    page = (ROOT / "docs/experiments_bert.md").read_text(encoding="utf-8")
    assert all(f"{name}.toml" in page for name in names)


def test_every_picture_of_the_page_is_there_and_small() -> None:
    page = (ROOT / "docs/experiments_bert.md").read_text(encoding="utf-8")
    pictures = sorted((ROOT / "docs/images/experiments").glob("bert*.png"))
    assert pictures
    for picture in pictures:
        assert f"(images/experiments/{picture.name})" in page
        assert picture.stat().st_size < 120_000
    assert page.count("(images/experiments/") == len(pictures)


@pytest.mark.parametrize("name", SIZES)
def test_every_experiment_can_begin(trained: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("PARETOBIT_TEST_DATA", raising=False)
    monkeypatch.chdir(trained)
    document = Document.read(FILES / f"{name}.toml")
    search = assemble(Settings.from_document(document), document).session
    assert search.space.tree.size == SIZES[name]
