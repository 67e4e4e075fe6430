"""`paretobit enumerate` and `paretobit compare`, as one types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import ok, refused
from searches import LINEAR, TRAINED

from paretobit.studies.study import Study

SEARCH = f"""{TRAINED}{LINEAR}name = "scaled_integer"
data_in_width = [2, 4, 8]
weight_width = [2, 4, 8]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    (folder / "search.toml").write_text(SEARCH)
    ok("enumerate", folder / "search.toml", "-o", folder / "run", "--test", "-q")
    return folder


def test_enumerate_says_what_it_made(place: Path, tmp_path: Path) -> None:
    said = json.loads(ok("enumerate", "-o", place / "run", "--resume", "--test", "--json"))
    assert said["configurations"] == 9
    assert "test_accuracy" in said["metrics"]
    assert said["evidence"] is True
    assert said["bytes"] == (place / "run/table.npz").stat().st_size
    assert "9 configurations" in ok("enumerate", place / "search.toml", "-o", tmp_path / "new")


def test_enumerate_keeps_an_ordinary_run_folder(place: Path) -> None:
    assert len(Study.open(place / "run")) == 9
    assert "accuracy" in ok("show", place / "run")


def test_enumerate_goes_on_only_where_it_is_told_to(place: Path) -> None:
    assert "use --resume" in refused("enumerate", place / "search.toml", "-o", place / "run")
    assert "no configuration" in refused("enumerate")


def test_enumerate_refuses_a_large_space_and_names_its_size(place: Path, tmp_path: Path) -> None:
    said = refused("enumerate", place / "search.toml", "-o", tmp_path / "run", "--limit", "8")
    assert "9 configurations" in said
    assert "--limit allows more" in said
    assert not (tmp_path / "run").exists()


def test_compare_prints_a_table_and_its_reading(place: Path) -> None:
    said = ok("compare", place / "run", "--strategies", "tpe,qmc", "--seeds", "3", "--trials", "6")
    for label in ("random", "shuffled", "tpe", "qmc"):
        assert label in said
    assert "After 6 evaluations" in said


def test_compare_writes_a_page_with_pictures(place: Path, tmp_path: Path) -> None:
    shutil.copy(place / "run/table.npz", tmp_path / "small.npz")
    little = ["--strategies", "nsgaii", "--seeds", "2", "--trials", "5"]
    files = ["--out", tmp_path / "out", "--format", "svg"]
    ok("compare", tmp_path / "small.npz", place / "run", *little, *files)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["comparison-1-small.svg", "comparison-2-run.svg", "comparison.json", "comparison.md"]
    page = (tmp_path / "out/comparison.md").read_text()
    assert "](comparison-1-small.svg)" in page
    assert "## run: maximize accuracy, minimize total_bitops" in page


def test_compare_answers_another_question_of_the_same_table(place: Path) -> None:
    arguments = ["--strategies", "tpe", "--seeds", "2", "--trials", "5", "--json"]
    question = ["--maximize", "accuracy", "--subject-to", "bitops <= baseline / 60"]
    (front,) = json.loads(ok("compare", place / "run", *arguments))
    (single,) = json.loads(ok("compare", place / "run", *arguments, *question, "--within", "0.5"))
    assert front["measure"] == "hypervolume fraction"
    assert (single["measure"], single["within"]) == ("regret", 0.5)
    assert single["constraints"] == ["total_bitops <= baseline / 60"]
    assert len(single["strategies"]["tpe"]["curves"]) == 2


def test_compare_runs_a_configuration_live(place: Path, tmp_path: Path) -> None:
    arguments = ["--strategies", "tpe", "--seeds", "2", "--trials", "9", "--json"]
    (live,) = json.loads(ok("compare", place / "search.toml", *arguments, "--out", tmp_path / "out"))
    (replayed,) = json.loads(ok("compare", place / "run", *arguments))
    assert live["best_is_known"]
    for label, strategy in replayed["strategies"].items():
        assert live["strategies"][label]["curves"] == strategy["curves"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent.npz"], "no table here"),
        (["{run}", "--strategies", "tpi"], "did you mean 'tpe'?"),
        (["{run}", "--strategies", "cmaes"], "takes one objective"),
        (["{run}", "--minimize", "latency"], "the table has no such metric"),
        (["{run}", "--subject-to", "accuracy"], "not a constraint"),
        (["{run}", "--seeds", "0"], "1 or more"),
        (["{run}", "--subject-to", "bitops <= 1"], "no configuration is feasible"),
    ],
)
def test_what_cannot_be_compared_is_refused(place: Path, arguments: list[str], said: str) -> None:
    assert said in refused("compare", *[a.format(run=place / "run") for a in arguments])
