"""An error names the place, what was found, what is allowed and the closest match, in any process."""

import copy
import pickle
from pathlib import Path

import pytest

from paretobit.errors import (
    BadInput,
    CheckpointMismatch,
    MetricError,
    MissingExtra,
    ParetoBitError,
    StudyError,
    closest_match,
    located,
    under,
)


def test_bad_input_names_file_line_key_found_allowed_and_the_closest_match():
    error = BadInput(
        "unknown key", source="lab.toml", key="train.epocs", line=7, found="epocs", allowed=["epochs", "seed"]
    )
    assert str(error) == (
        "unknown key (lab.toml:7, train.epocs): found 'epocs'; allowed: epochs, seed; did you mean 'epochs'?"
    )


@pytest.mark.parametrize(
    ("details", "text"),
    [
        ({}, "bad"),
        ({"line": 3}, "bad (line 3)"),
        ({"key": "k"}, "bad (k)"),
        ({"source": "f"}, "bad (f)"),
        ({"found": None}, "bad: found None"),
        ({"allowed": "1 to 64"}, "bad: allowed: 1 to 64"),
        ({"found": "x", "allowed": []}, "bad: found 'x'; allowed: nothing"),
        ({"found": "linaer", "allowed": "linear"}, "bad: found 'linaer'; allowed: linear"),
    ],
)
def test_only_what_is_known_is_said(details, text):
    assert str(BadInput("bad", **details)) == text


def raised_in(place, **details):
    """What comes out of a block that refuses something."""
    refused = BadInput("bad", **details)
    with pytest.raises(BadInput) as caught, place:
        raise refused
    assert caught.value is refused
    return refused


@pytest.mark.parametrize(
    ("key", "placed"), [("width", "seed.width"), ("seed.w", "seed.seed.w"), (None, "seed"), ("", "seed")]
)
def test_an_error_below_a_place_has_its_key_prefixed(key, placed):
    assert raised_in(under("seed"), key=key).key == placed


def test_places_within_places_are_read_from_the_outside_in():
    with pytest.raises(BadInput) as caught, under("search"), under("seed"), under("fc1"):
        raise BadInput("bad", key="width")
    assert caught.value.key == "search.seed.fc1.width"


@pytest.mark.parametrize(
    ("key", "placed"),
    [("lr", "train.lr"), ("lr.a", "train.lr.a"), ("lrs", "lrs"), ("model.lr", "model.lr"), (None, None)],
)
def test_only_errors_about_the_named_keys_are_below_a_place(key, placed):
    assert raised_in(under("train", {"lr": 1}), key=key).key == placed


def test_a_place_is_filled_in_only_where_none_was_known():
    error = raised_in(located(Path("f.toml"), "outer"), key="inner", line=4)
    assert (error.source, error.key, error.line) == ("f.toml", "inner", 4)
    error = raised_in(located(key="outer"), source="g.toml")
    assert (error.source, error.key) == ("g.toml", "outer")
    error = raised_in(located("f.toml"), source="g.toml")
    assert (error.source, error.key) == ("g.toml", None)


@pytest.mark.parametrize("place", [under("seed"), located("f.toml", "seed")], ids=["under", "located"])
def test_a_placed_error_shows_no_chain(place):
    error = raised_in(place)
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize("place", [under("seed"), located("f.toml", "seed")], ids=["under", "located"])
def test_what_is_no_bad_input_is_not_placed(place):
    with pytest.raises(MetricError) as caught, place:
        raise MetricError("bad")
    assert vars(caught.value) == {}
    assert str(caught.value) == "bad"


def test_allowed_names_may_come_from_any_iterable():
    assert BadInput("bad", found="a", allowed=(name for name in "ab")).allowed == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "closest"), [("linaer", "linear"), ("LINEAR", "linear"), ("relu6", "ReLU"), ("conv", None), ("", None)]
)
def test_the_closest_match_ignores_case_and_is_none_when_nothing_is_near(name, closest):
    assert closest_match(name, ["linear", "ReLU"]) == closest


@pytest.mark.parametrize(
    ("kind", "code"), [(ParetoBitError, 1), (MetricError, 1), (StudyError, 1), (BadInput, 2), (CheckpointMismatch, 2)]
)
def test_exit_codes_follow_the_tree(kind, code):
    assert kind("x").exit_code == code
    assert issubclass(kind, ParetoBitError)


def test_a_missing_extra_is_bad_input_that_says_how_to_install_it():
    error = MissingExtra("h5py", "hdf5", "reading HDF5")
    assert str(error) == "reading HDF5 needs the package 'h5py': pip install 'paretobit[hdf5]'"
    assert isinstance(error, BadInput)


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize(
    "error",
    [
        BadInput("bad"),
        BadInput("bad", key="k", line=2, source="f", found="lina", allowed=["line"]),
        MissingExtra("h5py", "hdf5", "reading HDF5"),
        CheckpointMismatch("the weights do not fit", source="w.pt"),
    ],
)
def test_errors_say_the_same_after_travelling_between_processes(error, travel):
    arrived = travel(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
