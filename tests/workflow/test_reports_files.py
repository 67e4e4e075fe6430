"""The files of the reports run as they are printed, completed by their own keys."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import paretobit as pb
from paretobit.cli.main import app
from paretobit.compat import ACCEPTED, KEYS, VALUES, WITHOUT_MEANING, modernise, translated
from paretobit.data.jsc import CACHED_NAME, FEATURES
from paretobit.document import Document
from paretobit.errors import BadInput
from paretobit.models import build

REPORTS = Path(__file__).parent / "reports"
CLASSES = ("g", "q", "t", "w", "z")


def write_jets(path: Path, rows: int = 900) -> None:
    """A small file in the layout of OpenML 42468, whose classes can be told apart."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, len(CLASSES), rows)
    x = draw.normal(size=(rows, len(FEATURES)))
    x[np.arange(rows), labels] += 3.0
    lines = ["@RELATION jets", *(f"@ATTRIBUTE {name} REAL" for name in FEATURES)]
    lines += [f"@ATTRIBUTE class {{{','.join(CLASSES)}}}", "@DATA"]
    rows_text = (",".join(map(repr, row.tolist())) for row in x)
    lines += [f"{text},{CLASSES[label]}" for text, label in zip(rows_text, labels, strict=True)]
    path.write_text("\n".join(lines) + "\n")


