"""Accumulators: the width that integer dot products need, against sums of Python integers."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.formats import FULL, Integer, MinifloatIEEE, accumulator, bits_for
from paretobit.passes.analysis import accumulators
from paretobit.passes.transform import QuantizeSettings, quantize


@pytest.mark.parametrize(
    ("data", "weight", "terms", "expected"),
    [
        (Integer(8, 4), Integer(8, 6), 16, Integer(20, 10)),  # 16 · 2^14 needs one bit more than 18
        (Integer(8, 4), Integer(8, 6), 1, Integer(16, 10)),
        (Integer(8, 0, signed=False), Integer(8, 0, signed=False), 1, Integer(16, 0, signed=False)),
        (Integer(8, 0, signed=False), Integer(4, 0), 3, Integer(14, 0)),  # -8 · 255 · 3 = -6120
        (Integer(1, 0), Integer(1, 0), 8, Integer(4, 0, signed=False)),  # codes -1 and 0
        (Integer(40, 0), Integer(40, 0), 16, FULL),
        (Integer(8, 70), Integer(8, 60), 16, FULL),
        (Integer(8, 4), MinifloatIEEE(8, 4), 16, FULL),
        (FULL, Integer(8), 16, FULL),
    ],
)
def test_the_accumulator_holds_the_most_extreme_sum_and_no_bit_more(data, weight, terms, expected):
    assert accumulator(data, weight, terms) == expected
    if expected is not FULL:
        extremes = [terms * d * w for d in data.code_range for w in weight.code_range]
        low, high = expected.code_range
        assert low <= min(extremes)
        assert max(extremes) <= high
        narrower = Integer(expected.width - 1, 0, signed=expected.signed).code_range
        assert min(extremes) < narrower[0] or max(extremes) > narrower[1]


@pytest.mark.parametrize("low", [-129, -128, -1, 0])
@pytest.mark.parametrize("high", [0, 1, 127, 128, 255, 256])
def test_bits_for_a_range_are_the_fewest_that_hold_it(low, high):
    def holds(width):
        return low >= -(2 ** (width - 1)) and high <= 2 ** (width - 1) - 1 if low < 0 else high <= 2**width - 1

    width = bits_for(low, high)
    assert holds(width)
    assert width == 1 or not holds(width - 1)


def quantised(model, x, **slots):
    entry = {"name": "integer", **slots}
    graph, _ = quantize(pb.trace(model, x[:1]), QuantizeSettings("regex", {"[02]": entry}))
    return graph


@pytest.fixture
def dense():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3, bias=False)).eval()


FORMATS = {"data_in_width": 6, "data_in_frac_width": 3, "weight_width": 5, "weight_frac_width": 4}


def test_what_is_seen_equals_sums_of_python_integers(dense):
    x = torch.randn(50, 12) * 2
    graph = quantised(dense, x, **FORMATS)
    first, second = accumulators(graph, [x[:20], x[20:]], widths=(6, 8, 9, 10, 16))
    layer = graph.model[0]
    data = [[round(v * 8) for v in row] for row in Integer(6, 3).quantize(x).tolist()]
    weights = [[round(v * 16) for v in row] for row in Integer(5, 4).quantize(layer.weight).tolist()]
    bias = [round(v * 128) for v in layer.parameter("bias").tolist()]
    sums = [
        sum(d * w for d, w in zip(row, column, strict=True)) + b
        for row in data
        for column, b in zip(weights, bias, strict=True)
    ]
    assert (first.terms, first.frac_width) == (12, 7)
    assert first.width == 14  # 12 · 32 · 16 = 6144 < 2^13; the rule 6 + 5 + log2(12) would say 15
    assert first.width_seen == bits_for(min(sums), max(sums))
    for width, share in first.overflow.items():
        over = sum(not -(2 ** (width - 1)) <= s < 2 ** (width - 1) for s in sums)
        assert share == pytest.approx(over / len(sums))
    assert 0 < first.overflow[9] < first.overflow[6]
    assert first.overflow[16] == 0
    worst = max(
        abs(sum(w * (31 if w * sign > 0 else -32) for w in column) + b)
        for column, b in zip(weights, bias, strict=True)
        for sign in (1, -1)
    )
    assert abs(first.width_for_weights - (worst.bit_length() + 1)) <= 1
    assert first.width_seen <= first.width_for_weights <= first.width
    assert second.layer == graph.layers[2].name
    assert not graph.model[0]._forward_pre_hooks


def test_convolutions_count_the_products_of_their_groups():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    x = torch.randn(3, 4, 6, 6)
    graph = quantised(model, x, **FORMATS)
    first, second = accumulators(graph, [x])
    assert (first.terms, second.terms) == (2 * 9, 8)
    exact = model[0](x)
    layer = graph.model[0]
    result = layer(x)
    top = max(abs(result.min()), abs(result.max())).item() * 2**7
    assert first.width_seen == round(top).bit_length() + 1
    assert exact.shape == result.shape


def test_only_integer_layers_have_an_integer_accumulator(dense):
    x = torch.randn(4, 12)
    entries = {
        "0": {"name": "minifloat_ieee", "weight_width": 8, "weight_exponent_width": 4},
        "2": {"name": "integer", "weight_width": 8},
    }
    graph, _ = quantize(pb.trace(dense, x[:1]), QuantizeSettings("name", entries))
    assert accumulators(graph, [x]) == ()


@pytest.mark.parametrize(
    ("batches", "widths", "message"),
    [([], (8,), "calibration data"), ([0], (0,), "no accumulator width.*found 0"), ([0], (65,), "found 65")],
)
def test_no_data_and_no_width_are_refused(dense, batches, widths, message):
    x = torch.randn(4, 12)
    graph = quantised(dense, x, **FORMATS)
    with pytest.raises(BadInput, match=message):
        accumulators(graph, [x for _ in batches], widths)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.ConvTranspose2d(4, 6, 3, 2, groups=2), (2, 4, 5, 5)),
        (Conv1D(6, 4), (2, 4)),
        (nn.Conv3d(2, 3, 2), (1, 2, 3, 3, 3)),
    ],
    ids=["transposed", "transformers", "3d"],
)
def test_every_layer_of_dot_products_has_an_accumulator(layer, shape):
    graph = pb.trace(nn.Sequential(layer).eval(), torch.randn(shape))
    entry = {"data_in": "integer(width=8, frac_width=4)", "weight": "integer(width=6, frac_width=4)"}
    quantised, _ = quantize(graph, QuantizeSettings("type", default=entry))
    (found,) = accumulators(quantised, [torch.randn(shape)])
    assert found.width_seen <= found.width_for_weights <= found.width
