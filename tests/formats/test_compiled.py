"""Compiled formats give the bits that eager ones give, edges and gradients included."""

import math
import shutil

import pytest
import torch

from paretobit.errors import ParetoBitError
from paretobit.formats import compiled, parse
from paretobit.runtime import cpp_compiler

FORMATS = [
    "integer(width=8, frac_width=4)",
    "integer(width=6, frac_width=3, signed=false, rounding=floor)",
    "scaled_integer(width=8, per=channel)",
    "scaled_integer(width=4, symmetric=false, per=group, group_size=8)",
    "scaled_integer(width=8, symmetric=false, scale=0.1, zero_point=3)",
    "scaled_integer(width=4, calibration=mse)",
    "scaled_integer(width=4, signed=false)",
    "minifloat_ieee(width=8, exponent_width=4, gradient=mask)",
    "minifloat_denorm(width=8, exponent_width=4)",
    "log(width=8)",
    "fp8_e4m3",
    "bf16",
    "binary",
    "binary(bipolar=false)",
    "binary_residual",
    "ternary",
    "block_fp(width=8)",
    "block_minifloat(width=6, exponent_width=3, block_size=4x4)",
    "block_log(width=4, axis=0)",
    "mxint8",
    "mxfp4",
    "nvfp4",
]
# Formats have one straight-through gradient: it is compiled for one of each family, and with a mask.
WITH_GRADIENTS = (0, 2, 7, 9, 10, 12, 14, 16, 20)
needs_compiler = pytest.mark.skipif(cpp_compiler() is None, reason="torch.compile needs a C++ compiler")


def data():
    """Ragged rows with every kind of number in them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((13, 45), generator=generator) * 2.0 ** torch.randint(-8, 8, (13, 45), generator=generator)
    x[0, :6] = torch.tensor([math.nan, math.inf, -math.inf, 3e38, -3e38, 0.0])
    x[1] = 0
    x[2, :5] = torch.tensor([1e-45, -1e-45, 1e-40, -2e-39, -0.0])
    x[3] = torch.randn(45, generator=generator) * 1e-40
    x[4] = torch.arange(45) / 2 - 11
    x[5] = torch.arange(45) * 2.0**-5
    x[6, 3] = math.nan
    x[7, 20] = 3.3e38
    return x


def same_bits(left, right):
    both_nan = left.isnan() & right.isnan()
    return bool((both_nan | (left.view(torch.int32) == right.view(torch.int32))).all())


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("text", FORMATS)
def test_compiled_and_eager_give_the_same_bits(text):
    f, x = parse(text), data()
    before = x.clone()
    call = compiled(f)
    y = call(x)
    assert same_bits(y, f.quantize(x))
    assert same_bits(x, before)
    ordinary = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    assert same_bits(call(ordinary), f.quantize(ordinary))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("text", [FORMATS[k] for k in WITH_GRADIENTS])
def test_compiled_and_eager_give_the_same_gradients(text):
    f, x = parse(text), data()
    eager_leaf, compiled_leaf = x.clone().requires_grad_(), x.clone().requires_grad_()
    upstream = torch.arange(x.numel(), dtype=torch.float32).view(x.shape)
    eager, out = f.quantize(eager_leaf), compiled(f)(compiled_leaf)
    assert same_bits(out.detach(), eager.detach())
    eager.backward(upstream)
    out.backward(upstream)
    assert torch.equal(compiled_leaf.grad, eager_leaf.grad)


@needs_compiler
@pytest.mark.slow
def test_one_compiled_format_takes_other_shapes_and_types():
    f = parse("block_fp(width=6, block_size=8)")
    call = compiled(f)
    x = data()
    for tensor in (x[:, 0], x.view(13, 5, 9).transpose(0, 2), x.double(), x.bfloat16()):
        y, expected = call(tensor), f.quantize(tensor)
        assert y.dtype == expected.dtype
        assert torch.equal(y.nan_to_num(7), expected.nan_to_num(7))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "columns"),  # 1 and 29 elements are left; above, 45 columns leave 13
    [
        ("mxfp4", 33),
        ("block_minifloat(width=6, exponent_width=3)", 125),
        ("scaled_integer(width=4, per=group, group_size=32)", 33),
        ("scaled_integer(width=4, per=group, group_size=32)", 125),
    ],
)
def test_short_blocks_at_the_end_of_a_row_are_not_forgotten(text, columns):
    f, x = parse(text), torch.randn((7, columns), generator=torch.Generator().manual_seed(2))
    assert same_bits(compiled(f)(x), f.quantize(x))


def test_without_a_compiler_the_refusal_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ParetoBitError, match=r"torch\.compile needs a C\+\+ compiler, and none was found: set CXX"):
        compiled(parse("fp8_e4m3"))


@needs_compiler
def test_nothing_is_compiled_before_the_first_call():
    started = torch._dynamo.utils.counters["frames"]["total"]
    assert callable(compiled(parse("fp8_e4m3")))
    assert torch._dynamo.utils.counters["frames"]["total"] == started
