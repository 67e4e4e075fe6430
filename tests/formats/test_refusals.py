"""Element formats refuse what is no parameter of theirs, with its name, what was found and what is allowed.

(Those of scaled integers, binary, ternary and block formats stand with their own tests.)
"""

import pytest

from paretobit.errors import BadInput
from paretobit.formats import make

STANDARDS = ["fp8_e4m3", "fp8_e5m2", "fp6_e3m2", "fp6_e2m3", "fp4_e2m1", "bf16", "fp16"]


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("integer", {"width": 8, "rounding": "stochastically"}, r"\(rounding\).*allowed: nearest, floor, stochastic"),
        ("integer", {"width": 8, "gradient": "clip"}, r"unknown gradient \(gradient\): found 'clip'; allowed: pass"),
        ("minifloat_ieee", {"width": 8}, r"needs the parameter 'exponent_width'"),
        ("minifloat_ieee", {"exponent_width": 4}, r"needs the parameter 'width'"),
        ("minifloat_ieee", {"width": 4, "exponent_width": 4}, r"\(width\): found 4; allowed: 5 to 32"),
        ("minifloat_ieee", {"width": 33, "exponent_width": 8}, r"\(width\): found 33"),
        ("minifloat_ieee", {"width": 8, "exponent_width": 0}, r"\(exponent_width\): found 0; allowed: 1 to 8"),
        ("minifloat_ieee", {"width": 16, "exponent_width": 9}, r"\(exponent_width\): found 9"),
        ("minifloat_ieee", {"width": 8.0, "exponent_width": 4}, r"width is not an integer \(width\): found 8\.0"),
        ("minifloat_ieee", {"width": 8, "exponent_width": "4"}, r"\(exponent_width\): found '4'"),
        ("minifloat_ieee", {"width": 8, "exponent_width": 4, "exponent_bias": 401}, r"allowed: -126 to 400"),
        ("minifloat_ieee", {"width": 8, "exponent_width": 4, "exponent_bias": 7.5}, r"\(exponent_bias\): found 7\.5"),
        ("minifloat_ieee", {"width": 8, "exponent_width": 4, "exponent_bias": 300}, r"no value .* float32 number"),
        ("minifloat_ieee", {"width": 8, "exponent_width": 4, "bias": 7}, r"found 'bias'.*allowed: width"),
        ("minifloat_denorm", {"width": 5, "exponent_width": 4}, r"\(width\): found 5; allowed: 6 to 32"),
        ("minifloat_denorm", {"width": 8, "exponent_width": True}, r"\(exponent_width\): found True"),
        ("minifloat_denorm", {"width": 8, "exponent_width": 4, "exponent_bias": -127}, r"\(exponent_bias\)"),
        ("log", {}, r"needs the parameter 'width'"),
        ("log", {"width": 1}, r"\(width\): found 1; allowed: 2 to 32"),
        ("log", {"width": 33}, r"\(width\): found 33"),
        ("log", {"width": 8, "exponent_bias": -127}, r"\(exponent_bias\): found -127"),
        ("log", {"width": 4, "exponent_bias": 500}, r"no value of this format is a float32 number \(exponent_bias\)"),
        ("block_fp", {"width": 8, "exponent_width": 4, "exponent_bias": 400}, r"no value .* float32 number"),
        ("log", {"width": 8, "exponent_width": 7}, r"unknown parameter of format 'log': found 'exponent_width'"),
        ("minifloat_iee", {"width": 8}, r"unknown number format.*did you mean 'minifloat_ieee'"),
        ("fp8", {}, r"unknown number format: found 'fp8'; allowed: "),
    ],
)
def test_bad_parameters_are_refused_with_what_is_allowed(name, parameters, message):
    with pytest.raises(BadInput, match=message):
        make(name, **parameters)


@pytest.mark.parametrize("name", STANDARDS)
def test_what_a_standard_fixes_is_no_parameter(name):
    with pytest.raises(BadInput, match=f"unknown parameter of format '{name}': found 'width'; allowed: gradient"):
        make(name, width=8)
    with pytest.raises(BadInput, match=r"unknown gradient \(gradient\): found None"):
        make(name, gradient=None)


@pytest.mark.parametrize("bias", [None, 2100])
def test_powers_beyond_float64_are_not_enumerated(bias):
    assert len(make("log", width=11).codes()) == 2**11 - 1
    with pytest.raises(BadInput, match="whose values float64 holds"):
        make("log", width=12, exponent_bias=bias).codes()
