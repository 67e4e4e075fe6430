"""Weights of a folder that transformers saved, or of the hub, are what a model starts from."""

import logging

import pytest
import torch
import transformers

from paretobit.errors import BadInput, CheckpointMismatch
from paretobit.models import build, load, save, source_of

CONFIG = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 60,
}
TOKENS = {"vocab_size": 60, "pad": 0}
X = torch.tensor([[2, 5, 9, 3, 0, 0], [2, 7, 3, 0, 0, 0]])


def saved(folder, kind=transformers.BertForSequenceClassification, labels=3, pickled=False):
    torch.manual_seed(4)
    config = transformers.BertConfig(**CONFIG, num_labels=labels)
    model = kind(config).eval()
    model.save_pretrained(folder)
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return model


def same(left, right, prefix=""):
    left, right = ({k: v for k, v in m.state_dict().items() if k.startswith(prefix)} for m in (left, right))
    assert left
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("pickled", [False, True])
@torch.no_grad()
def test_a_folder_with_weights_gives_the_model_that_was_saved(tmp_path, pickled, caplog):
    own = saved(tmp_path, pickled=pickled)
    model = build(f"hf:{tmp_path}", (6,), 3, tokens=TOKENS)
    assert model.training
    assert same(model, own)
    expected = own(X, attention_mask=(X != 0).long()).logits
    torch.testing.assert_close(model.eval()(X), expected, rtol=0, atol=1e-6)
    assert not [record for record in caplog.records if record.name.startswith("paretobit")]


def test_the_file_of_the_configuration_means_the_configuration_alone(tmp_path):
    own = saved(tmp_path)
    model = build(f"hf:{tmp_path / 'config.json'}", (6,), 3)
    assert not same(model, own)
    assert model.config.hidden_size == 32


def test_a_head_for_other_classes_is_fresh_by_the_seed_and_said_so(tmp_path, caplog):
    own = saved(tmp_path)
    with caplog.at_level(logging.WARNING, "paretobit"):
        models = [build(f"hf:{tmp_path}", (6,), 5, seed, tokens=TOKENS) for seed in (0, 0, 1)]
    assert all(same(model, own, "bert.") for model in models)
    assert models[0].classifier.weight.shape == (5, 32)
    assert same(models[0], models[1], "classifier")
    assert not same(models[0], models[2], "classifier")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("paretobit")]
    assert len(said) == 3
    assert "these weights are fresh, not from there: classifier.bias, classifier.weight" in said[0]


@pytest.mark.parametrize("kind", [transformers.BertModel, transformers.BertForMaskedLM])
def test_weights_of_another_head_give_the_body(tmp_path, kind, caplog):
    own = saved(tmp_path, kind)
    with caplog.at_level(logging.WARNING, "paretobit"):
        model = build(f"hf:{tmp_path}", (6,), 2)
    body = own if kind is transformers.BertModel else own.bert
    assert same(model.bert.encoder, body.encoder)
    assert same(model.bert.embeddings, body.embeddings)
    assert ("pooler" in caplog.text) == (kind is transformers.BertForMaskedLM)  # it has no pooler to give


@torch.no_grad()
def test_what_was_built_from_weights_is_saved_without_their_folder(tmp_path):
    saved(tmp_path / "base")
    name = f"hf:{tmp_path / 'base'}"
    model = build(name, (6,), 3, tokens=TOKENS).eval()
    source = source_of(name, (6,), 3, tokens=TOKENS)
    assert source["name"] == "hf:bert"
    save(tmp_path / "best", model, source=source)
    (tmp_path / "base" / "model.safetensors").unlink()
    assert torch.equal(load(tmp_path / "best")(X), model(X))


def test_values_that_change_shapes_do_not_fit_weights(tmp_path):
    saved(tmp_path)
    for config, name in (({"intermediate_size": 40}, "intermediate"), ({"num_hidden_layers": 3}, r"layer\.2")):
        with pytest.raises(CheckpointMismatch, match=rf"do not fit.*{name}.*config\.json starts from fresh"):
            build(f"hf:{tmp_path}", (6,), 3, config=config)


def test_pickles_that_would_run_code_are_refused(tmp_path):
    saved(tmp_path, pickled=True)
    torch.save({"bert.pooler.dense.bias": print}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"cannot be loaded.*model\.name"):
        build(f"hf:{tmp_path}", (6,), 3)


def test_a_tokenizer_with_more_ids_than_the_weights_is_refused(tmp_path):
    saved(tmp_path)
    with pytest.raises(BadInput, match=r"more ids than the model.*found 60; allowed: 70 or more"):
        build(f"hf:{tmp_path}", (6,), 3, tokens={"vocab_size": 70, "pad": 0})


@pytest.mark.parametrize("name", ["deberta-v4", "someone/no-such-model"])
def test_a_name_that_the_hub_does_not_give_is_refused(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match=rf"neither a type of transformer nor.*model\.name.*'{name}'"):
        build(f"hf:{name}", (6,), 3)


@torch.no_grad()
def test_a_name_of_the_hub_is_what_its_folder_is(tmp_path, monkeypatch):
    own, asked = saved(tmp_path), []

    def configuration(name):
        asked.append(name)
        return transformers.BertConfig(**CONFIG).to_dict() | {"_commit_hash": "0"}, {}

    through = transformers.PreTrainedModel.from_pretrained.__func__

    def weights(cls, name, **arguments):
        asked.append(name)
        return through(cls, str(tmp_path), **arguments)

    monkeypatch.setattr(transformers.PreTrainedConfig, "get_config_dict", staticmethod(configuration))
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", classmethod(weights))
    model = build("hf:bert-small-of-tests", (6,), 3)
    assert set(asked) == {"bert-small-of-tests"}
    assert same(model, own)
