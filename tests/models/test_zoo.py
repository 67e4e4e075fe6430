"""The models of the field have the field's sizes and names."""

import pytest
import torch
from torch import fx, nn

from paretobit.errors import BadInput
from paretobit.models.zoo import MODELS

PARAMETERS = {"jsc-tiny": 117, "jsc-custom": 1295, "jsc-three-linear": 661, "jsc-hls4ml": 4389}


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_jet_taggers_have_the_published_sizes(name, parameters):
    model = MODELS[name].build((16,), 5)
    assert MODELS[name].layout == "features"
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.randn(7, 16)).shape == (7, 5)


def test_linear_layers_stand_where_the_reports_have_them():
    def places(name):
        model = MODELS[name].build((16,), 5)
        return [int(n.split(".")[1]) for n, m in model.named_modules() if isinstance(m, nn.Linear)]

    assert places("jsc-tiny") == [2]
    assert places("jsc-custom") == [2, 6, 10]
    assert places("jsc-three-linear") == [2, 4, 6]
    assert places("jsc-hls4ml") == [0, 2, 4, 6]


def test_the_reference_tagger_leaves_inputs_and_logits_alone():
    layers = list(MODELS["jsc-hls4ml"].build((16,), 5).seq_blocks)
    assert isinstance(layers[0], nn.Linear)
    assert isinstance(layers[-1], nn.Linear)
    assert not any(isinstance(layer, nn.BatchNorm1d) for layer in layers)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 9, 17)])
def test_the_cnn_takes_images_of_any_size(shape):
    model = MODELS["digits-cnn"].build(shape, 10)
    assert model(torch.randn(2, *shape)).shape == (2, 10)
    assert 5_000 < sum(p.numel() for p in model.parameters()) < 20_000


def test_the_summary_of_the_cnn_states_its_size():
    model = MODELS["digits-cnn"].build((1, 8, 8), 10)
    summary = next(entry.summary for entry in MODELS if entry.name == "digits-cnn")
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in summary


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_traces_and_is_described(name):
    shape = (16,) if MODELS[name].layout == "features" else (1, 8, 8)
    fx.symbolic_trace(MODELS[name].build(shape, 3))
    assert next(entry.summary for entry in MODELS if entry.name == name)


@pytest.mark.parametrize(("name", "shape"), [("jsc-tiny", (1, 4, 4)), ("jsc-hls4ml", ()), ("jsc-tiny", (0,))])
def test_a_vector_model_refuses_other_shapes(name, shape):
    with pytest.raises(BadInput, match=rf"model '{name}'.*input_shape.*flatten"):
        MODELS[name].build(shape, 5)


@pytest.mark.parametrize("shape", [(16,), (1, 7, 8), (0, 8, 8), (8, 8)])
def test_an_image_model_refuses_other_shapes(shape):
    with pytest.raises(BadInput, match=r"'digits-cnn'.*input_shape.*channels, height, width"):
        MODELS["digits-cnn"].build(shape, 10)


def test_a_model_needs_a_class():
    with pytest.raises(BadInput, match="num_classes"):
        MODELS["jsc-tiny"].build((16,), 0)


def test_an_unknown_model_names_its_neighbour():
    with pytest.raises(BadInput, match="did you mean 'jsc-tiny'"):
        MODELS["jsc-tny"]
