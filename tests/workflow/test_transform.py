"""`paretobit transform`: passes in their order, calibration data where they take them, a result that loads."""

import json

import pytest
from typer.testing import CliRunner

import paretobit as pb
from paretobit.cli.main import app
from paretobit.formats import ScaledInteger
from paretobit.nn import Quantized

PASSES = """
seed = 0
model = "digits-cnn"
data = "digits"

[passes.channel_multiplier]
by = "group"
inherit = "l1"
default = 0.5

[passes.fold_batch_norm]

[passes.prune]
sparsity = 0.25
method = "activation-aware"

[passes.quantize.conv2d]
data_in = "scaled_integer(width=8)"
weight = "scaled_integer(width=6, per=channel)"

[passes.calibrate]
"""


def run(tmp_path, text, *more):
    (tmp_path / "passes.toml").write_text(text)
    arguments = ["transform", "--config", str(tmp_path / "passes.toml"), "--out", str(tmp_path / "out"), *more]
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.fixture
def transformed(tmp_path):
    result = run(tmp_path, PASSES, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), tmp_path / "out"


def test_every_pass_runs_in_its_order_and_tells_what_it_did(transformed):
    told, _ = transformed
    assert list(told["passes"]) == ["channel_multiplier", "fold_batch_norm", "prune", "quantize", "calibrate"]
    before, after = told["sides"]
    assert after["total_flops"] < before["total_flops"] / 2
    assert after["total_bitops"] < after["total_flops"] / 2 * 32 * 32
    assert told["passes"]["calibrate"]["assignment"]


def test_what_is_saved_loads_and_computes_what_was_measured(transformed):
    told, folder = transformed
    model = pb.load(folder)
    result = CliRunner().invoke(app, ["test", str(folder), "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["accuracy"] == told["sides"][1]["test accuracy"]
    layers = [m for m in model.modules() if isinstance(m, Quantized)]
    assert layers
    formats = [layer.slots["data_in"] for layer in layers]
    assert all(isinstance(f, ScaledInteger) and f.scale is not None for f in formats)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[passes.calibrate]\nrows = 3\n", ("passes.calibrate.rows", "allowed: nothing")),
        ("[passes.prune]\nsparsity = 1.5\n", ("passes.prune.sparsity", "1.5")),
        (
            "[passes.prune]\nsparsity = 0.5\n[passes.channel_multiplier]\nby = 'group'\ndefault = 0.5\n",
            ("passes.channel_multiplier", "channel_multiplier before prune"),
        ),
        ("[passes.recalibrate]\n", ("unknown pass", "recalibrate_batch_norm")),
    ],
)
def test_a_pass_that_cannot_be_is_refused_and_nothing_is_written(tmp_path, text, words):
    result = run(tmp_path, 'model = "digits-cnn"\ndata = "digits"\n' + text)
    assert result.exit_code == 2
    assert all(word in " ".join(result.stderr.split()) for word in words), result.stderr
    assert not (tmp_path / "out").exists()
