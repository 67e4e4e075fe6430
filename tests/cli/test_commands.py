"""Every command does what its help says, and ends with the right exit code."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import ok, run
from searches import LINEAR, TRAINED

import paretobit as pb
from paretobit.report.page import page
from paretobit.report.runs import Run, Runs

SEARCH = f"""{TRAINED}{LINEAR}name = "integer"
data_in = [{{ width = 8, frac_width = 6 }}, {{ width = 4, frac_width = 3 }}]
weight = [{{ width = 8, frac_width = 6 }}, {{ width = 4, frac_width = 2 }}]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search.toml").write_text(SEARCH)
    return tmp_path


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "search.toml").write_text(SEARCH)
    ok("search", "-c", folder / "search.toml", "-o", folder / "run", "-q")
    return folder / "run"


def test_help_does_not_import_torch() -> None:
    code = "import sys; from paretobit.cli.main import app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_help_names_every_command() -> None:
    page = ok("--help")
    looking = ("plan", "inspect", "show", "list", "report", "doctor", "compare", "enumerate")
    for command in ("train", "test", "search", *looking):
        assert command in page
        assert ok(command, "--help")


def test_the_version_is_printed() -> None:
    assert pb.__version__ in ok("--version")


def test_what_stays_in_float_is_said_beside_the_numbers(searched: Path, here: Path) -> None:
    with pb.Study.open(searched) as study:
        (note,) = study.notes
    assert note.startswith("left in float as asked: ")
    for command in (("show", searched), ("plan", "-c", here / "search.toml")):
        assert f"note: {note}" in ok(*command)
    assert json.loads(ok("show", searched, "--json"))["notes"] == [note]


def test_train_then_test_by_the_folder_alone(here: Path) -> None:
    trained = json.loads(
        ok("train", "jsc-tiny", "digits", "--max-epochs", "4", "--learning-rate", "0.01", "-o", "t", "--json")
    )
    assert trained["folder"] == "t"
    assert {row["split"] for row in trained["splits"]} == {"train", "val", "test"}
    for name in ("config.toml", "learning_curves.csv", "best/model.json", "best/weights.safetensors"):
        assert (here / "t" / name).is_file()
    tested = json.loads(ok("test", "t", "--json"))
    assert tested["split"] == "test"
    assert tested["accuracy"] == next(row["accuracy"] for row in trained["splits"] if row["split"] == "test")
    assert [row["name"] for row in tested["classes"]] == [str(digit) for digit in range(10)]
    found = sum(row["recall"] * row["rows"] for row in tested["classes"])
    assert found / tested["samples"] == pytest.approx(tested["accuracy"])
    assert "val accuracy" in ok("test", "t", "--split", "val")


def test_test_takes_a_bare_checkpoint_with_the_model_named(here: Path) -> None:
    ok("train", "jsc-tiny", "digits", "--max-epochs", "1", "-o", "t", "-q")
    by_name = json.loads(ok("test", "jsc-tiny", "digits", "--load", "t/best/weights.safetensors", "--json"))
    assert by_name == json.loads(ok("test", "t", "--json"))


def test_default_folders_never_overwrite(here: Path) -> None:
    for _ in range(2):
        ok("train", "jsc-tiny", "digits", "--max-epochs", "1", "-q")
    assert sorted(p.name for p in (here / "runs").iterdir()) == ["jsc-tiny-digits", "jsc-tiny-digits-2"]


