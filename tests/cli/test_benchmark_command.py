"""`paretobit benchmark` runs a model by name, from a file, a folder or a function, and refuses nonsense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from typer.testing import CliRunner, Result

from paretobit.cli.main import app
from paretobit.formats import MXINT8, Integer
from paretobit.models import save, source_of
from paretobit.passes.layers.assignment import apply_assignment
from paretobit.workflow.opening import open_saved

SHORT = ("--repeats", "2", "--seconds", "0", "--warmup", "1", "--batch-size", "4")
PACKED = ("--variant", "packed_mxint8")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["benchmark", *(str(a) for a in arguments)])


def page(*arguments: str | Path) -> dict[str, Any]:
    result = run(*arguments, *SHORT, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "t"
    command = ["train", "jsc-three-linear", "digits", "--max-epochs", "1", "-o", str(folder), "-q"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return folder


def test_a_name_is_enough_and_every_setting_has_every_variant() -> None:
    found = page("jsc-custom", *PACKED, "--batch-size", "2")
    settings = [(t["batch_size"], t["variant"], t["threads"]) for t in found["timings"]]
    assert settings == [(rows, variant, 1) for rows in (2, 4) for variant in ("eager", "packed_mxint8")]
    assert found["model"] == "jsc-custom"
    assert found["machine"]["device"] == "cpu"
    for timing in found["timings"]:
        assert len(timing["samples_seconds"]) == timing["repeats"] == 2
        assert timing["median_seconds"] > 0
        assert timing["rows_per_second"] == pytest.approx(timing["batch_size"] / timing["median_seconds"])
        assert timing["kept_bytes"] > 0


def test_convolutions_run_on_a_shape_and_packing_touches_only_the_last_layer() -> None:
    found = page("resnet20", "--input-shape", "3x32x32", "--classes", "5", *PACKED)
    eager, packed = found["timings"]
    assert packed["note"] == "1 of 1 linear layers packed"
    assert eager["kept_bytes"] - packed["kept_bytes"] == 5 * 64 * 4 - 5 * 2 * 33
    assert eager["peak_bytes"] >= 2 * 4 * 16 * 32 * 32 * 4  # in and out of the first blocks, four rows


def test_a_transformer_by_configuration_has_both_attentions() -> None:
    small = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    values = [f"--set=model.config.{k}={v}" for k, v in {**small, "intermediate_size": 24}.items()]
    both = ("--variant", "fused_attention", "--variant", "plain_attention")
    found = page("hf:bert", "--input-shape", "9", "--classes", "3", *values, *both)
    assert [t["variant"] for t in found["timings"]] == ["eager", "fused_attention", "plain_attention"]
    assert all(t["largest_difference"] < 1e-5 for t in found["timings"])


def test_a_run_folder_a_file_and_a_function_work(trained: Path, tmp_path: Path) -> None:
    weights = trained / "best" / "weights.safetensors"
    file = tmp_path / "b.toml"
    file.write_text(f'[model]\nname = "jsc-three-linear"\nload = "{weights}"\n[data]\nname = "digits"\n')
    differences = [
        [t["largest_difference"] for t in page(*given, *PACKED)["timings"]]
        for given in ([trained], [trained / "best"], [file], ["jsc-three-linear", "digits", "--load", weights])
    ]
    assert differences[0][1] > 0
    assert all(found == differences[0] for found in differences)
    source = tmp_path / "mine.py"
    source.write_text(
        "from torch import nn\n"
        "def make(in_features, num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(in_features, num_classes))\n"
    )
    found = page(f"{source}:make", "--input-shape", "7", "--classes", "3", *PACKED)
    assert found["timings"][0]["kept_bytes"] == 4 * (7 * 3 + 3)


def test_a_model_with_formats_is_run_with_them(trained: Path, tmp_path: Path) -> None:
    model, data = open_saved(trained)
    linears = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    apply_assignment(model, {path: {"data_in": Integer(8, 4), "weight": MXINT8()} for path in linears})
    save(tmp_path / "q", model, source=source_of("jsc-three-linear", data.input_shape, data.num_classes))
    eager, packed = page(tmp_path / "q", *PACKED)["timings"]
    assert packed["note"] == f"{len(linears)} of {len(linears)} linear layers packed"
    assert packed["largest_difference"] == 0  # its weights are MXINT8 either way
    floats = sum(t.nbytes for t in model.state_dict().values())
    weights = sum(model.get_submodule(path).weight.nbytes for path in linears)
    # those in their format, kept for the next pass, and copies that show whether the weights have changed
    assert eager["kept_bytes"] == floats + 2 * weights
    assert packed["kept_bytes"] < floats


def test_the_table_the_file_and_the_picture(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    result = run("jsc-custom", *PACKED, *SHORT, "--out", out)
    assert result.exit_code == 0, result.output
    for text in ("packed_mxint8", "Median (ms)", "Rows/s", "Largest difference", "benchmark.csv"):
        assert text in result.stdout
    assert {file.name for file in out.iterdir()} == {"benchmark.csv", "benchmark.png"}
    assert run("jsc-custom", *PACKED, *SHORT, "--quiet").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("jsc-custm",), "did you mean 'jsc-custom'"),
        ((), "no model to run"),
        (("jsc-custom", "--variant", "compiled"), "did you mean 'compile'"),
        (("jsc-custom", "--variant", "plain_attention"), "no attention"),
        (("jsc-custom", "--threads", "0"), "--threads"),
        (("jsc-custom", "--batch-size", "0"), "--batch-size"),
        (("jsc-custom", "--repeats", "0"), "--repeats"),
        (("jsc-custom", "--device", "abacus"), "device"),
        (("jsc-custom", "--input-shape", "16x"), "--input-shape"),
        (("jsc-custom", "--input-shape", "16", "--classes", "0"), "--classes"),
        (("jsc-custom", "--load", "nowhere.pt"), "nowhere.pt"),
        (("resnet20", "--input-shape", "7"), "resnet20"),
        (("nowhere/to/be/found.toml",), "nowhere"),
    ],
)
def test_bad_input_is_one_clear_error_and_nothing_is_written(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run(*arguments, "--out", out)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not out.exists()


def test_a_saved_model_takes_no_other_weights_or_shape(trained: Path, tmp_path: Path) -> None:
    for more in (("--load", "x.pt"), ("--input-shape", "64")):
        result = run(trained, *more)
        assert (result.exit_code, more[0] in result.output) == (2, True)
    occupied = tmp_path / "file"
    occupied.write_text("kept")
    result = run("jsc-custom", "--out", occupied)
    assert result.exit_code == 2
    assert occupied.read_text() == "kept"
