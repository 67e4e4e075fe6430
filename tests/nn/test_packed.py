"""Packed MXINT8 weights give what the format in the slot gives, bit for bit, in 33 bytes for 32 values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from paretobit.errors import BadInput
from paretobit.formats import MXINT8, Integer, ScaledInteger
from paretobit.nn import TensorCache, instrument
from paretobit.nn.packed import PackedLinear, pack, pack_linears, unpack

BLOCK = 32


def by_hand(row: list[float]) -> tuple[list[int], int]:
    """Codes and E8M0 byte of one block, number by number, from the specification."""
    import math

    largest = max(map(abs, row))
    exponent = max(math.frexp(largest)[1] - 1, -127) if largest else -127
    codes = [max(-128, min(127, round(value / 2.0**exponent * 64))) for value in row]  # ties to even
    return codes, exponent + 127


def linear(inputs: int, outputs: int, spread: float = 3.0) -> nn.Linear:
    """A layer whose weights span many binades."""
    torch.manual_seed(inputs * 97 + outputs)
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.mul_(torch.exp2(spread * torch.randn(outputs, inputs)))
    return layer


def test_codes_and_scales_are_those_of_the_specification() -> None:
    weight = linear(BLOCK * 2, 5).weight
    elements, scales = pack(weight)
    for o in range(5):
        for b in range(2):
            codes, byte = by_hand(weight[o, b * BLOCK : (b + 1) * BLOCK].tolist())
            assert elements[o, b].tolist() == codes
            assert scales[o, b].item() == byte


@pytest.mark.parametrize(("inputs", "outputs"), [(32, 4), (64, 10), (45, 7), (1, 1), (31, 3), (96, 8)])
def test_what_is_unpacked_is_the_format_bit_for_bit(inputs: int, outputs: int) -> None:
    weight = linear(inputs, outputs).weight.detach()
    assert torch.equal(unpack(*pack(weight), inputs), MXINT8().quantize(weight))


@pytest.mark.parametrize(
    "values",
    [
        [0.0] * 4,
        [1e-44, -1.4e-45, 0.0, 3e-42],  # subnormal
        [1.1754944e-38, -5.9e-39, 2e-40, 0.0],
        [3.4028235e38, -3.4028235e38, 1.0, 0.0],  # the largest: -2 times 2^127 is not in float32
        [-1.999, 1.999, 0.99, -1.0],  # rounds to the code -128 on one side only
    ],
)
def test_extreme_weights_survive(values: list[float]) -> None:
    weight = torch.tensor([values])
    assert torch.equal(unpack(*pack(weight), len(values)), MXINT8().quantize(weight))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("data_in", [None, Integer(8, 4)])
def test_the_output_is_that_of_the_format_in_the_weight_slot(bias: bool, data_in: Integer | None) -> None:
    layer, x = nn.Linear(45, 7, bias=bias), torch.randn(9, 45)
    with torch.no_grad():
        instrument(layer, TensorCache())
        formats = {} if data_in is None else {"data_in": data_in, "bias": Integer(6, 3)}
        layer.set_slots({name: f for name, f in formats.items() if bias or name != "bias"})
        packed = PackedLinear(layer)
        layer.set_slots({**layer.slots, "weight": MXINT8()})
        assert torch.equal(packed(x), layer(x))
        assert torch.equal(PackedLinear(layer)(x), layer(x))


def test_a_weight_takes_33_bytes_for_32_values() -> None:
    packed = PackedLinear(nn.Linear(64, 10, bias=False))
    assert sum(t.nbytes for t in packed.state_dict().values()) == 10 * 2 * 33
    assert MXINT8().bits((10, 64)) == 10 * 2 * 33 * 8


def test_a_model_is_copied_and_what_cannot_be_packed_is_named() -> None:
    shared = nn.Linear(8, 8)
    other = instrument(nn.Linear(8, 8), TensorCache())
    other.set_slots({"weight": ScaledInteger(4)})
    model = nn.Sequential(shared, nn.ReLU(), shared, other, nn.MultiheadAttention(8, 2)).eval()
    before = str(model)
    copied, packed, left = pack_linears(model)
    assert packed == ("0", "2")
    assert copied[0] is copied[2]
    assert isinstance(copied[0], PackedLinear)
    assert set(left) == {"3", "4.out_proj"}
    assert "scaled_integer(width=4" in left["3"]
    assert str(model) == before


def test_a_model_that_is_one_layer_is_packed_whole() -> None:
    packed_model, packed, left = pack_linears(nn.Linear(4, 2))
    assert isinstance(packed_model, PackedLinear)
    assert (packed, left) == (("",), {})


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(BadInput, match="NaN or infinite"):
        pack(torch.tensor([[1.0, float("nan")]]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_keep_their_type(dtype: torch.dtype) -> None:
    weight = linear(40, 3).weight.detach().to(dtype)
    layer = nn.Linear(40, 3, bias=False, dtype=dtype)
    layer.weight = nn.Parameter(weight)
    packed = PackedLinear(layer)
    assert packed.weight.dtype == dtype
    assert torch.equal(packed.weight, MXINT8().quantize(weight))