def test_search_leaves_the_whole_run_folder(searched: Path) -> None:
    names = {path.name for path in searched.iterdir()}
    assert names >= {"config.toml", "study.db", "trials.csv", "front.csv", "front.png", "best", "float"}
    with (searched / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert len({(row["seq_blocks_2.data_in"], row["seq_blocks_2.weight"]) for row in rows}) == 4
    assert all(float(row["total_bitops"]) > 0 and 0 <= float(row["accuracy"]) <= 1 for row in rows)
    assert (searched / "front.png").read_bytes().startswith(b"\x89PNG")


def test_the_resolved_configuration_is_the_same_search(searched: Path, tmp_path: Path) -> None:
    ok("search", "-c", searched / "config.toml", "-o", tmp_path / "again", "-q")
    first, again = (pb.Study.open(folder) for folder in (searched, tmp_path / "again"))
    assert [(t.config, t.metrics) for t in first.trials] == [(t.config, t.metrics) for t in again.trials]


def test_best_is_the_model_that_was_measured(searched: Path) -> None:
    page = json.loads((searched / "best/model.json").read_text())
    tested = json.loads(ok("test", searched, "--split", "val", "--json"))
    assert tested["accuracy"] == page["metrics"]["accuracy"]
    assert "LinearInteger(in_features=64" in repr(pb.load(searched))


def test_flags_override_the_file_and_set_overrides_flags(here: Path) -> None:
    ok("search", "-c", "search.toml", "--trials", "3", "-o", "a", "-q")
    assert len(pb.Study.open("a")) == 3
    ok("search", "-c", "search.toml", "--trials", "3", "--set", "search.n_trials=2", "-o", "b", "-q")
    assert len(pb.Study.open("b")) == 2
    ok("search", "-c", "search.toml", "--strategy", "random", "--trials", "5", "-o", "c", "-q")
    assert pb.Study.open("c").facts["strategy"]["sampler"] == "random"


def test_search_from_a_checkpoint_does_not_train(here: Path) -> None:
    ok("train", "jsc-tiny", "digits", "--max-epochs", "2", "-o", "t", "-q")
    ok("search", "-c", "search.toml", "--load", "t", "-o", "s", "-q")
    assert not (here / "s/float").exists()
    tested = json.loads(ok("test", "t", "--split", "val", "--json"))
    assert pb.Study.open("s").baseline["accuracy"] == tested["accuracy"]


def test_resume_adds_nothing_to_a_finished_search_and_more_when_asked(here: Path) -> None:
    ok("search", "-c", "search.toml", "--trials", "2", "-o", "s", "-q")
    before = [t.seconds for t in pb.Study.open("s").trials]
    ok("search", "-o", "s", "--resume", "-q")
    assert [t.seconds for t in pb.Study.open("s").trials] == before
    ok("search", "-o", "s", "--resume", "--trials", "4", "-q")
    after = pb.Study.open("s")
    assert [t.seconds for t in after.trials][:2] == before
    assert len(after) == 4


def test_search_prints_one_json_object_for_scripts(here: Path) -> None:
    answer = json.loads(ok("search", "-c", "search.toml", "-o", "s", "--json"))
    assert answer["trials"]["complete"] == 4
    assert answer["baseline"]["number"] == "float"
    assert {"accuracy", "total_bitops", "test_accuracy"} <= set(answer["front"][0])


def test_quiet_prints_nothing(here: Path) -> None:
    result = run("search", "-c", "search.toml", "-o", "s", "-q")
    assert result.output == ""


def test_plan_counts_without_searching(here: Path) -> None:
    planned = json.loads(ok("plan", "-c", "search.toml", "--json"))
    assert planned["configurations"] == "4"
    assert planned["matched"] == ["seq_blocks_2"]
    assert planned["unmatched"] == ["seq_blocks_0", "seq_blocks_1", "seq_blocks_3"]
    assert planned["ranges"]["total_bitops"] == [640 * 16, 640 * 64]
    assert planned["seconds"] > 0
    assert not (here / "runs").exists()
    assert "4 configurations" in ok("plan", "-c", "search.toml")


def test_plan_names_knobs_without_effect(here: Path) -> None:
    (here / "m.py").write_text(
        "from torch import nn\n"
        "def make(in_features, num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes, bias=False))\n"
    )
    planned = json.loads(
        ok("plan", "m.py:make", "-c", "search.toml", "--set", "search.space.seed.linear.bias_width=[4, 8]", "--json")
    )
    assert planned["dropped"] == {"1.bias_width": "the layer has no bias"}
    assert planned["configurations"] == "4"


def test_show_answers_in_all_its_ways(searched: Path) -> None:
    assert "Front" in ok("show", searched)
    best = json.loads(ok("show", searched, "--best", "min bitops", "--json"))
    assert set(best) >= {"number", "software_metrics", "hardware_metrics", "scaled_metrics", "config"}
    assert best["software_metrics"]["total_bitops"] == 640 * 16
    assert best["config"]["seq_blocks_2"]["config"] == {
        "name": "integer",
        "data_in_width": 4,
        "data_in_frac_width": 3,
        "weight_width": 4,
        "weight_frac_width": 2,
    }
    assert "LinearInteger" in ok("show", searched, "--layers")
    layers = json.loads(ok("show", searched, "--layers", "--json"))
    assert {"Original type": "Linear", "OP": "linear", "Total": 1, "Changed": 1, "Unchanged": 0} in layers["types"]
    assert "0 of 4 trials failed" in ok("show", searched, "--failures")
    assert json.loads(ok("show", searched, "--json"))["trials"]["complete"] == 4


def test_what_the_strategy_noted_is_shown(here: Path) -> None:
    note = "no calibration data tells harm beforehand: one group at a time is measured"
    more = ("--set", "search.strategy.name=guided", "--set", "search.calibration=0")
    assert note in " ".join(ok("search", "-c", "search.toml", "-o", "run", *more).split())
    assert note in " ".join(ok("show", "run").split())
    again = ("search", "-c", "search.toml", "-o", "run", *more, "--resume", "--json")
    left = "left in float as asked: 16% of the parameters (chosen by no key: seq_blocks.0)"
    assert json.loads(ok(*again))["notes"] == [left, note]
    assert f"- {note}\n" in page(Runs([Run.open("run")]), [], {})


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("formats", "integer"),
        ("models", "jsc-custom"),
        ("datasets", "digits"),
        ("spaces", "quantize"),
        ("strategies", "brute_force"),
        ("samplers", "tpe"),
        ("runners", "latency"),
        ("metrics", "total_bitops"),
    ],
)
def test_list_names_what_there_is(kind: str, name: str) -> None:
    rows = json.loads(ok("list", kind, "--json"))[kind]
    assert name in [row["name"] for row in rows]
    assert all(row.get("what") or row.get("unit") for row in rows)