def write_lightning(path: Path, model: str) -> None:
    """A checkpoint as Lightning writes them: the state under `state_dict`, names under `model.`."""
    state = build(model, (16,), 5, seed=1).state_dict()
    path.parent.mkdir(parents=True)
    wrapped = {f"model.{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": wrapped, "epoch": 9, "pytorch-lightning_version": "2.1"}, path)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARETOBIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    write_jets(tmp_path / "cache" / CACHED_NAME)
    for report in REPORTS.glob("*.toml"):
        shutil.copy(report, tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def ok(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_transform_of_the_second_report(here: Path) -> None:
    write_lightning(here / "mase_output/lab-1_jsc-custom/software/training_ckpts/best.ckpt", "jsc-custom")
    done = json.loads(ok("transform", "--config", "lab2_transform.toml", "--json"))
    types = {row["OP"]: (row["Total"], row["Changed"], row["Unchanged"]) for row in done["types"]}
    assert types["linear"] == (3, 3, 0)
    assert types["batch_norm1d"] == (4, 0, 4)
    assert types["relu"] == (4, 0, 4)
    before, after = done["sides"]
    assert before["total_bitops"] == after["total_bitops"] * 16
    layer = next(row for row in done["layers"] if row["Node name"] == "seq_blocks_2")
    assert layer["After"].startswith("LinearInteger(in_features=16, out_features=32")
    assert layer["Distinct weights"] <= 256
    assert 0 < layer["Max error"] <= 1 / 32

    loaded = pb.load(here / "runs/lab-2_transform")
    saved = pb.load(here / "runs/lab-2_transform/best")
    x = torch.randn(50, 16)
    with torch.no_grad():
        assert torch.equal(loaded(x), saved(x))
    assert "3 " in ok("transform", "--config", "lab2_transform.toml")


def test_a_transform_that_says_na_leaves_the_model_as_it_is(here: Path) -> None:
    (here / "na.toml").write_text(
        'model = "jsc-tiny"\ndataset = "digits"\n[passes.quantize]\nby = "type"\n'
        '[passes.quantize.default.config]\nname = "NA"\n'
    )
    done = json.loads(ok("transform", "--config", "na.toml", "--json"))
    assert all(row["Changed"] == 0 for row in done["types"])
    before, after = ({k: v for k, v in side.items() if k} for side in done["sides"])
    assert before == after


def test_the_summed_search_of_the_third_report(here: Path) -> None:
    write_lightning(here / "mase_output/jsc-tiny/software/training_ckpts/best.ckpt", "jsc-tiny")
    ok("search", "--config", "lab3_search.toml", "-q")
    study = pb.Study.open(here / "runs/jsc-tiny")
    assert len(study) == 20
    assert study.facts["strategy"]["sampler"] == "tpe"
    assert study.facts["samples"] == {"val": 135}
    knobs = {name for trial in study.trials for name in trial.config}
    assert knobs == {
        f"seq_blocks_2.{key}" for key in ("data_in_width", "weight_width", "weight_frac_width", "bias_width")
    }
    (objective,) = study.objectives
    best = max(study.trials, key=lambda t: t.metrics["accuracy"] - 5e-10 * t.metrics["total_bitops"])
    assert study.best().metrics == best.metrics
    assert objective.scaled(best.metrics)["total_bitops"] == -5e-10 * best.metrics["total_bitops"]
    shown = json.loads(ok("show", "runs/jsc-tiny", "--best", "max accuracy", "--json"))
    assert set(shown["scaled_metrics"]) == {"accuracy", "total_bitops"}
    assert shown["config"]["seq_blocks_2"]["config"]["bias_frac_width"] == 8


def test_the_same_as_two_objectives_has_a_front(here: Path) -> None:
    write_lightning(here / "mase_output/jsc-tiny/software/training_ckpts/best.ckpt", "jsc-tiny")
    ok("search", "--config", "lab3_search.toml", "-q", "--set", "search.strategy.setup.sum_scaled_metrics=false")
    study = pb.Study.open(here / "runs/jsc-tiny")
    assert [o.direction for o in study.objectives] == ["maximize", "maximize"]
    points = {(t.metrics["accuracy"], t.metrics["total_bitops"]) for t in study.front()}
    everything = {(t.metrics["accuracy"], t.metrics["total_bitops"]) for t in study.trials}
    dominated = {p for p in everything for q in everything if q != p and q[0] >= p[0] and q[1] <= p[1]}
    assert points == everything - dominated


def test_the_brute_force_of_the_third_report_in_training_mode(here: Path) -> None:
    ok("search", "--config", "lab3_brute_force.toml", "-q")
    study = pb.Study.open(here / "runs/lab-3_brute-force")
    assert len(study) == (2 + 1) ** 3, "three layers, two formats or none each"
    assert study.facts["eval_mode"] is False
    assert study.facts["strategy"]["name"] == "brute_force"
    floats = next(t for t in study.trials if set(t.config.values()) == {"float"})
    assert floats.metrics["loss"] == study.baseline["loss"]
    model = pb.load(here / "runs/lab-3_brute-force/float")
    saved = pb.load(here / "runs/lab-3_brute-force/best")
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, saved.get_buffer(name)), "running statistics moved"


def test_the_flags_of_the_reports_exist(here: Path) -> None:
    write_lightning(here / "w/start.ckpt", "jsc-tiny")
    ok("train", "jsc-tiny", "jsc", "--max-epochs", "2", "--batch-size", "64", "--learning-rate", "0.01",
       "--project", "lab-1", "--task", "cls", "--accelerator", "cpu", "--load", "w/start.ckpt",
       "--load-type", "pl", "--seed", "42", "-q")  # fmt: skip
    config = (here / "runs/lab-1/config.toml").read_text()
    for line in ("max_epochs = 2", "batch_size = 64", "learning_rate = 0.01", 'device = "cpu"'):
        assert line in config
    ok("search", "--config", "lab3_search.toml", "--load", "runs/lab-1", "--load-type", "pl", "-q",
       "--trials", "3")  # fmt: skip
    tested = json.loads(ok("test", "runs/lab-1", "--split", "val", "--json"))
    assert pb.Study.open(here / "runs/jsc-tiny").baseline["accuracy"] == tested["accuracy"]


def test_every_old_name_is_listed() -> None:
    rows = json.loads(ok("list", "--aliases", "--json"))["aliases"]
    listed = {row["old"] for row in rows}
    assert listed >= {*KEYS, *ACCEPTED, *WITHOUT_MEANING, *(old for names in VALUES.values() for old in names)}
    assert listed >= {"graph/quantize/mixed_precision_ptq", "transform/linear_channel_multiplier", "bruteforce"}
    assert listed >= {"brute-force", "JSC_Three_Linear_Layers", "val_dataloader"}


def test_an_old_key_beside_its_new_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "both.toml"
    path.write_text("max_epochs = 3\n[train]\nmax_epochs = 4\n")
    with pytest.raises(BadInput, match=r"said twice.*train\.max_epochs.*both\.toml:1"):
        modernise(Document.read(path))


def test_lines_of_moved_keys_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text('[search.strategy.setup]\nn_jobs = 1\nn_trials = "many"\n')
    document = Document.read(path)
    modernise(document)
    assert document.line("search.n_trials") == 3


def test_new_files_pass_through_unchanged(tmp_path: Path) -> None:
    data = {"model": {"name": "jsc-tiny"}, "search": {"strategy": {"name": "optuna", "sampler": "tpe"}}}
    document = Document(json.loads(json.dumps(data)))
    assert modernise(document) == []
    assert document.data == data
    assert translated("search.strategy.sampler") == "search.strategy.sampler"


def test_widths_are_searched_with_the_reports_training_runner(here: Path) -> None:
    """Three values for each side: two widths where neighbours agree, four knobs where the last decides."""
    file = ("--config", "lab4_channel_multiplier.toml", "-q")
    ok("search", *file, "-o", "agreed")
    agreed = pb.Study.open(here / "agreed")
    assert agreed.facts["size"] == str(3**2)
    assert all(trial.metrics["epochs"] == 2 for trial in agreed)
    last = ("--set", "search.space.on_conflict=last", "--set", "search.n_trials=12")
    ok("search", *file, *last, "-o", "last")
    study = pb.Study.open(here / "last")
    assert study.facts["size"] == str(3**4)
    networks = {tuple(list(t.config.values())[-2:]) for t in study if t.state == "complete"}
    assert len(networks) == study.counts()["complete"] == 12 - study.counts()["duplicate"]


@pytest.mark.parametrize("side", [["output_only", "both"], [1], 3])
def test_a_side_that_is_no_side_is_refused(here: Path, side: object) -> None:
    key = "search.space.seed.seq_blocks_2.config.name"
    said = run("search", "--config", "lab4_channel_multiplier.toml", "--set", f"{key}={json.dumps(side)}", "-o", "x")
    assert said.exit_code == 2, said.output
    assert not (here / "x").exists()
