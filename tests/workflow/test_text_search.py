"""Text from files to a searched transformer: trained, built and compressed in trials, kept, taken up again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import paretobit as pb
from paretobit.cli.main import app
from paretobit.data import Data, DataSettings, load
from paretobit.data.text import encode
from paretobit.models.saved import read_manifest
from paretobit.nn.quantized import formats_of

GOOD, BAD = ("fine", "warm", "funny", "true", "lovely"), ("dull", "cold", "slow", "flat", "unfunny")
THINGS = ("film", "cast", "story , from its start to its end ,", "music")
BERT = """
[model]
name = "hf:bert"
[model.config]
num_hidden_layers = 1
num_attention_heads = 2
hidden_size = 8
intermediate_size = 8
max_position_embeddings = 24
hidden_dropout_prob = 0.0
attention_probs_dropout_prob = 0.0
[data]
name = "text:films_{split}.tsv"
vocab_size = 70
max_tokens = 24
"""
TRAIN = """
[train]
max_epochs = 12
batch_size = 8
learning_rate = 1e-2
keep = "last"
scheduler = "onecycle"
"""
SEARCH = """
[search]
maximize = "accuracy"
minimize = "bitops"
[search.space]
name = ["architecture", "quantize"]
[search.space.architecture.seed]
num_attention_heads = [2, 3]
hidden_size = [8, 12]
[search.space.quantize]
share = "type"
[search.space.quantize.seed.linear]
name = "scaled_integer"
data_in_width = 8
weight_width = [2, 8]
[search.strategy]
name = "brute_force"
[search.pipeline]
steps = ["build", "train", "quantize", "evaluate", "finetune", "evaluate"]
[search.pipeline.train]
max_epochs = 6
batch_size = 8
learning_rate = 1e-2
[search.pipeline.finetune]
max_epochs = 1
batch_size = 8
learning_rate = 1e-3
"""
NEXT = """
[model]
from_run = "run:best"
[data]
name = "text:films_{split}.tsv"
vocab_size = 70
max_tokens = 24
[search]
maximize = "accuracy"
minimize = "bitops"
[search.space]
share = "type"
[search.space.seed.linear]
weight_width = [2, 8]
weight_frac_width = 4
"""


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def finish(*arguments: str) -> str:
    """What a command that ends well prints."""
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def texts() -> Data:
    """The data of every file here; only in its folder."""
    return load(DataSettings(name="text:films_{split}.tsv", vocab_size=70, max_tokens=24))


def accuracy(model: nn.Module, split: str) -> float:
    rows = texts().split(split)
    with torch.no_grad():
        return float((model(rows.x).argmax(1) == rows.y).double().mean())


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sentences, a training and a search, both finished."""
    place = tmp_path_factory.mktemp("text")
    rows = [
        f"{label}\tthe {thing} was {'very ' * (at % 3)}{word}"
        for label, words in enumerate((BAD, GOOD))
        for at, word in enumerate(words)
        for thing in THINGS
    ]
    for part, times in (("train", 2), ("dev", 1), ("test", 1)):
        (place / f"films_{part}.tsv").write_text("\n".join(["label\ttext", *(rows * times)]) + "\n")
    for name, text in (("train", BERT + TRAIN), ("search", BERT + SEARCH), ("next", NEXT)):
        (place / f"{name}.toml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        finish("train", "-q", "-c", "train.toml", "-o", "trained")
        finish("search", "-q", "-c", "search.toml", "-o", "run")
    return place


@pytest.fixture
def here(searched: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(searched)
    return searched


def test_a_trained_classifier_tells_sentences_that_it_is_given(here: Path) -> None:
    model = pb.load("trained")
    preprocessing = read_manifest(here / "trained")["preprocessing"]
    given = ["The film was FINE", "the story , from its start to its end , was dull"]
    with torch.no_grad():
        assert model(encode(preprocessing, given)).argmax(1).tolist() == [1, 0]
    assert accuracy(model, "test") == 1.0


def test_every_possible_architecture_is_trained_with_every_format(here: Path) -> None:
    study = pb.Study.open("run")
    assert study.counts()["complete"] == 6
    chosen = {(t.config["num_attention_heads"], t.config["hidden_size"]) for t in study}
    assert chosen == {(2, 8), (2, 12), (3, 12)}
    assert {t.config["linear.weight_width"] for t in study} == {2, 8}
    for trial in study:
        assert trial.metrics["epochs"] == 7
        assert "accuracy_after_quantize" in trial.metrics


def test_the_winner_and_the_front_load_with_the_accuracy_that_was_recorded(here: Path) -> None:
    study = pb.Study.open("run")
    winner = pb.load("run")
    assert accuracy(winner, "val") == pytest.approx(study.best().metrics["accuracy"], abs=1e-12)
    assert winner.config.hidden_size == study.best().config["hidden_size"]
    assert {f.name for slots in formats_of(winner).values() for f in slots.values()} >= {"scaled_integer"}
    for trial in study.front():
        kept = pb.load(here / "run/trials" / str(trial.number))
        assert accuracy(kept, "val") == pytest.approx(trial.metrics["accuracy"], abs=1e-12)


def test_the_test_split_judges_the_weights_that_were_trained(here: Path) -> None:
    study = pb.Study.open("run")
    judged = study.facts["test"]
    assert set(judged) == {"baseline", *(str(t.number) for t in study.front())}
    for trial in study.front():
        kept = pb.load(here / "run/trials" / str(trial.number))
        assert accuracy(kept, "test") == pytest.approx(judged[str(trial.number)]["accuracy"], abs=1e-12)


def test_another_search_goes_on_from_the_winner(here: Path) -> None:
    finish("search", "-q", "-c", "next.toml", "-o", "second")
    study, plain = pb.Study.open("second"), pb.load("run", formats=False)
    assert study.baseline["accuracy"] == pytest.approx(accuracy(plain, "val"), abs=1e-12)
    winner = pb.load("second")
    assert winner.config.hidden_size == plain.config.hidden_size
    kept = dict(plain.named_parameters())
    assert all(torch.equal(kept[name], weight) for name, weight in winner.named_parameters())
    assert accuracy(winner, "val") == pytest.approx(study.best().metrics["accuracy"], abs=1e-12)


def test_another_search_goes_on_from_a_training(here: Path) -> None:
    finish("search", "-q", "-c", "next.toml", "-o", "third", "--set", "model.from_run='trained:best'")
    study = pb.Study.open("third")
    assert study.baseline["accuracy"] == pytest.approx(accuracy(pb.load("trained"), "val"), abs=1e-12)


def test_the_plan_counts_the_impossible_combinations(here: Path) -> None:
    said = finish("plan", "-c", "search.toml")
    assert "6 configurations" in said
    assert "1 of 4 combinations are impossible" in said
    assert "the hidden size 8 is not a multiple of the 3 heads" in said


def test_a_key_that_bert_does_not_know_is_an_error_that_names_the_right_one(here: Path) -> None:
    seed = "search.space.architecture.seed={num_layers=[1, 2]}"
    result = call("search", "-q", "-c", "search.toml", "-o", "none", "--set", seed)
    assert result.exit_code == 2
    assert "num_layers" in result.output
    assert "did you mean 'num_hidden_layers'" in " ".join(result.output.split())
    assert not (here / "none/study.db").exists()
