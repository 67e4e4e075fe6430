"""Transformers are built from a configuration, give logits, and come back from disk and other processes."""

import copy
import json
import pickle
import sys

import pytest
import torch
import transformers

from paretobit.data import DataSettings
from paretobit.data import load as load_data
from paretobit.errors import BadInput, MissingExtra
from paretobit.formats import ScaledInteger
from paretobit.models import ModelSettings, build, input_dtype, layout, load, load_state, read_state, save, source_of
from paretobit.passes.layers.assignment import apply_assignment
from paretobit.training import TrainSettings, evaluate, fit

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
BERT = {**SMALL, "intermediate_size": 48, "vocab_size": 60}
VIT = {**SMALL, "intermediate_size": 48, "patch_size": 4}
GPT2 = {**SMALL, "vocab_size": 60}
KINDS = {
    "bert": ("hf:bert", (9,), BERT, "classifier", transformers.BertForSequenceClassification),
    "bert language": ("hf:bert", (9,), BERT, "language", transformers.BertForMaskedLM),
    "vit": ("hf:vit", (3, 8, 8), VIT, "classifier", transformers.ViTForImageClassification),
    "gpt2": ("hf:gpt2", (9,), GPT2, "classifier", transformers.GPT2ForSequenceClassification),
    "gpt2 language": ("hf:gpt2", (9,), GPT2, "language", transformers.GPT2LMHeadModel),
}
CLASSES = 5


def made(kind, seed=0):
    name, shape, config, head, _ = KINDS[kind]
    return build(name, shape, CLASSES, seed, config=config, head=head).eval()


def batch(kind, rows=3):
    shape = KINDS[kind][1]
    return torch.randn(rows, *shape) if len(shape) == 3 else torch.randint(1, 60, (rows, *shape))


def equal(left, right):
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_logits_are_those_of_the_class_of_transformers(kind):
    model, x, own = made(kind), batch(kind), KINDS[kind][4]
    assert isinstance(model, own)
    reference = own(model.config).eval()
    reference.load_state_dict(model.state_dict())  # the names of the weights are those of transformers
    assert torch.equal(model(x), reference(x).logits)
    expected = (3, 9, 60) if "language" in kind else (3, CLASSES)
    assert model(x).shape == expected
    assert input_dtype(model) == x.dtype


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_the_weights(kind):
    assert equal(made(kind), made(kind))
    assert not equal(made(kind), made(kind, seed=1))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_copies_and_pickles_are_of_the_same_class(kind):
    model, x = made(kind), batch(kind)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(again) is type(model)
        assert torch.equal(again(x), model(x))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_saved_model_is_loaded_bit_for_bit(kind, tmp_path):
    name, shape, config, head, _ = KINDS[kind]
    model = made(kind, seed=7)
    layer = next(p for p, m in model.named_modules() if type(m) is torch.nn.Linear)
    apply_assignment(model, {layer: {"weight": ScaledInteger(5, per="channel")}})
    save(tmp_path, model, source=source_of(name, shape, CLASSES, config=config, head=head))
    loaded = load(tmp_path)
    assert equal(loaded, model)
    x = batch(kind)
    assert torch.equal(loaded(x), model(x))


def test_a_configuration_file_is_no_longer_needed_once_the_model_is_saved(tmp_path):
    page = {"model_type": "vit", "architectures": ["ViTModel"], "id2label": {"0": "cat"}, **VIT, "patch_size": 2}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(page))
    for name in (f"hf:{path}", f"hf:{tmp_path}"):
        model = build(name, (1, 8, 8), CLASSES, config={"patch_size": 4, "attn_implementation": "eager"})
        assert model.vit.embeddings.patch_embeddings.projection.weight.shape == (32, 1, 4, 4)
        assert model.classifier.out_features == CLASSES
    overlaid = {"patch_size": 4, "attn_implementation": "eager"}
    save(tmp_path / "best", model, source=source_of(name, (1, 8, 8), CLASSES, config=overlaid))
    path.unlink()
    loaded = load(tmp_path / "best")
    assert equal(loaded, model)
    assert loaded.config._attn_implementation == "eager"


@torch.no_grad()
def test_a_folder_that_transformers_saved_is_configuration_and_checkpoint(tmp_path):
    own = transformers.BertForSequenceClassification(transformers.BertConfig(**BERT, num_labels=CLASSES))
    own.save_pretrained(tmp_path)
    model = build(f"hf:{tmp_path}", (9,), CLASSES).eval()
    load_state(model, read_state(tmp_path), tmp_path)
    x = batch("bert")
    assert equal(model, own)
    assert torch.equal(model(x), own.eval()(x).logits)


