"""MACs are those of torch's own counter, operation by operation and on the networks of the field."""

import resource
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
from many_cases import each
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
    ViTForImageClassification,
)

from paretobit.graph import trace
from paretobit.passes.analysis import cost
from paretobit.runtime import one_thread


def counted(model, *args, **kwargs):
    """FLOPs after torch's counter, with attention as two products."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            FlopCounterMode(display=False) as counter,
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # oneDNN has no LSTM with projections
            model.eval()(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops()


class Call(nn.Module):
    """A model that is one function of its inputs and a parameter."""

    def __init__(self, function, *shape):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.randn(shape))

    def forward(self, *inputs):
        return self.function(*inputs, self.weight)


X, Y = torch.randn(2, 3, 8), torch.randn(2, 8, 5)
IMAGE = torch.randn(2, 6, 9, 7)
FUNCTIONS = {
    "linear": (lambda x, w: F.linear(x, w), (5, 8), (X,)),
    "matmul": (lambda x, y, w: torch.matmul(x, y) * w, (5,), (X, Y)),
    "@": (lambda x, y, w: x @ y @ w, (5, 4), (X, Y)),
    "method": (lambda x, w: x.matmul(w), (8, 4), (X,)),
    "same twice": (lambda x, w: x.transpose(1, 2).bmm(x) + w, (8,), (X,)),
    "mm": (lambda x, w: torch.mm(x[:, 0], w), (8, 4), (X,)),
    "bmm": (lambda x, y, w: torch.bmm(x, y) * w, (5,), (X, Y)),
    "addmm": (lambda x, w: torch.addmm(w[0], x[:, 1], w), (8, 4), (X,)),
    "baddbmm": (lambda x, y, w: torch.baddbmm(w, x, y), (2, 3, 5), (X, Y)),
    "einsum": (lambda x, y, w: torch.einsum("bij, bjk -> bik", x, y) * w, (5,), (X, Y)),
    "einsum with weights": (lambda x, w: torch.einsum("...j,jk->...k", x, w), (8, 4), (X,)),
    "tensordot": (lambda x, w: torch.tensordot(x, w, dims=2), (3, 8, 6), (X,)),
    "attention": (lambda x, w: F.scaled_dot_product_attention(x, x[:, :2], w), (2, 2, 4), (X,)),
    "causal": (lambda x, w: F.scaled_dot_product_attention(x, x, x + w, is_causal=True), (8,), (X,)),
    "conv1d": (lambda x, w: F.conv1d(x, w, stride=2, padding=1), (4, 3, 5), (X,)),
    "conv2d": (lambda x, w: F.conv2d(x, w, groups=2, dilation=2), (4, 3, 3, 3), (IMAGE,)),
    "conv3d": (lambda x, w: F.conv3d(x[:, None], w, padding=1), (4, 1, 2, 3, 3), (IMAGE,)),
    "conv_transpose2d": (lambda x, w: F.conv_transpose2d(x, w, stride=2, groups=3), (6, 2, 3, 3), (IMAGE,)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_counts_as_torch_counts_it(name):
    function, shape, inputs = FUNCTIONS[name]
    model = Call(function, *shape)
    report = cost(trace(model, inputs))
    assert report.total("forward_flops") * len(inputs[0]) == counted(model, *inputs) > 0
    assert report.uncounted == ()


@each(("equation", "shape"), [("bij,kl->bijkl", (4, 2)), ("bij,ij->bij", (3, 8)), ("bik,kj->bij", (1, 5))])
def test_an_einsum_that_adds_nothing_up_counts_nothing_as_in_torch(equation, shape):
    x = X[..., :1] if equation.startswith("bik") else X
    model = Call(lambda x, w: torch.einsum(equation, x, w), *shape)
    report = cost(trace(model, x))
    assert report.total("macs") == report.total("forward_flops") == counted(model, x) == 0
    assert report.uncounted == ()


UNSEEN = {
    "one output": (lambda x, w: F.linear(x, w), (8,), 3 * 8),
    "mv": (lambda x, w: torch.mv(x[:, 0], w), (8,), 8),
    "vector": (lambda x, w: x @ w, (8,), 3 * 8),
    "addbmm": (lambda x, w: torch.addbmm(w, x[:1].transpose(1, 2), x[1:]), (8, 8), 3 * 8 * 8 // 2),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_a_product_that_torchs_counter_does_not_see_counts_by_hand(name):
    function, shape, macs = UNSEEN[name]
    assert cost(trace(Call(function, *shape), X[:2])).total("macs") == macs


LAYERS = {
    "linear": (nn.Linear(8, 5), (X,)),
    "conv1d": (nn.Conv1d(3, 6, 3, padding="same", groups=3), (X,)),
    "conv2d": (nn.Conv2d(6, 4, (3, 2), 2, 1, (1, 2), 2), (IMAGE,)),
    "conv3d": (nn.Conv3d(2, 4, 2), (torch.randn(2, 2, 4, 5, 6),)),
    "depthwise": (nn.Conv2d(6, 12, 3, groups=6), (IMAGE,)),
    "conv_transpose1d": (nn.ConvTranspose1d(3, 6, 4, 3, groups=3), (X,)),
    "conv_transpose2d": (nn.ConvTranspose2d(6, 4, 3, 2, 1, 1, 2, dilation=2), (IMAGE,)),
    "conv_transpose3d": (nn.ConvTranspose3d(2, 4, 2, 2), (torch.randn(2, 2, 4, 5, 6),)),
    "lstm": (nn.LSTM(8, 6, 2, bidirectional=True, batch_first=True, proj_size=4), (X,)),
    "gru": (nn.GRU(8, 6, 2, batch_first=True), (X,)),
    "rnn": (nn.RNN(8, 6, batch_first=True, bidirectional=True), (X,)),
    "lstm_cell": (nn.LSTMCell(8, 6), (X[:, 0],)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_counts_as_torch_counts_it(name):
    layer, inputs = LAYERS[name]
    report = cost(trace(nn.Sequential(layer), inputs))
    with torch.backends.mkldnn.flags(enabled=False):  # whose LSTM the counter does not see
        assert report.total("forward_flops") * len(inputs[0]) == counted(layer, *inputs) > 0
    assert report.total("parameters") == sum(p.numel() for p in layer.parameters())
    assert report.uncounted == ()


def lstm_function(x, w):
    state = torch.zeros(1, len(x), 6)
    parameters = [w[:24], w[24:, :6], w[0].repeat(3), w[1].repeat(3)]
    return torch._VF.lstm(x, (state, state), parameters, True, 1, 0.0, False, False, True)[0]


WITH_WEIGHTS = {
    "lstm": (lstm_function, (48, 8), X),
    "gru_cell": (lambda x, w: torch.gru_cell(x, x[:, :6], w[:18], w[18:, :6]), (36, 8), X[:, 0]),
}


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_the_function_of_a_recurrent_layer_counts_as_torch_counts_it(name):
    function, shape, x = WITH_WEIGHTS[name]
    report = cost(trace(Call(function, *shape), x))
    with torch.backends.mkldnn.flags(enabled=False):
        assert report.total("forward_flops") * 2 == counted(Call(function, *shape), x) > 0
    assert report.uncounted == ()


class Attend(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, **settings)

    def forward(self, query, key, value):
        return self.attention(query, key, value=value)[0]


def test_a_bilinear_layer_contracts_its_inputs_one_after_the_other():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Bilinear(8, 4, 5)

        def forward(self, x):
            return self.layer(x, x[..., :4])

    assert cost(trace(Pair(), X)).total("macs") == 3 * (5 * 8 * 4 + 5 * 4)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    ("settings", "widths"),
    [
        ({"batch_first": True}, (8, 8)),
        ({"batch_first": True, "kdim": 6, "vdim": 4}, (6, 4)),
        ({"batch_first": True, "add_bias_kv": True, "add_zero_attn": True}, (8, 8)),
    ],
)
def test_multihead_attention_counts_projections_and_both_products(settings, widths, rows):
    model = Attend(**settings)
    inputs = [torch.randn(rows, 7, 8), torch.randn(rows, 5, widths[0]), torch.randn(rows, 5, widths[1])]
    report = cost(trace(model, inputs))
    assert report.total("forward_flops") * rows == counted(model, *inputs) > 0


class Basic(nn.Module):
    """A residual block with a projected shortcut."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.shortcut = nn.Conv2d(before, after, 1, stride) if before != after else nn.Identity()

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y += self.shortcut(x)
        return F.relu(y)


