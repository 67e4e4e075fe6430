"""BOPs are the published ones, `lab3` is what the second report prints, and zeros are left out."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.formats import Integer
from paretobit.graph import trace
from paretobit.models import MODELS
from paretobit.nn import parameter_uses
from paretobit.passes.analysis import cost, zero_fraction
from paretobit.passes.transform import QuantizeSettings, quantize
from paretobit.report import cost_rows

LAYERS = ("seq_blocks.0", "seq_blocks.2", "seq_blocks.4", "seq_blocks.6")


def tagger():
    return trace(MODELS["jsc-hls4ml"].build((16,), 5), torch.zeros(1, 16))


def widths(layers, **slots):
    return {path: {slot: Integer(width) for slot, width in slots.items()} for path in layers}


@pytest.mark.parametrize(
    ("width", "bops"), [(32, 4_652_832), (16, 1_526_560), (8, 583_968), (6, 412_960), (4, 267_808), (2, 148_512)]
)
def test_the_published_bops_of_the_reference_tagger(width, bops):
    formats = widths(LAYERS, data_in=width, weight=width)
    formats["seq_blocks.0"]["data_in"] = Integer(32)
    assert cost(tagger(), formats=formats).total("bops") == bops


@pytest.mark.parametrize(("width", "bops"), [(8, 362_784), (6, 226_592), (4, 124_448)])
def test_the_published_bops_with_a_narrow_input(width, bops):
    formats = widths(LAYERS, data_in=width, weight=width)
    assert cost(tagger(), formats=formats).total("bops") == bops


def test_bops_of_a_convolution_and_of_attention_count_the_terms_of_each_product():
    conv = cost(trace(nn.Sequential(nn.Conv2d(4, 6, 3, groups=2)), torch.zeros(2, 4, 5, 5)))
    assert conv.total("bops") == pytest.approx(6 * 9 * 18 * (1024 + 64 + math.log2(18)))

    class Attention(nn.Module):
        def forward(self, q, k):
            return F.scaled_dot_product_attention(q, k, k)

    report = cost(trace(Attention(), (torch.zeros(2, 4, 3, 8), torch.zeros(2, 4, 5, 8))))
    macs = 4 * 3 * 5 * 8
    assert report.total("bops") == pytest.approx(macs * (2 * 1088 + math.log2(8) + math.log2(5)))


def test_formats_of_a_function_are_found_by_its_site():
    class Two(nn.Module):
        def forward(self, x, y):
            return torch.matmul(torch.matmul(x, y), y)

    graph = trace(Two(), (torch.zeros(1, 3, 4), torch.zeros(1, 4, 4)))
    sites = [node.site for node in graph if node.op == "matmul"]
    formats = {sites[1]: {"data_in": Integer(8), "weight": Integer(4)}}
    rows = [row for row in cost(graph, formats=formats).rows if row.macs]
    assert [row.forward_bitops for row in rows] == [48 * 1024, 48 * 32]


def test_zero_weights_are_left_out_of_bops():
    model = nn.Sequential(nn.Linear(8, 4))
    with torch.no_grad():
        model[0].weight.copy_(torch.linspace(0.3, 1, 32).view(4, 8))
        model[0].weight[0] = 0
    graph = trace(model, torch.zeros(1, 8))

    def bops(zeros, data=32, weight=32):
        return 32 * ((1 - zeros) * data * weight + data + weight + 3)

    assert cost(graph).total("bops") == bops(0)
    assert cost(graph, sparsity={"0": 0.5}).total("bops") == bops(0.5)
    report = cost(graph, sparsity="weights")
    assert report.total("bops") == bops(0.25)
    assert [row.sparsity for row in report.rows if row.op == "linear"] == [0.25]
    coarse = {"0": {"weight": Integer(8, 0)}}  # what is below one half becomes zero
    zeros = (model[0].weight.round() == 0).double().mean().item()
    assert 0.25 < zeros == zero_fraction(parameter_uses(graph).at("0"), coarse["0"]) < 1
    assert cost(graph, sparsity="weights", formats=coarse).total("bops") == pytest.approx(bops(zeros, weight=8))
    with pytest.raises(BadInput, match=r"not a fraction \(sparsity.0\): found 1.5"):
        cost(graph, sparsity={"0": 1.5})


def test_backward_is_twice_forward_and_bits_are_averaged_by_elements():
    report = cost(tagger(), formats=widths(LAYERS[:1], data_in=8, weight=4))
    assert report.total("backward_bitops") == 2 * report.total("forward_bitops")
    first, rest = 1024, 2048 + 1024 + 160 + 64 + 32 + 32 + 5
    data = 64 + 32 + 32 + 64 + 32 + 32
    bits = 1024 * 4 + 16 * 8 + 32 * (rest + data)
    assert report.total("average_bitwidth") == bits / (first + rest + 16 + data)
    row = next(row for row in report.rows if row.node == "seq_blocks_0")
    assert row.average_bitwidth == (1024 * 4 + 64 * 32 + 16 * 8) / (1024 + 64 + 16)
    assert row.stored_bytes == (1024 * 4 + 64 * 32) / 8


@pytest.mark.parametrize("batch", [1, 8, 512])
def test_lab3_is_what_the_second_report_prints(batch):
    """Its network has one BatchNorm, one linear layer, and ReLUs of 16 and 5 features."""
    data, weight, bias = 8, 6, 4
    linear = batch * 16 * 5
    norm = 16 * batch + (2 * 16 + 15) * batch + (batch - 1) + 2 + batch * 4 * 16
    per_output = 16 * data * weight + 15 * data * weight + bias
    size = (16 + 80) * weight + (16 + 5) * bias + data * (1 * 16 + 1)

    graph = trace(MODELS["jsc-tiny"].build((16,), 5), torch.zeros(1, 16))
    formats = widths(("seq_blocks.0", "seq_blocks.2"), data_in=data, weight=weight, bias=bias)
    report = cost(graph, convention="lab3", batch=batch, formats=formats)
    assert report.total("forward_flops") == linear + norm + 16 * batch + 5 * batch
    assert report.total("forward_bitops") == 5 * per_output * batch
    assert report.total("stored_bytes") == size / 8


def test_lab3_prints_no_backward_pass():
    report = cost(tagger(), convention="lab3")
    with pytest.raises(BadInput, match="the convention lab3 has no backward_flops"):
        report.total("backward_flops")
    table = cost_rows(report)
    assert {row["Backward FLOPS"] for row in table} == {None}
    assert table[-1]["Forward FLOPS"] == report.total("forward_flops")


def test_the_reports_table_has_its_columns_and_a_total_row():
    graph = trace(MODELS["jsc-custom"].build((16,), 5), torch.zeros(1, 16))
    table = cost_rows(cost(graph, convention="lab2", batch=8))
    assert list(table[0]) == [
        *("Node name", "Node type", "Parameters"),
        *("Forward FLOPS", "Backward FLOPS", "Forward bitops", "Backward bitops"),
    ]
    assert table[-1] == {
        "Node name": "total",
        "Node type": "",
        "Parameters": 1242,
        "Forward FLOPS": 11592,
        "Backward FLOPS": 11592 + 4096 + 4096 + 640,
        "Forward bitops": sum(row["Forward bitops"] or 0 for row in table[:-1]),
        "Backward bitops": sum(row["Backward bitops"] or 0 for row in table[:-1]),
    }
    assert {"MACs", "BOPs", "Activations", "Stored bytes", "Average bits"} <= set(cost_rows(cost(graph))[0])


def test_functions_that_carry_formats_cost_what_they_carry():
    class Scores(nn.Module):
        def forward(self, x, y):
            return torch.matmul(x, y)

    graph = trace(Scores(), (torch.zeros(1, 3, 4), torch.zeros(1, 4, 4)))
    settings = QuantizeSettings("type", {"matmul": {"data_in_width": 8, "weight_width": 4}})
    assert cost(quantize(graph, settings)[0]).total("forward_bitops") == 48 * 32
