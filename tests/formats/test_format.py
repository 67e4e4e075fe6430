"""What every format promises: round trips through text, refusals that help, full precision as it is."""

import copy
import dataclasses
import pickle

import pytest
import torch

import paretobit.formats as formats
from paretobit.errors import BadInput
from paretobit.formats import FORMATS, FULL, FullPrecision, Integer, make, parse

SOME = [
    FULL,
    Integer(8),
    Integer(8, 4),
    Integer(8, -2),
    Integer(4, 10, signed=False),
    Integer(64, 120, True, "floor"),
    Integer(1, 0, False, "floor"),
]


@pytest.mark.parametrize("number_format", SOME, ids=str)
def test_text_and_dictionary_bring_the_format_back(number_format):
    assert parse(str(number_format)) == number_format
    assert make(**number_format.to_dict()) == number_format
    assert pickle.loads(pickle.dumps(number_format)) == number_format
    assert hash(copy.deepcopy(number_format)) == hash(number_format)


def test_formats_are_written_as_the_reader_would():
    assert str(FULL) == "float"
    assert str(Integer(8)) == "integer(width=8, frac_width=4)"
    assert str(Integer(8, 3, False, "floor")) == "integer(width=8, frac_width=3, signed=false, rounding=floor)"


@pytest.mark.parametrize(
    "text", ["integer(width=8,frac_width=4)", " integer( width = 8 , frac_width = 4 ) ", "integer(width=8)"]
)
def test_spaces_do_not_matter(text):
    assert parse(text) == Integer(8, 4)


@pytest.mark.parametrize("text", ["integer(width=8", "integer(8)", "integer", "integer()", "integr(width=8)", "", 8])
def test_what_is_no_format_is_refused(text):
    with pytest.raises(BadInput):
        parse(text)


def test_full_precision_is_one_object_however_it_comes_about():
    for same in (parse("float"), make("float"), FullPrecision(), copy.deepcopy(FULL), copy.copy(FULL)):
        assert same is FULL
    assert pickle.loads(pickle.dumps(FULL)) is FULL


def test_full_precision_returns_the_tensor_itself():
    x = torch.randn(3, requires_grad=True)
    assert FULL.quantize(x) is x
    assert FULL.bits((3, 4)) == 3 * 4 * 32
    assert FULL.describe().maximum == torch.finfo(torch.float32).max
    with pytest.raises(BadInput, match="cannot be enumerated"):
        FULL.codes()


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("intger", {"width": 8}, r"unknown number format: found 'intger'.*did you mean 'integer'"),
        ("integer", {"widht": 8}, r"unknown parameter of format 'integer'.*did you mean 'width'"),
        ("integer", {}, r"needs the parameter 'width'"),
        ("integer", {"frac_width": 3}, r"needs the parameter 'width': found \['frac_width'\]"),
        ("integer", {"width": -8}, r"width is out of range \(width\): found -8; allowed: 1 to 64"),
        ("integer", {"width": 0}, r"\(width\): found 0"),
        ("integer", {"width": 65}, r"\(width\): found 65"),
        ("integer", {"width": 8.0}, r"\(width\): found 8\.0"),
        ("integer", {"width": True}, r"\(width\): found True"),
        ("integer", {"width": "8"}, r"\(width\): found '8'"),
        ("integer", {"width": None}, r"\(width\): found None"),
        ("integer", {"width": [8]}, r"\(width\): found \[8\]"),
        ("integer", {"width": 8, "frac_width": 121}, r"\(frac_width\): found 121; allowed: -120 to 120"),
        ("integer", {"width": 8, "frac_width": 1.5}, r"\(frac_width\): found 1\.5"),
        ("integer", {"width": 8, "signed": 1}, r"true or false \(signed\): found 1"),
        ("integer", {"width": 8, "rounding": "nearst"}, r"\(rounding\).*did you mean 'nearest'"),
        ("float", {"width": 8}, r"unknown parameter of format 'float'"),
    ],
)
def test_make_refuses_what_no_format_takes(name, parameters, message):
    with pytest.raises(BadInput, match=message):
        make(name, **parameters)


def test_formats_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Integer(8).width = 4


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool])
def test_only_floating_point_is_quantised(dtype):
    with pytest.raises(TypeError, match=str(dtype)):
        Integer(8).quantize(torch.zeros(3, dtype=dtype))


def test_every_registered_format_is_public_and_described():
    for entry in FORMATS:
        assert getattr(formats, entry.value.__name__) is entry.value
        assert entry.value.name == entry.name
        assert entry.summary