def resnet():
    blocks = [Basic(8, 8, 1), Basic(8, 16, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), *blocks), torch.zeros(2, 3, 16, 16)


class Inverted(nn.Module):
    """Expand, filter each channel, project, add: the block of MobileNet v2."""

    def __init__(self, channels, expansion):
        super().__init__()
        wide = channels * expansion
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True)),
            *(nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.Hardswish()),
            *(nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels)),
        )

    def forward(self, x):
        return x + self.layers(x)


def mobilenet():
    layers = [nn.Conv2d(3, 8, 3, 2, 1), Inverted(8, 4), Inverted(8, 6), nn.AvgPool2d(8), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(), nn.Linear(8, 10)), torch.zeros(2, 3, 16, 16)


def mlp():
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5), nn.LogSoftmax(1)), torch.zeros(2, 16)


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def bert():
    config = BertConfig(vocab_size=50, max_position_embeddings=16, **SMALL)
    ids = torch.arange(14).view(2, 7)
    return BertForSequenceClassification(config), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def bert_with_plain_attention():
    model, inputs = bert()
    model.set_attn_implementation("eager")
    return model, inputs


def gpt2():
    special = dict.fromkeys(("bos_token_id", "eos_token_id"), 0)
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=4, **special)
    return GPT2LMHeadModel(config), {"input_ids": torch.arange(14).view(2, 7)}


