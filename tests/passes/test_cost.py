"""Costs are those of the reports' table, of torch's own counter, and of the formulas by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from paretobit.errors import BadInput
from paretobit.formats import Integer
from paretobit.graph import trace
from paretobit.models import MODELS
from paretobit.passes.analysis import cost, owners
from paretobit.passes.transform import QuantizeSettings, quantize

# Parameters, forward and backward FLOPs, forward and backward BitOPs, as the second report prints them.
LAB2_TABLE = {
    "seq_blocks_0": ("batch_norm1d", 32, 512, 512, "524288", "524288"),
    "seq_blocks_1": ("relu", 0, 128, 128, "4096", "4096"),
    "seq_blocks_2": ("linear", 512, 4096, 8192, "4.1943e+06", "8.38861e+06"),
    "seq_blocks_3": ("batch_norm1d", 64, 1024, 1024, "1.04858e+06", "1.04858e+06"),
    "seq_blocks_4": ("relu", 0, 256, 256, "8192", "8192"),
    "seq_blocks_5": ("dropout", 0, 0, 0, "0", "0"),
    "seq_blocks_6": ("linear", 512, 4096, 8192, "4.1943e+06", "8.38861e+06"),
    "seq_blocks_7": ("batch_norm1d", 32, 512, 512, "524288", "524288"),
    "seq_blocks_8": ("relu", 0, 128, 128, "4096", "4096"),
    "seq_blocks_9": ("dropout", 0, 0, 0, "0", "0"),
    "seq_blocks_10": ("linear", 80, 640, 1280, "655360", "1.31072e+06"),
    "seq_blocks_11": ("batch_norm1d", 10, 160, 160, "163840", "163840"),
    "seq_blocks_12": ("relu", 0, 40, 40, "1280", "1280"),
}


@pytest.mark.parametrize("rows", [1, 8])
def test_the_table_of_the_second_report(rows):
    graph = trace(MODELS["jsc-custom"].build((16,), 5), torch.zeros(rows, 16))
    report = cost(graph, convention="lab2", batch=8)
    printed = {
        row.node: (
            row.op,
            row.parameters,
            row.forward_flops,
            row.backward_flops,
            f"{row.forward_bitops:g}",
            f"{row.backward_bitops:g}",
        )
        for row in report.rows
        if row.op not in ("placeholder", "output")
    }
    assert printed == LAB2_TABLE
    assert report.total("forward_flops") == 11592
    assert report.uncounted == ()


def test_lab2_multiplies_by_the_widths_that_the_layers_carry():
    graph = trace(MODELS["jsc-custom"].build((16,), 5), torch.zeros(1, 16))
    settings = QuantizeSettings(
        "type",
        {
            "linear": {"data_in_width": 8, "weight_width": 4, "bias_width": 2},
            "relu": {"data_in_width": 8},
            "batch_norm1d": {"data_in_width": 16, "weight_width": 6},
        },
    )
    rows = {row.node: row for row in cost(quantize(graph, settings)[0], convention="lab2", batch=8).rows}
    assert rows["seq_blocks_0"].forward_bitops == 512 * 16 * 6
    assert rows["seq_blocks_1"].forward_bitops == 128 * 8
    assert rows["seq_blocks_2"].forward_bitops == 4096 * 8 * 4
    assert rows["seq_blocks_2"].backward_bitops == 8192 * 8 * 4


class Basic(nn.Module):
    """A residual block of a CIFAR network."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.pad = (after - before) // 2
        self.stride = stride

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.pad:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(x + y)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
        self.blocks = nn.Sequential(*(Basic(*width) for width in widths))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        y = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.linear(F.avg_pool2d(y, y.size()[3]).view(y.size(0), -1))


def mlp():
    return MODELS["jsc-hls4ml"].build((16,), 5), (16,)


def cnn():
    layers = [
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, (3, 1), padding="same", dilation=(2, 1), groups=8),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 6, 1, bias=False),
        nn.Flatten(2),
        nn.Conv1d(6, 9, 5, stride=2, padding=2, dilation=2, groups=3),
        nn.Flatten(),
        nn.Linear(9 * 6, 5),
    ]
    return nn.Sequential(*layers), (4, 16, 16)


def tokens():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(8, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.inner(x.view(-1, 8)).view(-1, 6, 16))

    return Tokens(), (6, 8)


def shared():
    layer = nn.Linear(8, 8)
    return nn.Sequential(layer, nn.ReLU(), layer), (8,)


def resnet():
    return ResNet(), (3, 32, 32)


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("build", [mlp, cnn, tokens, shared, resnet])
def test_flops_agree_with_torchs_own_counter_per_sample(build, rows):
    model, shape = build()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    report = cost(trace(model, torch.zeros(rows, *shape)))
    assert report.total("forward_flops") == counter.get_total_flops() > 0
    assert 2 * report.total("macs") == report.total("forward_flops")
    assert report.total("backward_flops") == 2 * report.total("forward_flops")
    assert report.total("forward_bitops") == report.total("macs") * 32 * 32
    assert report.total("parameters") == sum(p.numel() for p in model.parameters())
    assert report.uncounted == ()


def test_the_published_macs_of_resnet20():
    model, shape = resnet()
    assert cost(trace(model, torch.zeros(1, *shape))).total("macs") == 40_551_040


