"""Layers whose inputs are not one tensor of numbers: embeddings, and the product of two inputs; and GPT-2's."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from paretobit.formats import FULL, Integer, ScaledInteger
from paretobit.nn import TensorCache, dot_product, dot_terms, instrument, slots_of, weight_rows

DATA, WEIGHT, BIAS, WIDE = Integer(8, 5), Integer(6, 4), Integer(5, 3), Integer(28, 20)
INDICES = torch.tensor([[1, 4, 0], [2, 2, 6]])
TABLES = {
    "plain": lambda: nn.Embedding(7, 5),
    "padded": lambda: nn.Embedding(7, 5, padding_idx=2),
    "by frequency": lambda: nn.Embedding(7, 5, scale_grad_by_freq=True),
    "bag": lambda: nn.EmbeddingBag(7, 5, mode="mean"),
    "bag of largest": lambda: nn.EmbeddingBag(7, 5, mode="max", padding_idx=4),
}
every_table = pytest.mark.parametrize("build", TABLES.values(), ids=TABLES)


def quantized_like(layer, **formats):
    twin = instrument(copy.deepcopy(layer), TensorCache())
    twin.set_slots(formats)
    return twin


def with_parameters(layer, **formats):
    """The torch layer with parameters that were quantised by hand."""
    reference = copy.deepcopy(layer)
    with torch.no_grad():
        for name, number_format in formats.items():
            getattr(reference, name).copy_(number_format.quantize(getattr(layer, name)))
    return reference


@every_table
@pytest.mark.parametrize("training", [False, True])
def test_a_table_at_full_precision_is_torchs_to_the_bit(build, training):
    layer = build().train(training)
    twin = quantized_like(layer)
    assert torch.equal(twin(INDICES), layer(INDICES))
    for module in (layer, twin):
        module(INDICES).square().sum().backward()
    assert torch.equal(twin.weight.grad, layer.weight.grad)


@every_table
def test_a_quantised_table_is_read_as_torch_reads_it(build):
    layer = build()
    twin = quantized_like(layer, weight=WEIGHT)
    expected = with_parameters(layer, weight=WEIGHT)(INDICES)
    with torch.no_grad():
        assert torch.equal(twin(INDICES), expected)
        wide = quantized_like(layer, weight=WIDE)(INDICES)
    assert (wide - layer(INDICES)).abs().max() <= 1e-4 * layer(INDICES).abs().max()
    twin(INDICES).sum().backward()
    assert twin.weight.grad.isfinite().all()
    assert slots_of(layer) == slots_of(twin) == ("weight",)


def test_rows_that_stand_for_padding_get_no_gradient():
    twin = quantized_like(nn.Embedding(7, 5, padding_idx=2), weight=WEIGHT)
    twin(INDICES).sum().backward()
    assert twin.weight.grad[2].abs().max() == 0
    assert (twin.weight.grad[[0, 1, 4, 6]] == 1).all()


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_rows_that_are_read_are_cut_to_the_largest_norm_before_they_are_quantised(kind):
    layer = kind(7, 5, max_norm=1.0)
    nn.init.normal_(layer.weight, std=3)
    twin = quantized_like(layer, weight=WEIGHT)
    before = layer.weight.detach().clone()
    layer(INDICES)  # torch cuts in place
    output = twin(INDICES)
    assert torch.equal(twin.weight, layer.weight)
    assert not torch.equal(twin.weight, before)
    layer.max_norm = None
    assert torch.equal(output, with_parameters(layer, weight=WEIGHT)(INDICES))


def test_bags_take_offsets_and_weights_of_their_own():
    layer = nn.EmbeddingBag(7, 5, mode="sum", include_last_offset=True)
    twin = quantized_like(layer, weight=WEIGHT)
    given = (torch.tensor([1, 2, 4, 5]), torch.tensor([0, 2, 4]), torch.rand(4))
    assert torch.equal(twin(*given), with_parameters(layer, weight=WEIGHT)(*given))


@pytest.mark.parametrize("bias", [True, False])
def test_the_product_of_two_inputs_takes_both_as_data(bias):
    layer = nn.Bilinear(3, 4, 5, bias=bias)
    left, right = torch.randn(6, 3), torch.randn(6, 4)
    formats = {"data_in": DATA, "weight": WEIGHT} | ({"bias": BIAS} if bias else {})
    twin = quantized_like(layer, **formats)
    fixed = with_parameters(layer, **{slot: f for slot, f in formats.items() if slot != "data_in"})
    assert torch.equal(twin(left, right), fixed(DATA.quantize(left), DATA.quantize(right)))
    twin.set_slots({})
    assert torch.equal(twin(left, right), layer(left, right))


def conv1d():
    layer = Conv1D(6, 4)
    nn.init.normal_(layer.bias)
    return layer


def test_the_linear_layer_of_gpt2_is_linear_with_its_weight_transposed():
    layer, x = conv1d(), torch.randn(2, 3, 4)
    twin = quantized_like(layer, data_in=DATA, weight=WEIGHT, bias=BIAS)
    expected = F.linear(DATA.quantize(x), WEIGHT.quantize(layer.weight).t(), BIAS.quantize(layer.bias))
    assert torch.allclose(twin(x), expected, atol=1e-6)
    assert repr(twin) == "Conv1DInteger(nf=6, nx=4)"
    assert isinstance(twin, Conv1D)
    assert (dot_terms(layer), dot_terms(twin), slots_of(layer)) == (4, 4, ("data_in", "weight", "bias"))
    assert torch.equal(weight_rows(layer, layer.weight), layer.weight.t())
    assert torch.allclose(dot_product(twin, x, layer.weight, layer.bias), layer(x))
    twin.set_slots({})
    assert torch.equal(twin(x), layer(x))
    assert list(twin.state_dict()) == list(layer.state_dict())


def test_it_scales_its_weights_by_output_as_a_linear_layer_does():
    layer = conv1d()
    linear = nn.Linear(4, 6)
    with torch.no_grad():
        linear.weight.copy_(layer.weight.t())
    per_channel = ScaledInteger(4, per="channel")
    used = [quantized_like(module, weight=per_channel).parameter("weight") for module in (layer, linear)]
    assert torch.equal(used[0].t(), used[1])


def test_it_arrives_in_another_process():
    twin = quantized_like(conv1d(), weight=WEIGHT)
    x = torch.randn(2, 4)
    code = (
        "import pickle, sys, torch\n"
        "layer, x = pickle.load(sys.stdin.buffer)\n"
        "pickle.dump((repr(layer), layer(x).tolist()), sys.stdout.buffer)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps((twin, x)), capture_output=True, check=True
    )
    assert pickle.loads(result.stdout) == (repr(twin), twin(x).tolist())
    assert copy.deepcopy(twin).slots["data_in"] is FULL


def test_no_layer_of_another_library_is_imported_to_know_it():
    code = "import sys, paretobit.nn\nprint('transformers' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