def vit():
    return ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **SMALL)), {
        "pixel_values": torch.zeros(2, 3, 32, 32)
    }


@pytest.mark.parametrize("build", [mlp, resnet, mobilenet, bert, bert_with_plain_attention, gpt2, vit])
def test_networks_cost_what_torch_counts(build):
    model, inputs = build()
    named = inputs if isinstance(inputs, dict) else {"input": inputs}
    rows = len(next(iter(named.values())))
    report = cost(trace(model.eval(), inputs))
    assert report.total("forward_flops") * rows == counted(model, **named) > 0
    assert report.uncounted == ()
    assert report.total("parameters") == sum(p.numel() for p in model.parameters())
    assert report.total("stored_bytes") == 4 * sum(
        t.numel() for n, t in [*model.named_parameters(), *model.named_buffers()] if t.is_floating_point()
    )
    assert report.unused == ()


def test_bert_costs_by_hand():
    model, inputs = bert()
    tokens, width, inner, layers, classes = 7, 32, 64, 2, 2
    linear = layers * tokens * (4 * width * width + 2 * width * inner) + width * width + width * classes
    attention = layers * 2 * tokens * tokens * width
    assert cost(trace(model, inputs)).total("macs") == linear + attention


def test_operations_that_multiply_nothing_are_counted_apart():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.embed = nn.LayerNorm(8), nn.Embedding(3, 8)

        def forward(self, x, i):
            y = torch.cat([self.norm(x), self.embed(i)], 1).transpose(1, 2)
            return F.softmax(y, -1).mean(1) + 1

    report = cost(trace(Mixed(), (X, torch.zeros(2, 2, dtype=torch.long))))
    assert {row.op: row.other_flops for row in report.rows if row.other_flops} == {
        "layer_norm": 4 * 24,
        "softmax": 3 * 40,
        "mean": 40,
        "add": 5,
    }
    assert report.total("forward_flops") == 0
    assert {row.op: row.activations for row in report.rows if row.activations} == {
        "layer_norm": 24,
        "embedding": 16,
        "cat": 40,
        "softmax": 40,
        "mean": 5,
        "add": 5,
    }


class PeakMemory:
    """Most bytes that the process holds inside the block beyond those at its start."""

    def __enter__(self):
        self._start, self.extra, self._over = self._held(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _watch(self):
        while not self._over.wait(0.002):
            self.extra = max(self.extra, self._held() - self._start)

    def _held(self):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_bert_of_110_million_parameters_is_traced_and_costed_in_time_and_memory():
    model = BertForSequenceClassification(BertConfig())
    ids = torch.zeros(1, 128, dtype=torch.long)
    parameters = sum(p.numel() for p in model.parameters())
    start = time.perf_counter()
    with one_thread(), PeakMemory() as memory:
        report = cost(trace(model, {"input_ids": ids}))
    assert time.perf_counter() - start < 60
    assert 0 < memory.extra < 2.5 * 4 * parameters
    assert report.total("parameters") == parameters > 109e6
    linear = 12 * 128 * (4 * 768 * 768 + 2 * 768 * 3072) + 768 * 768 + 2 * 768
    assert report.total("macs") == linear + 12 * 2 * 128 * 128 * 768
    assert report.uncounted == ()
    assert report.total("stored_bytes") == 4 * parameters
