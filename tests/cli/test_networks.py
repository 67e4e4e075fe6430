"""Networks of others, by the command line alone: transformers from a table, a published checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import ok

import paretobit as pb

EXAMPLES = Path(__file__).parents[2] / "examples"
VIT = """
[model]
name = "hf:vit"
[model.config]
patch_size = 2
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 32
[data]
name = "digits"
[train]
max_epochs = 2
batch_size = 64
learning_rate = 3e-3
[search]
maximize = "accuracy"
minimize = "model_size"
n_trials = 3
[search.space.seed.linear]
weight = ["scaled_integer(width=8, per=channel)", "scaled_integer(width=4, per=channel)"]
[search.runners.basic_evaluation]
[search.runners.model_size]
[passes.quantize]
by = "type"
[passes.quantize.linear]
weight = "scaled_integer(width=4, per=channel)"
"""
TINY = ("hidden_size=16", "num_hidden_layers=1", "num_attention_heads=2", "vocab_size=30")


def accuracy(*arguments: str | Path) -> float:
    return float(json.loads(ok("test", *arguments, "--json"))["accuracy"])


def test_a_vit_is_trained_tested_searched_transformed_and_inspected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("vit.toml").write_text(VIT)
    trained = json.loads(ok("train", "-c", "vit.toml", "-o", "t", "--json"))
    results = {row["split"]: row["accuracy"] for row in trained["splits"]}
    assert accuracy("t") == results["test"]
    assert accuracy("-c", "vit.toml", "--set", "model.load=t") == results["test"]
    ok("search", "-c", "vit.toml", "--load", "t", "-o", "s", "-q")
    assert pb.load("s").config.patch_size == 2
    ok("transform", "-c", "vit.toml", "--load", "t", "-o", "q", "-q")
    assert 0 <= accuracy("q") <= 1
    linear = next(name for name, layer in pb.load("t").named_modules() if isinstance(layer, torch.nn.Linear))
    assert linear.startswith("vit.")  # of the first attention, whatever this release of transformers calls it
    assert linear.replace(".", "_") in ok("inspect", "t", "--json")
    assert linear.replace(".", "_") in ok("show", "s", "--layers", "--json")


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_token_ids_are_classified_by_a_transformer(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).integers(1, 30, (80, 6))
    np.savez("tokens.npz", X=x, y=(x > 20).any(1).astype(int))
    table = [part for value in TINY for part in ("--set", f"model.config.{value}")]
    ok("train", f"hf:{kind}", "npz:tokens.npz", *table, "--max-epochs", "1", "-o", "t", "-q")
    assert 0 <= accuracy("t") <= 1
    assert "embedding" in ok("inspect", "t", "--json")


@pytest.mark.slow
def test_published_checkpoints_reach_their_accuracy_by_an_example_alone(real_data: Path) -> None:
    example = EXAMPLES / "resnet20_weights.toml"
    assert accuracy("-c", example) == pytest.approx(0.9164, abs=1.1 / 1017)
    checkpoint = real_data / "resnet56-4bfd9763_cifar10.th"
    assert accuracy("resnet56", "-c", example, "--load", checkpoint) == pytest.approx(0.9272, abs=1.1 / 1017)
