"""`paretobit sensitivity` says which layer is fragile, from a folder, a checkpoint or a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import paretobit as pb
from paretobit.cli.main import app
from paretobit.passes.layers.assignment import apply_assignment
from paretobit.workflow.opening import open_saved


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["sensitivity", *(str(a) for a in arguments)])


def ok(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "t"
    command = ["train", "jsc-three-linear", "digits", "--max-epochs", "3", "--learning-rate", "0.01"]
    result = CliRunner().invoke(app, [*command, "-o", str(folder), "-q"])
    assert result.exit_code == 0, result.output
    return folder


def test_a_folder_is_enough_and_the_figures_are_those_of_the_quantised_model(trained: Path) -> None:
    found = json.loads(ok(trained, "--format", "scaled_integer(width=4)", "--rows", "100000", "--json"))
    model, data = open_saved(trained)
    assert found["samples"] == len(data.val)
    linear = next(row for row in found["rows"] if row["layer"] == "seq_blocks_2")
    with torch.no_grad():
        before = torch.nn.functional.cross_entropy(model(data.val.x), data.val.y)
        apply_assignment(model, {"seq_blocks.2": {"weight": pb.formats.ScaledInteger(4)}})
        ends = model(data.val.x)
    assert found["loss"] == pytest.approx(before.item(), rel=1e-5)
    assert linear["slots"] == {"data_in": "scaled_integer(width=4)", "weight": "scaled_integer(width=4)"}
    weight = json.loads(
        ok(trained, "--format", "scaled_integer(width=4)", "--rows", "100000", "--slots", "weight", "--json")
    )
    linear = next(row for row in weight["rows"] if row["layer"] == "seq_blocks_2")
    change = torch.nn.functional.cross_entropy(ends, data.val.y) - before
    assert linear["loss_change"] == pytest.approx(change.item(), abs=1e-5)


def test_the_table_has_every_layer_in_every_default_format(trained: Path) -> None:
    table = ok(trained, "--rows", "64")
    assert "64 rows of val; float cross_entropy" in table
    for text in ("scaled_integer(width=4, per=channel)", "fp8_e4m3", "mxfp4", "seq_blocks_2", "SQNR model"):
        assert text in table
    found = json.loads(ok(trained, "--rows", "64", "--json"))
    assert len({row["format"] for row in found["rows"]}) == 4
    ratios = [row["model_sqnr"] for row in found["rows"] if isinstance(row["model_sqnr"], float)]
    assert ratios == sorted(ratios)


def test_the_same_rows_are_drawn_again(trained: Path) -> None:
    first = ok(trained, "--rows", "32", "--json")
    assert ok(trained, "--rows", "32", "--json") == first
    assert ok(trained, "--rows", "33", "--json") != first


def test_a_checkpoint_and_a_file_say_the_same_as_the_folder(trained: Path, tmp_path: Path) -> None:
    weights = trained / "best" / "weights.safetensors"
    options = ("--rows", "48", "--format", "mxfp4", "--loss", "kl", "--json")
    expected = ok(trained, *options)
    assert ok("jsc-three-linear", "digits", "--load", weights, *options) == expected
    file = tmp_path / "s.toml"
    file.write_text(f'[model]\nname = "jsc-three-linear"\nload = "{weights}"\n[data]\nname = "digits"\n')
    assert ok(file, *options) == ok("-c", file, *options) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("jsc-tiny", "digits"), "no weights to look at"),
        (("TRAINED", "--format", "scaled_intger(width=4)"), "did you mean 'scaled_integer'"),
        (("TRAINED", "--slots", "weigth"), "did you mean 'weight'"),
        (("TRAINED", "--loss", "mse"), "allowed: cross_entropy, kl"),
        (("TRAINED", "--split", "vall"), "did you mean 'val'"),
        (("TRAINED", "--rows", "0"), "--rows"),
        (("TRAINED", "--load", "x.pt"), "weights of its own"),
    ],
)
def test_bad_input_is_refused_with_exit_code_2(trained: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(*(str(trained) if a == "TRAINED" else a for a in arguments))
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")


def test_quiet_prints_nothing(trained: Path) -> None:
    assert ok(trained, "--rows", "8", "-q") == ""
