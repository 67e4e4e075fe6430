"""`paretobit report` and `show A B`: what is written is what the study holds; what cannot be is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_line import refused, run
from typer.testing import Result

import paretobit as pb
from paretobit.report import cell
from paretobit.report.figures import FIGURES

SEARCH = """
model = "jsc-tiny"
data = "digits"
[train]
max_epochs = 3
learning_rate = 1e-2
[search]
maximize = "accuracy"
minimize = "bitops"
strategy = "random"
n_trials = 8
[search.space.seed.linear]
data_in_width = [4, 8]
data_in_frac_width = 3
weight_width = [2, 4, 8]
weight_frac_width = 2
"""
SINGLE = SEARCH.replace('minimize = "bitops"\n', "")


def ok(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Searches of two samplers and of one objective, and two trainings."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "search.toml").write_text(SEARCH)
    (folder / "single.toml").write_text(SINGLE)
    for name, sampler, seed in (("random-0", "random", 0), ("random-1", "random", 1), ("tpe-0", "tpe", 0)):
        more = ("--seed", seed, "--set", f"search.strategy={sampler}")
        ok("search", "-c", folder / "search.toml", "-o", folder / name, "-q", *more)
    ok("search", "-c", folder / "single.toml", "-o", folder / "single", "-q")
    for size in (64, 512):
        ok("train", "jsc-tiny", "digits", "--max-epochs", 3, "--batch-size", size, "-o", folder / f"t-{size}", "-q")
    return folder


@pytest.fixture(autouse=True)
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_and_all_figures_of_a_run_are_in_its_folder(place: Path) -> None:
    told = json.loads(ok("report", place / "random-0", "--json").stdout)
    folder = place / "random-0" / "report"
    assert told["page"] == str(folder / "report.md")
    shown = {figure["name"]: figure for figure in told["figures"]}
    assert set(shown) | set(told["not_drawn"]) == set(FIGURES.names())
    assert set(told["not_drawn"]) == {"running_best_by_format", "predicted", "stages", "trial_curves"}
    assert {p.name for p in folder.iterdir()} == {"report.md", *(f["file"] for f in shown.values())}
    page = (folder / "report.md").read_text()
    links = re.findall(r"!\[\w+\]\((.+?)\)", page)
    assert all((folder / link).read_bytes().startswith(b"\x89PNG") for link in links)
    assert len(links) == len(shown)
    for figure in shown.values():
        assert figure["reading"] in page
    assert "the strategy of this study predicts nothing" in page


def test_the_numbers_on_the_page_are_those_of_the_study(place: Path) -> None:
    ok("report", place / "tpe-0", "-q")
    page = (place / "tpe-0" / "report" / "report.md").read_text()
    with pb.Study.open(place / "tpe-0") as study:
        heads, _, *lines = page.partition("## The front\n\n")[2].partition("\n\n")[0].splitlines()
        table = [[part.strip() for part in line.strip("|").split("|")] for line in (heads, *lines)]
        rows = {row[0]: dict(zip(table[0], row, strict=True)) for row in table[1:]}
        assert list(rows) == ["float", *(str(trial.number) for trial in study.front())]
        for trial in study.front():
            row = rows[str(trial.number)]
            assert row["accuracy"] == cell(trial.metrics["accuracy"])
            assert row["total_bitops"] == cell(trial.metrics["total_bitops"])
            assert row["test_accuracy"] == cell(study.facts["test"][str(trial.number)]["accuracy"])
        assert f"| Trials | 8: {study.counts()['complete']} complete" in page
        assert f"| Configurations in it | {int(study.facts['size']):,} |" in page
        assert f"0 of {len(study)} trials failed" in page
        assert f"| {study.best().number} | {{" in page
    assert "| Model | jsc-tiny |" in page
    assert "| Strategy | name = optuna, sampler = tpe |" in page


def test_several_runs_are_laid_over_each_other(place: Path, here: Path) -> None:
    runs = [place / name for name in ("random-0", "random-1", "tpe-0")]
    result = ok("report", *runs)
    folder = here / "runs" / "report"
    assert {p.name for p in folder.iterdir()} == {
        "report.md", "running_best.png", "error.png", "hypervolume.png", "knob.png", "learning_curves.png",
    }  # fmt: skip
    assert "random a median of" in result.stdout
    assert "front, running_best_by_format, bars" in " ".join(result.stderr.split())
    page = (folder / "report.md").read_text()
    assert "| tpe | tpe-0 | tpe | 0 | 8 |" in page
    ok("report", *runs, "-q")
    assert (here / "runs" / "report-2" / "report.md").is_file(), "nothing is overwritten"


def test_trainings_have_learning_curves_with_what_tells_them_apart(place: Path, here: Path) -> None:
    told = json.loads(ok("report", place / "t-64", place / "t-512", "--out", here / "r", "--json").stdout)
    (curves,) = told["figures"]
    assert "batch_size = 64" in curves["reading"]
    assert "batch_size = 512" in (here / "r" / "report.md").read_text()
    best = json.loads((place / "t-64" / "best" / "metrics.json").read_text())
    one = json.loads(ok("report", place / "t-64", "--json").stdout)["figures"][0]["reading"]
    assert f"Best of 3 epochs: {best['number']}" in one
    assert f"accuracy {cell(best['train_accuracy'])} in training, {cell(best['val_accuracy'])} in validation" in one


def test_one_figure_as_asked_for(place: Path, here: Path) -> None:
    asked = ("--metric", "loss", "--knob", "weight_width", "--by", "data_in_width", "--format", "svg")
    told = json.loads(ok("report", place / "single", "--figure", "knob", *asked, "-o", "r", "--json").stdout)
    assert [figure["file"] for figure in told["figures"]] == ["knob.svg"]
    assert (here / "r" / "knob.svg").read_text().startswith("<?xml")
    assert "The median loss" in told["figures"][0]["reading"]
    assert told["not_drawn"] == {}
    ok("report", place / "single" / "study.db", "--figure", "formats", "--trial", 3, "-o", "r", "-q")
    assert (here / "r" / "formats.png").is_file()


def test_the_figures_are_listed() -> None:
    rows = json.loads(ok("report", "--list", "--json").stdout)
    assert [row["name"] for row in rows] == FIGURES.names()
    assert next(row for row in rows if row["name"] == "heatmap")["options"] == "--by, --knob, --metric"
    assert "learning_curves" in ok("report", "--list").stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), ("nothing to report on", "RUN")),
        (("gone",), ("no study here", "'gone'")),
        (("single", "--figure", "fornt"), ("unknown figure", "did you mean 'front'?")),
        (("single", "--figure", "front"), ("no figure 'front'", "one objective has no front")),
        (("single", "--figure", "predicted"), ("predicts nothing",)),
        (("single", "--metric", "acuracy"), ("no such metric", "did you mean 'accuracy'?", "--metric")),
        (("single", "--knob", "weigth_width"), ("no such knob", "did you mean 'weight_width'?", "--knob")),
        (("single", "--by", "nothing"), ("no such knob", "--by")),
        (("single", "--trial", "8"), ("no such trial", "0 to 7")),
        (("single", "--figure", "bars", "--trial", "2"), ("none of these figures heeds it", "--figure formats")),
        (("single", "--format", "pdf"), ("--format", "png, svg")),
        (("single", "single"), ("given twice",)),
        (("single", "random-0"), ("different things", "maximize accuracy")),
        (("single", "t-64"), ("no figure in common",)),
        (("t-64", "--metric", "loss"), ("a training has no trials", "--metric")),
        (("random-0", "tpe-0", "--figure", "bars"), ("of one run, not of 2",)),
        (("single", "--out", "file"), ("is a file",)),
    ],
)
def test_what_cannot_be_reported_is_refused_and_nothing_is_written(
    place: Path, here: Path, arguments: tuple[str, ...], told: tuple[str, ...]
) -> None:
    (here / "file").touch()
    named = [place / a if (place / a).is_dir() else a for a in arguments]
    out = () if "--out" in arguments else ("--out", here / "out")
    message = refused("report", *named, *out)
    for words in told:
        assert words in message
    assert [p.name for p in here.iterdir()] == ["file"]


def test_a_study_without_trials_is_refused(here: Path) -> None:
    pb.Study(here / "study.db").close()
    assert "no trials yet" in refused("report", here)


def test_a_run_without_any_success_still_has_a_page(place: Path, here: Path) -> None:
    with pb.Study.open(place / "single") as source, pb.Study(here / "study.db") as study:
        from dataclasses import replace

        failed = [replace(t, state="failed", metrics={}, error="it broke") for t in source.trials[:2]]
        study.begin(source.facts, failed)
    told = json.loads(ok("report", here, "--json").stdout)
    assert [figure["name"] for figure in told["figures"]] == []
    assert "2 of 2 trials failed" in (here / "report" / "report.md").read_text()


def test_two_trials_are_shown_side_by_side(place: Path) -> None:
    with pb.Study.open(place / "single") as study:
        a, b = study.trials[0], study.trials[1]
    said = json.loads(ok("show", place / "single", 0, 1, "--json").stdout)
    assert [side["number"] for side in said["trials"]] == [0, 1]
    rows = {row["Metric"]: row for row in said["metrics"]}
    assert rows["accuracy"]["Difference"] == b.metrics["accuracy"] - a.metrics["accuracy"]
    assert {row["Knob"] for row in said["knobs"]} == {k for k in a.config if a.config[k] != b.config[k]}
    text = ok("show", place / "single", "best", "float").stdout
    assert "formats differ" in text
    assert "float (baseline)" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("0",), "two trials are compared"),
        (("0", "1", "2"), "two trials are compared"),
        (("0", "1", "--failures"), "on their own"),
        (("0", "best", "--trial", "1"), "on their own"),
        (("0", "99"), "0 to 7"),
        (("0", "worst"), "best or float"),
    ],
)
def test_what_is_no_pair_is_refused(place: Path, arguments: tuple[str, ...], told: str) -> None:
    assert told in refused("show", place / "single", *arguments)