def test_inspect_prints_the_table_of_the_second_report() -> None:
    found = json.loads(
        ok("inspect", "jsc-custom", "--input-shape", "16", "--classes", "5", "--convention", "lab2",
           "--batch", "8", "--json")
    )  # fmt: skip
    table = {row["Node name"]: list(row.values())[1:] for row in found["costs"]}
    assert table["seq_blocks_0"] == ["batch_norm1d", 32, 512, 512, 524288, 524288]
    assert table["seq_blocks_1"] == ["relu", 0, 128, 128, 4096, 4096]
    assert table["seq_blocks_2"] == ["linear", 512, 4096, 8192, 4194304, 8388608]
    assert table["seq_blocks_10"] == ["linear", 80, 640, 1280, 655360, 1310720]
    assert table["seq_blocks_12"] == ["relu", 0, 40, 40, 1280, 1280]
    assert table["x"] == ["placeholder", None, None, None, None, None]


def test_inspect_sees_the_formats_of_a_saved_model(searched: Path) -> None:
    found = json.loads(ok("inspect", searched, "--json"))
    linear = next(row for row in found["costs"] if row["Node type"] == "linear")
    assert linear["Forward bitops"] < 640 * 32 * 32
    assert "Changed" in found["types"][0]


def test_a_folder_in_use_is_not_overwritten(searched: Path) -> None:
    result = run("search", "-c", searched / "config.toml", "-o", searched)
    assert result.exit_code == 2
    assert "--resume" in result.stderr


def test_resume_with_another_space_is_refused(searched: Path) -> None:
    before = (searched / "study.db").read_bytes()
    changed = "search.space.seed.linear.weight_width=[2, 3]"
    result = run("search", "-o", searched, "--resume", "--set", "search.space.seed.linear.weight=8", "--set", changed)
    assert result.exit_code != 0
    result = run("search", "-o", searched, "--resume", "--set", "search.maximize=loss")
    assert result.exit_code == 1
    assert "another search" in result.stderr
    assert (searched / "study.db").read_bytes() == before


def test_the_loaded_winner_and_the_caller_agree_bit_for_bit(searched: Path) -> None:
    x = torch.rand(7, 64)
    with torch.no_grad():
        assert torch.equal(pb.load(searched / "best")(x), pb.load(searched)(x))
