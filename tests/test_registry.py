"""Names to things: refused twice, helpful when unknown."""

import pytest

from paretobit.errors import BadInput
from paretobit.registry import Registry


def scale():
    """Multiply.

    By a number.
    """


def shift():
    pass


@pytest.fixture
def filled():
    registry = Registry("step")
    registry.register("scale")(scale)
    registry.register("shift", summary="add a number")(shift)
    return registry


def test_names_keep_their_order_and_values_are_returned_as_they_are(filled):
    assert filled.names() == ["scale", "shift"]
    assert filled["shift"] is shift
    assert Registry("x").register("y")(scale) is scale


def test_the_summary_is_given_or_the_first_line_of_the_docstring(filled):
    assert [entry.summary for entry in filled] == ["Multiply.", "add a number"]


def test_an_unknown_name_lists_the_known_and_the_closest(filled):
    with pytest.raises(BadInput, match=r"unknown step: found 'shfit'; allowed: scale, shift; did you mean 'shift'"):
        filled["shfit"]


@pytest.mark.parametrize("name", [["scale"], {"scale": 1}, 3, None])
def test_what_is_no_name_is_unknown_too(filled, name):
    assert name not in filled
    with pytest.raises(BadInput, match="unknown step"):
        filled[name]


def test_a_name_registered_twice_names_both_sides(filled):
    with pytest.raises(BadInput, match=r"two steps are registered as 'scale'") as failure:
        filled.register("scale")(shift)
    assert f"{__name__}.shift" in str(failure.value)
    assert f"{__name__}.scale" in str(failure.value)
    assert filled["scale"] is scale
