"""Every registered format, under several sets of parameters each, keeps every promise of the suite."""

import pytest
import torch
from many_cases import each

from paretobit.formats import FORMATS, ScaledInteger, parse
from paretobit.testing import FormatConformance
from paretobit.testing.inputs import HALF, normal

WIDE = """
integer(width=8)
integer(width=8, frac_width=4, gradient=mask)
integer(width=6, frac_width=-2)
integer(width=4, frac_width=10)
integer(width=7, frac_width=3, signed=false)
integer(width=1, frac_width=0)
integer(width=8, frac_width=4, rounding=floor)
integer(width=8, frac_width=4, rounding=stochastic)
integer(width=32, frac_width=16)
scaled_integer(width=8)
scaled_integer(width=4, per=channel)
scaled_integer(width=4, per=group, group_size=8)
scaled_integer(width=8, symmetric=false)
scaled_integer(width=8, signed=false)
scaled_integer(width=4, signed=false, symmetric=false, per=channel)
scaled_integer(width=1, signed=false, symmetric=false)
scaled_integer(width=4, calibration=percentile, percentile=90)
scaled_integer(width=3, calibration=mse, per=channel)
scaled_integer(width=8, scale=0.05)
scaled_integer(width=8, scale=0.0625, gradient=mask)
scaled_integer(width=6, signed=false, symmetric=false, scale=0.1, zero_point=20)
scaled_integer(width=20, scale=0.001)
scaled_integer(width=24, signed=false, scale=0.3)
minifloat_ieee(width=8, exponent_width=4)
minifloat_ieee(width=6, exponent_width=2, exponent_bias=5, gradient=mask)
minifloat_ieee(width=5, exponent_width=4)
minifloat_ieee(width=8, exponent_width=7, exponent_bias=100)
minifloat_ieee(width=12, exponent_width=8, exponent_bias=-5)
minifloat_ieee(width=32, exponent_width=8)
minifloat_denorm(width=8, exponent_width=4)
minifloat_denorm(width=4, exponent_width=2, exponent_bias=3)
minifloat_denorm(width=3, exponent_width=1)
minifloat_denorm(width=12, exponent_width=8, exponent_bias=200)
log(width=8)
log(width=4)
log(width=2)
log(width=5, exponent_bias=-3)
fp8_e4m3
fp8_e5m2(gradient=mask)
fp6_e3m2
fp6_e2m3
fp4_e2m1
bf16
fp16
binary
binary(bipolar=false)
binary(stochastic=true)
binary(bipolar=false, stochastic=true, gradient=mask)
binary(binary_training=false)
binary_scaling
binary_scaling(bipolar=false, per=tensor)
binary_scaling(stochastic=true)
binary_residual
binary_residual(levels=4, per=tensor)
binary_residual(levels=3, bipolar=false)
binary_residual(levels=1)
binary_residual(stochastic=true)
ternary
ternary(per=tensor, gradient=mask)
ternary(threshold=0.5, scaling=false)
block_fp(width=8)
block_fp(width=4, block_size=4, axis=0)
block_fp(width=8, block_size=4x4, gradient=mask)
block_fp(width=32)
block_minifloat(width=8, exponent_width=4)
block_minifloat(width=6, exponent_width=2, block_size=1x8)
block_minifloat(width=4, exponent_width=3)
block_log(width=8)
block_log(width=4, block_size=8)
mxint8
mxint8(block_size=4)
mxfp8_e4m3
mxfp8_e5m2
mxfp6_e3m2
mxfp6_e2m3(block_size=16)
mxfp4
mxfp4(block_size=8, axis=0, gradient=mask)
nvfp4
""".strip().splitlines()

NARROW = """
block_fp(width=5, exponent_width=4)
block_fp(width=8, exponent_width=5, exponent_bias=12)
block_minifloat(width=7, exponent_width=3, exponent_bias_width=4)
block_log(width=5, exponent_bias_width=4)
nvfp4(tensor_scale=false)
""".strip().splitlines()

FIXED_IN_PART = ["ternary(threshold=0.5)", "ternary(threshold=2, per=tensor)", "ternary(scaling=false)"]


class TestEveryFormat(FormatConformance):
    @pytest.fixture(params=WIDE)
    def number_format(self, request):
        return parse(request.param)


class TestNarrowSharedExponents(FormatConformance):
    powers = (-1, 1)

    @pytest.fixture(params=NARROW)
    def number_format(self, request):
        return parse(request.param)


class TestThresholdsOrValuesThatAreFixed(FormatConformance):
    powers = ()

    @pytest.fixture(params=FIXED_IN_PART)
    def number_format(self, request):
        return parse(request.param)


def test_every_registered_family_is_covered():
    covered = {parse(text).name for text in (*WIDE, *NARROW, *FIXED_IN_PART)}
    assert covered == {entry.name for entry in FORMATS} - {"float"}


SCALED = ["scaled_integer(width=8)", "scaled_integer(width=4, symmetric=false, per=channel)", "ternary"]
SCALED += ["scaled_integer(width=4, calibration=mse)", "scaled_integer(width=4, calibration=percentile)"]
SCALED += ["scaled_integer(width=4, scale=0.00000001)", "binary_scaling", "binary_residual(levels=3)"]


@each("text", SCALED)
def test_scales_of_half_types_are_those_of_the_same_numbers_in_float32(text):
    number_format = parse(text)
    for dtype in HALF:
        for factor in (1.0, 1e-6, 1e3):  # float16 holds none of the scales of the second
            x = (normal((6, 8)) * factor).to(dtype)
            for of_half, exact in zip(number_format.scales(x), number_format.scales(x.float()), strict=True):
                assert of_half is exact or torch.equal(torch.as_tensor(of_half), torch.as_tensor(exact))
            if isinstance(number_format, ScaledInteger):
                assert number_format.calibrated(x) == number_format.calibrated(x.float())
