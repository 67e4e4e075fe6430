"""Trials whose networks differ: architectures with formats, masks and training of their own."""

import pytest
import torch

import paretobit as pb
from paretobit.models import build
from paretobit.nn.masks import masks_of
from paretobit.nn.quantized import formats_of

SECOND = "bert_encoder_layer_1_attention_self_query"
TINY = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One or two layers of two sizes, formats for the second layer alone, sparsity anywhere, two rates."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 60, (300, 10), generator=generator)
    y = (ids[:, 0] > 30).long()
    model = build("hf:bert", (10,), 2, config=TINY)
    space = (
        pb.Architecture(seed={"num_hidden_layers": [1, 2], "hidden_size": [16, 24], "num_attention_heads": [2, 3]})
        * pb.Quantize(by="name", seed={SECOND: {"name": "scaled_integer", "weight_width": [4, 8]}})
        * pb.Prune(share="type", seed={"default": {"sparsity": [0.0, 0.5]}})
        * pb.Training(seed={"learning_rate": [1e-3, 1e-2]})
    )
    return pb.search(
        model,
        space=space,
        maximize="accuracy",
        minimize="model_size",
        strategy="tpe",
        n_trials=12,
        seed=1,
        pipeline={"train": {"max_epochs": 1, "batch_size": 32}, "weights": "scratch"},
        train=(ids[:200], y[:200]),
        val=(ids[200:250], y[200:250]),
        test=(ids[250:], y[250:]),
        out=tmp_path_factory.mktemp("networks") / "run",
    )


def test_every_trial_is_measured(study):
    assert study.counts()["complete"] + study.counts()["duplicate"] == 12
    assert {trial.config["num_hidden_layers"] for trial in study} == {1, 2}


def test_impossible_networks_are_not_tried(study):
    assert all(t.config["hidden_size"] % t.config["num_attention_heads"] == 0 for t in study)


def test_formats_go_where_the_layer_is(study):
    for trial in study.front():
        model = trial.model()
        deep = trial.config["num_hidden_layers"] == 2
        assert len(model.bert.encoder.layer) == trial.config["num_hidden_layers"]
        assert (f"{SECOND}.weight_width" in trial.config) is deep
        used = {path for path, slots in formats_of(model).items() if "weight" in slots}
        assert any("layer.1.attention.self.query" in path for path in used) is deep


def test_masks_have_the_sparsity_that_was_chosen(study):
    for trial in study.front():
        chosen = trial.config["default.sparsity"]
        for masks in masks_of(trial.model()).values():
            assert 1 - masks["weight"].float().mean() == pytest.approx(chosen, abs=0.02)


def test_kept_models_load_with_the_architecture_they_have(study):
    generator = torch.Generator().manual_seed(9)
    ids = torch.randint(5, 60, (20, 10), generator=generator)
    folder = study.path.parent
    for trial in study.front():
        own = trial.model()
        loaded = pb.load(folder / "trials" / str(trial.number), model=own)
        with torch.no_grad():
            assert torch.equal(own(ids), loaded(ids))
