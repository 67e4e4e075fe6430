"""An entry in the reports' words becomes one format per slot, or is refused by its key."""

import pytest

from paretobit.errors import BadInput
from paretobit.formats import FORMATS, FULL, Integer, make
from paretobit.passes.layers.entries import SLOTS, slot_formats, split_entry, whole_format


def test_the_reports_keys_make_a_format_per_slot():
    entry = {
        "name": "integer",
        "data_in_width": 8,
        "data_in_frac_width": 4,
        "weight_width": 6,
        "bias_width": 5,
        "bias_frac_width": -1,
        "bias_rounding": "floor",
    }
    expected = {"data_in": Integer(8, 4), "weight": Integer(6, 3), "bias": Integer(5, -1, rounding="floor")}
    assert slot_formats(entry) == slot_formats({"config": entry}) == expected


@pytest.mark.parametrize(
    "value",
    [
        {"width": 8, "frac_width": 3},
        {"name": "integer", "width": 8, "frac_width": 3},
        "integer(width=8, frac_width=3)",
        Integer(8, 3),
    ],
)
def test_a_slot_takes_a_whole_format_however_it_is_written(value):
    assert slot_formats({"weight": value}) == {"weight": Integer(8, 3)}


@pytest.mark.parametrize("name", ["NA", "float"])
def test_na_means_full_precision(name):
    assert slot_formats({"name": name, "weight_width": 8}) == {}
    assert slot_formats({"weight": name}) == {"weight": FULL}
    assert whole_format({"name": name}, None) is FULL


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"data_width": 8}, r"unknown key \(data_width\).*did you mean 'data_in_width'"),
        ({"weigth_width": 8}, r"unknown key \(weigth_width\).*did you mean 'weight_width'"),
        ({"weight_widht": 8}, r"unknown parameter.*\(weight\): found 'widht'.*did you mean 'width'"),
        ({"weight_width": -1}, r"width is out of range \(weight_width\): found -1"),
        ({"weight_frac_width": 3}, r"needs the parameter 'width' \(weight\)"),
        ({"weight": {"width": 8}, "weight_width": 8}, r"both whole and by parameter \(weight\)"),
        ({"weight": 8}, r"not a format \(weight\): found 8"),
        ({"name": "intger", "weight_width": 8}, r"unknown number format.*did you mean 'integer'"),
        ({"name": ["integer"], "weight_width": 8}, r"unknown number format"),
        ({"weight_width": [8, 4]}, r"width is not an integer \(weight_width\): found \[8, 4\]"),
        (8, r"not a table: found 8"),
    ],
)
def test_what_makes_no_format_is_refused_by_its_key(entry, message):
    with pytest.raises(BadInput, match=message):
        slot_formats(entry)


def test_an_entry_is_taken_apart_without_looking_at_its_values():
    entry = split_entry({"name": ["integer", "NA"], "data_in": [1, 2], "weight_width": [4, 8]})
    assert entry.name == ["integer", "NA"]
    assert entry.whole == {"data_in": [1, 2]}
    assert entry.parameters == {"weight": {"width": [4, 8]}}


WITH_WIDTH = {"width": 8}
PARAMETERS = {
    "integer": WITH_WIDTH | {"frac_width": 3, "rounding": "stochastic"},
    "scaled_integer": WITH_WIDTH | {"per": "channel", "symmetric": False, "calibration": "mse"},
    "minifloat_ieee": WITH_WIDTH | {"exponent_width": 4, "exponent_bias": 7},
    "minifloat_denorm": WITH_WIDTH | {"exponent_width": 4, "exponent_bias": 15},
    "log": WITH_WIDTH | {"exponent_bias": 7},
    "block_fp": WITH_WIDTH | {"exponent_width": 8, "exponent_bias": 127, "block_size": [16]},
    "block_minifloat": WITH_WIDTH | {"exponent_width": 4, "exponent_bias_width": 4, "block_size": [1, 16]},
    "block_log": WITH_WIDTH | {"exponent_bias_width": 4, "block_size": "1x16"},
    "binary": {"stochastic": False, "bipolar": True},
    "binary_scaling": {"stochastic": True, "bipolar": False},
    "binary_residual": {"stochastic": False, "bipolar": True, "levels": 3},
    "ternary": {"threshold": 0.1, "scaling": False},
    "nvfp4": {"tensor_scale": False, "block_size": 32},
}


@pytest.mark.parametrize("name", [entry.name for entry in FORMATS if entry.name != "float"])
def test_every_parameter_of_every_format_can_be_given_for_every_slot(name):
    parameters = PARAMETERS.get(name, {"gradient": "mask"})
    entry = {f"{slot}_{key}": value for slot in SLOTS for key, value in parameters.items()}
    assert slot_formats({"name": name, **entry}) == dict.fromkeys(SLOTS, make(name, **parameters))
    assert slot_formats({slot: {"name": name, **parameters} for slot in SLOTS}) == slot_formats({"name": name, **entry})


def test_slots_may_take_different_families():
    entry = {"data_in": "mxfp8_e4m3(block_size=16)", "weight": {"name": "log", "width": 5}, "bias": "bf16"}
    assert [f.name for f in slot_formats(entry).values()] == ["mxfp8_e4m3", "log", "bf16"]


def test_a_name_alone_means_the_data_and_the_weights():
    assert slot_formats({"name": "mxfp4"}) == {"data_in": make("mxfp4"), "weight": make("mxfp4")}
    with pytest.raises(BadInput, match="needs the parameter 'width'"):
        slot_formats({"name": "integer"})


def test_binary_training_belongs_to_the_weights():
    keys = {"data_in_bipolar": True, "weight_bipolar": True, "data_in_stochastic": False}
    formats = slot_formats({"name": "binary", **keys, "binary_training": False})
    assert formats["weight"] == make("binary", bipolar=True, binary_training=False)
    assert formats["data_in"] == make("binary", bipolar=True)
    with pytest.raises(BadInput, match=r"unknown parameter of format 'integer'.*found 'binary_training'"):
        slot_formats({"name": "integer", "weight_width": 8, "binary_training": True})
