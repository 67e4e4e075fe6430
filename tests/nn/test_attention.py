"""Multi-head attention of torch: wide formats change nothing, narrow ones everything that is multiplied."""

import copy
import pickle

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.formats import FULL, Integer
from paretobit.nn import TensorCache, instrument, slots_of
from paretobit.passes.analysis import cost
from paretobit.passes.transform import QuantizeSettings, quantize

WIDE = dict.fromkeys(("data_in", "weight", "bias"), Integer(28, 20))


def quantised(module, slots):
    layer = instrument(copy.deepcopy(module), TensorCache())
    layer.set_slots({slot: f for slot, f in slots.items() if slot in layer.available_slots()})
    return layer


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"add_bias_kv": True},
        {"add_zero_attn": True},
        {"kdim": 6, "vdim": 10},
        {"kdim": 6, "vdim": 10, "add_bias_kv": True, "add_zero_attn": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("masked", ["nothing", "padding", "causal", "per head", "both", "added"])
def test_wide_formats_give_what_torch_gives(batch_first, options, masked):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, batch_first=batch_first, **options).eval()
    queries, keys, rows = 5, 5 if masked in ("causal", "both") else 4, 3
    query = torch.randn(rows, queries, 8)
    key, value = torch.randn(rows, keys, module.kdim), torch.randn(rows, keys, module.vdim)
    if not batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    padding = torch.zeros(rows, keys, dtype=torch.bool)
    padding[:, -1] = True
    causal = torch.ones(queries, keys, dtype=torch.bool).triu(1)
    given = {
        "nothing": {},
        "padding": {"key_padding_mask": padding},
        "causal": {"attn_mask": causal},
        "per head": {"attn_mask": torch.randn(rows * 2, queries, keys)},
        "both": {"attn_mask": causal, "key_padding_mask": padding},
        "added": {"attn_mask": torch.randn(queries, keys)},
    }[masked]
    layer = quantised(module, WIDE)
    for average in (True, False):
        expected = module(query, key, value, average_attn_weights=average, **given)
        found = layer(query, key, value, average_attn_weights=average, **given)
        for theirs, ours in zip(expected, found, strict=True):
            assert ours.shape == theirs.shape
            assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()
    assert layer(query, key, value, need_weights=False, **given)[1] is None


def test_a_single_sample_has_no_rows():
    module = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(5, 8)
    for theirs, ours in zip(module(x, x, x), quantised(module, WIDE)(x, x, x), strict=True):
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_full_precision_is_torchs_own_and_weights_are_on_the_grid():
    module = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(3, 5, 8)
    assert torch.equal(quantised(module, {})(x, x, x)[0], module(x, x, x)[0])
    narrow = Integer(4, 3)
    layer, rounded = quantised(module, {"weight": narrow}), copy.deepcopy(module)
    with torch.no_grad():
        for name, parameter in rounded.named_parameters():
            if name.endswith("weight"):
                parameter.copy_(narrow.quantize(parameter))
    assert torch.allclose(layer(x, x, x)[0], rounded(x, x, x)[0], atol=1e-5)
    assert set(slots_of(module)) == {"data_in", "weight", "bias"}
    assert slots_of(nn.MultiheadAttention(8, 2, bias=False)) == ("data_in", "weight")


@pytest.mark.parametrize("slot", ["data_in", "weight", "bias"])
def test_it_trains_through_narrow_formats(slot):
    torch.manual_seed(0)
    layer = quantised(nn.MultiheadAttention(8, 2, batch_first=True), {slot: Integer(4, 2)}).train()
    x = torch.randn(3, 5, 8, requires_grad=True)
    layer(x, x, x)[0].square().mean().backward()
    for tensor in (x, *layer.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


def test_costs_and_size_follow_the_formats_of_all_projections():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.last = nn.Linear(8, 3)

        def forward(self, x):
            return self.last(self.attention(x, x, x, need_weights=False)[0].mean(1))

    graph = pb.trace(Attends().eval(), torch.randn(1, 5, 8))
    entry = {"data_in_width": 8, "weight_width": 4, "bias_width": 8}
    after, info = quantize(graph, QuantizeSettings("type", {"multihead_attention": entry}))
    assert info["unsupported"] == {}
    before, now = cost(graph), cost(after)
    row = next(r for r in now.rows if r.node == "attention")
    assert row.forward_bitops < next(r for r in before.rows if r.node == "attention").forward_bitops / 15
    assert row.stored_bytes == (4 * (3 * 8 * 8 + 8 * 8) + 8 * (3 * 8 + 8)) / 8
    for training in (True, False):
        after.model.train(training)
        assert after.model(torch.randn(2, 5, 8)).shape == (2, 3)
    assert after.model.attention.slots["weight"] is not FULL


class Encoder(nn.Module):
    """Torch's own encoder, which runs as one fused kernel where it can."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.last = nn.Linear(16, 4)

    def forward(self, x, padding=None):
        return self.last(self.encoder(x, src_key_padding_mask=padding).mean(1))


@pytest.mark.parametrize("op", ["multihead_attention", "layer_norm", "linear", "add", "relu"])
@pytest.mark.parametrize("padded", [False, True])
def test_no_fused_kernel_passes_over_quantised_layers(op, padded):
    torch.manual_seed(0)
    model, x = Encoder().eval(), torch.randn(3, 5, 16)
    padding = torch.zeros(3, 5, dtype=torch.bool) if padded else None
    slot = "weight_width" if op in ("linear", "multihead_attention") else "data_in_width"
    graph = pb.trace(model, (x[:1], None if padding is None else padding[:1]) if padded else x[:1])
    after, _ = quantize(graph, QuantizeSettings("type", {op: {slot: 3}}))
    slow = copy.deepcopy(after.model)(x, padding)  # gradients are on: no fused kernel
    with torch.no_grad():
        assert torch.equal(after.model(x, padding), slow)
        assert torch.equal(pickle.loads(pickle.dumps(after.model))(x, padding), slow)
        assert not torch.allclose(after.model(x, padding), model(x, padding), atol=1e-4)