def test_bitops_are_macs_times_data_bits_times_weight_bits():
    model, shape = cnn()
    formats = {"0": {"data_in": Integer(8), "weight": Integer(4)}, "9": {"weight": Integer(3), "bias": Integer(2)}}
    rows = {row.node: row for row in cost(trace(model, torch.zeros(2, *shape)), formats=formats).rows}
    assert rows["0"].forward_bitops == (8 * 8 * 8) * (4 // 2 * 9) * 8 * 4
    assert rows["3"].forward_bitops == (8 * 8 * 8) * 3 * 32 * 32
    assert rows["9"].forward_bitops == 54 * 5 * 32 * 3
    assert rows["9"].backward_bitops == 2 * rows["9"].forward_bitops


def test_formats_given_stand_in_place_of_those_carried():
    graph = trace(MODELS["jsc-tiny"].build((16,), 5), torch.zeros(1, 16))
    quantised, _ = quantize(graph, QuantizeSettings("type", {"linear": {"data_in_width": 8, "weight_width": 4}}))
    assert cost(quantised).total("forward_bitops") == 80 * 8 * 4
    assert cost(quantised, formats={}).total("forward_bitops") == 80 * 32 * 32


def test_what_the_counter_does_not_know_and_torchs_counter_neither_is_listed_by_operation_and_counts_nothing():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.bag, self.linear = nn.EmbeddingBag(4, 8), nn.Linear(8, 8)

        def forward(self, x):
            y = self.linear(x + self.bag(x[:, 0].long()).unsqueeze(1))
            return torch.cdist(y, y) + torch.cdist(x, y) + torch.linalg.multi_dot([y[0], y[0].T])

    report = cost(trace(Odd(), torch.zeros(2, 3, 8)))
    assert report.uncounted == ("bag", "cdist", "cdist_1")
    assert report.uncounted_ops == {"embedding_bag": ("bag",), "cdist": ("cdist", "cdist_1")}
    assert not report.totals.counted
    assert report.total("macs") == 3 * 64 + 3 * 8 * 3  # the chain of products: as torch counts it
    listed = [row for row in report.rows if not row.counted]
    assert all(row.macs == row.forward_flops == row.forward_bitops == row.bops == 0 for row in listed)
    assert next(row for row in listed if row.node == "bag").parameters == 4 * 8


def test_attention_is_not_missed_where_only_one_run_is_known():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x)[0] if x.sum() < 1e9 else x

    graph = trace(Odd(), torch.zeros(2, 3, 8))
    assert graph.method == "run"
    rows = {row.node: row for row in cost(graph).rows}
    assert rows["attention"].macs == 4 * 3 * 8 * 8 + 2 * 3 * 3 * 8


def test_costs_need_shapes_and_a_known_convention():
    model = MODELS["jsc-tiny"].build((16,), 5)
    with pytest.raises(BadInput, match=r"shapes of layer 'seq_blocks_0' are unknown: costs need example inputs"):
        cost(trace(model))
    with pytest.raises(BadInput, match=r"unknown cost convention.*found 'lab22'.*did you mean 'lab2'"):
        cost(trace(model, torch.zeros(1, 16)), convention="lab22")


def test_the_total_row_adds_up():
    model, shape = cnn()
    report = cost(trace(model, torch.zeros(2, *shape)))
    for name in ("parameters", "macs", "forward_flops", "backward_bitops", "bops", "activations"):
        assert getattr(report.totals, name) == sum(getattr(row, name) for row in report.rows) > 0
        assert report.total(name) == getattr(report.totals, name)
    assert report.totals.average_bitwidth == report.total("average_bitwidth") == 32
    with pytest.raises(BadInput, match=r"no such cost.*found 'forward_flop'.*did you mean 'forward_flops'"):
        report.total("forward_flop")


def test_a_parameter_counts_once_wherever_it_is_used():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
            self.head.weight = self.embed.weight
            self.scale, self.forgotten = nn.Parameter(torch.ones(8)), nn.Parameter(torch.ones(3))

        def forward(self, x):
            return self.head(self.embed(x) * self.scale if x.sum() < 99 else self.embed(x))

    report = cost(trace(Tied(), torch.zeros(2, 5, dtype=torch.long)))
    assert {row.node: row.parameters for row in report.rows if row.parameters} == {"embed": 160, "scale": 8}
    assert report.unused == ("forgotten",)
    assert report.total("stored_bytes") == 4 * 168
    assert report.total("macs") == 5 * 8 * 20


def bits_of(layer, shape, **slots):
    graph = trace(nn.Sequential(layer), torch.zeros(3, *shape))
    return next(owner for owner in owners(graph) if owner.path == "0").bits(slots)


def test_storage_of_a_linear_layer_by_hand():
    bits = bits_of(nn.Linear(16, 5), (16,), data_in=Integer(8), weight=Integer(4), bias=Integer(6))
    assert (bits.weight_elements, bits.weight_bits) == (85, 80 * 4 + 5 * 6)
    assert (bits.data_elements, bits.data_bits) == (16, 16 * 8)
    assert bits.statistics_bits == 0


def test_storage_of_what_is_not_quantised_counts_32_bits():
    bits = bits_of(nn.BatchNorm2d(4), (4, 3, 3), weight=Integer(8))
    assert (bits.weight_elements, bits.weight_bits) == (8, 4 * 8 + 4 * 32)
    assert bits.statistics_bits == 2 * 4 * 32
    assert (bits.data_elements, bits.data_bits) == (36, 36 * 32)


def test_storage_of_a_layer_without_a_data_slot_has_no_data():
    bits = bits_of(nn.Dropout(), (16,))
    assert (bits.weight_elements, bits.data_elements, bits.data_bits) == (0, 0, 0)


def test_storage_adds_up():
    linear, norm = bits_of(nn.Linear(2, 3), (2,)), bits_of(nn.BatchNorm1d(3), (3,))
    total = linear + norm
    assert total.weight_elements == 9 + 6
    assert total.weight_bits == 32 * 15
    assert total.statistics_bits == 32 * 6
    assert (total.data_elements, total.data_bits) == (5, 160)
