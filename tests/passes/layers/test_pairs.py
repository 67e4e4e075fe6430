"""Patterns of formats mean what they say, and a device multiplies the pairs it lists."""

import pytest

from paretobit.errors import BadInput
from paretobit.formats import FULL, Integer, MinifloatIEEE, make
from paretobit.passes.layers.pairs import AllowedPairs, FormatPattern


@pytest.mark.parametrize(
    ("pattern", "number_format", "matches"),
    [
        ("integer", Integer(8, 4), True),
        ("integer(width=8)", Integer(8, 4), True),
        ("integer(width=8)", Integer(18, 4), False),
        ("integer( width = 8 , frac_width = 4 )", Integer(8, 4), True),
        ("integer(width=8, frac_width=4)", Integer(8, 5), False),
        ("integer(signed=false)", Integer(8, 4), False),
        ("integer(signed=false)", Integer(8, 4, signed=False), True),
        ("int*", Integer(8, 4), True),
        ("*", Integer(8, 4), True),
        ("*", FULL, True),
        ("float", FULL, True),
        ("float", Integer(8, 4), False),
        ("mx*", make("mxfp4"), True),
        ("mx*", make("nvfp4"), False),
        ("mxfp?", make("mxfp4"), True),
        ("*(width=8)", MinifloatIEEE(8, 4), True),
        ("*(width=8)", make("mxfp4"), False),
    ],
)
def test_a_pattern_matches_name_and_the_parameters_it_gives(pattern, number_format, matches):
    assert FormatPattern.read(pattern).matches(number_format) is matches


def test_a_product_needs_a_pair_that_is_listed_and_float_is_always_there():
    pairs = AllowedPairs.read([["integer(width=8)", "integer(width=4)"], ["float", "ternary"]])
    assert pairs.allow({"data_in": Integer(8, 4), "weight": Integer(4, 2)})
    assert pairs.allow({"weight": make("ternary")})
    assert pairs.allow({})
    assert not pairs.allow({"data_in": Integer(4, 2), "weight": Integer(8, 4)})
    assert not pairs.allow({"data_in": Integer(8, 4)})
    assert AllowedPairs.read(None).allow({"data_in": Integer(8, 4)})


@pytest.mark.parametrize("text", ["", "integer(width=8", "integer(width)", 8, None, "a-b"])
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(BadInput, match="not a pattern of formats"):
        FormatPattern.read(text)
