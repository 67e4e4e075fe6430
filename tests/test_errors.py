"""An error names the place, what was found, what is allowed and the closest match, in any process."""

import copy
import pickle

import pytest

from paretobit.errors import (
    BadInput,
    CheckpointMismatch,
    MetricError,
    MissingExtra,
    ParetoBitError,
    StudyError,
    closest_match,
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


def test_a_place_is_filled_in_only_where_none_was_known():
    error = BadInput("bad", key="inner").located("f.toml", "outer", 4)
    assert (error.source, error.key, error.line) == ("f.toml", "inner", 4)
    assert error.located("g.toml", None, 9).line == 4


def test_allowed_names_may_come_from_any_iterable():
    assert BadInput("bad", found="a", allowed=(name for name in "ab")).allowed == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "closest"),
    [("linaer", "linear"), ("LINEAR", "linear"), ("relu6", "ReLU"), ("conv", None), ("", None)],
)
def test_the_closest_match_ignores_case_and_is_none_when_nothing_is_near(name, closest):
    assert closest_match(name, ["linear", "ReLU"]) == closest


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ParetoBitError, 1),
        (MetricError, 1),
        (StudyError, 1),
        (BadInput, 2),
        (CheckpointMismatch, 2),
    ],
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