def test_images_of_any_shape_are_taken_as_the_data_has_them():
    model = build("hf:vit", (2, 8, 12), CLASSES, config=VIT)
    assert model(torch.randn(2, 2, 8, 12)).shape == (2, CLASSES)
    assert model.config.image_size == [8, 12]


@torch.no_grad()
def test_gpt2_classifies_by_the_last_token_whatever_it_is():
    model, x = made("gpt2"), batch("gpt2")
    for last in (0, 58, 59):
        x[:, -1] = last
        hidden = model.transformer(x)[0][:, -1]
        torch.testing.assert_close(model(x), model.score(hidden))


def test_a_small_vit_learns_the_digits(tmp_path):
    data = load_data(DataSettings(name="digits"))
    config = {**VIT, "patch_size": 2, "num_hidden_layers": 1}
    model = build("hf:vit", data.input_shape, data.num_classes, config=config)
    settings = TrainSettings(max_epochs=6, batch_size=32, learning_rate=3e-3)
    fit(model, (data.train.x, data.train.y), (data.val.x, data.val.y), settings, folder=tmp_path)
    assert evaluate(model, data.test.x, data.test.y, 512).accuracy > 0.6


@pytest.mark.parametrize(
    ("name", "shape", "config", "message"),
    [
        ("hf:bret", (9,), {}, r"unknown type.*model\.name.*found 'bret'.*did you mean 'bert'"),
        ("hf:gone/config.json", (9,), {}, r"no such configuration.*gone"),
        ("hf:bert", (9,), {"hiden_size": 3}, r"no such key.*model\.config.*did you mean 'hidden_size'"),
        ("hf:bert", (9,), {"num_labels": 3}, r"not set here.*found 'num_labels'"),
        ("hf:bert", (9,), {"hidden_size": "x"}, r"cannot build 'bert' so.*hidden_size"),
        ("hf:bert", (9,), {"hidden_size": 30, "num_attention_heads": 4}, r"cannot build 'bert' so.*30"),
        ("hf:bert", (9,), {**BERT, "max_position_embeddings": 8}, r"longer than the model.*allowed: 9 or more"),
        ("hf:bert", (3, 8, 8), BERT, r"no classifier head for samples of this shape.*\(3, 8, 8\)"),
        ("hf:vit", (9,), VIT, r"no classifier head for samples of this shape"),
        ("hf:vit", (3, 8), VIT, r"does not take this shape.*channels, height, width"),
        ("hf:vit", (3, 10, 8), VIT, r"patches do not fill the image.*found 4.*divides 8 and 10"),
        ("hf:vit", (3, 8, 8), {**VIT, "num_channels": 1}, r"model\.config\.num_channels.*found 1; allowed: 3"),
        ("hf:vit", (3, 8, 8), {**VIT, "image_size": 224}, r"model\.config\.image_size.*found 224; allowed: 8"),
        ("jsc-tiny", (16,), {"width": 3}, r"does not heed.*model\.config"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_by_key(name, shape, config, message):
    with pytest.raises(BadInput, match=message):
        build(name, shape, CLASSES, config=config)


def test_a_head_that_a_model_lacks_is_refused():
    with pytest.raises(BadInput, match="'vit' has no language head"):
        build("hf:vit", (3, 8, 8), CLASSES, config=VIT, head="language")
    with pytest.raises(BadInput, match=r"does not heed.*model\.head"):
        build("jsc-tiny", (16,), CLASSES, head="language")


@pytest.mark.parametrize("text", ["[]", "{}", "{", "null"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(BadInput, match=r"not a configuration.*c\.json"):
        build(f"hf:{tmp_path / 'c.json'}", (9,), CLASSES)


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'paretobit\[huggingface\]'"):
        build("hf:bert", (9,), CLASSES)


def test_settings_fill_in_the_environment(monkeypatch):
    monkeypatch.setenv("MODELS_HERE", "/somewhere")
    settings = ModelSettings(name="hf:$MODELS_HERE/config.json", load="$MODELS_HERE/w.safetensors")
    assert (settings.name, settings.load) == ("hf:/somewhere/config.json", "/somewhere/w.safetensors")
    assert layout(settings.name) is None
    assert (settings.config, settings.head) == ({}, "classifier")
