"""Sources: names, files, functions, and how they are refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paretobit.data import SOURCES, DataSettings, load
from paretobit.data.raw import RawData
from paretobit.data.sources import read
from paretobit.errors import BadInput


def test_every_source_says_what_it_is() -> None:
    assert SOURCES.names() == ["digits", "npz", "csv", "tsv", "jsc", "text", "docstrings", "glue", "imdb", "datasets"]
    assert all(entry.summary for entry in SOURCES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "digit"}, "did you mean 'digits'"),
        ({"name": "npz"}, "needs a file.*npz:PATH"),
        ({"name": "npz:missing.npz"}, "no such file.*missing.npz"),
        ({"name": "npz:a.npz", "path": "b.npz"}, "given twice"),
        ({"name": "digits:a"}, "takes no path"),
        ({"name": "digits", "path": "a"}, "does not heed.*data.path"),
        ({"name": "digits", "label": 0}, "does not heed.*data.label"),
        ({"name": "npz:a.npz", "download": True}, "does not heed.*data.download"),
        ({"name": "csv:a.csv", "lineage": "hdf5"}, "does not heed.*data.lineage"),
        ({"name": "missing.py:data"}, "no such file"),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load(DataSettings(**settings))


def test_the_path_may_be_a_setting_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(40, 2)), Y=np.arange(40) % 2)
    apart, joined = DataSettings(name="npz", path=str(path)), DataSettings(name=f"npz:{path}")
    assert load(apart).fingerprint == load(joined).fingerprint


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.zeros((4, 2))}, "missing y.*found \\['X'\\]"),
        ({"images": np.zeros((4, 2))}, "missing x, y"),
        ({"X": np.zeros((4, 2)), "y": np.zeros(4), "X_test": np.zeros((4, 2))}, "missing y_test"),
        ({"X": np.zeros((4, 2)), "y": np.zeros(4), "y_tset": np.zeros(4)}, "unknown key y_tset"),
        ({"X": np.zeros((4, 2)), "x_train": np.zeros((4, 2)), "y": np.zeros(4)}, "two keys"),
        ({"X": np.array([{}, {}]), "y": np.zeros(2)}, "nothing is unpickled"),
    ],
)
def test_an_archive_without_the_arrays_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BadInput, match=message):
        load(DataSettings(name=f"npz:{tmp_path}/a.npz"))


def test_a_file_that_is_no_archive_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(pickle.dumps({"X": 1}))
    with pytest.raises(BadInput, match="not an npz"):
        load(DataSettings(name=f"npz:{path}"))


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, X=np.random.default_rng(0).normal(size=(500, 2)), y=np.arange(500) % 2)
    content = bytearray(path.read_bytes())
    content[200:300] = bytes(100)
    path.write_bytes(bytes(content))
    with pytest.raises(BadInput, match="damaged"):
        load(DataSettings(name=f"npz:{path}"))


FUNCTIONS = """
import numpy as np, torch
x, y = np.arange(80.0).reshape(40, 2), np.arange(40) % 2
def pair(): return x, y
def four(): return x, y, x[:4], y[:4]
def tensors(): return {"x_train": torch.tensor(x), "y_train": torch.tensor(y), "classes": ["no", "yes"]}
def random(): return np.random.rand(40, 2), y
def three(): return x, y, x
def nothing(): pass
def ragged(): return [[1], [1, 2]], [0, 1]
def fails(): raise KeyError("gone")
number = 3
"""


@pytest.fixture
def functions(tmp_path: Path) -> str:
    path = tmp_path / "functions.py"
    path.write_text(FUNCTIONS)
    return str(path)


def test_a_function_returns_arrays_or_tensors(functions: str) -> None:
    assert len(load(DataSettings(name=f"{functions}:pair")).test) == 6
    assert len(load(DataSettings(name=f"{functions}:four")).test) == 4
    assert load(DataSettings(name=f"{functions}:tensors")).classes == ("no", "yes")


def test_a_random_function_is_fixed_by_the_seed(functions: str) -> None:
    first, again = (load(DataSettings(name=f"{functions}:random", seed=3)) for _ in range(2))
    assert first.fingerprint == again.fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three", "found 'tuple of 3'; allowed: \\(x, y\\)"),
        ("nothing", "found 'NoneType'"),
        ("ragged", "not an array"),
        ("fails", "the function failed: KeyError: 'gone'"),
        ("number", "not a function"),
        ("absent", "defines no such name"),
    ],
)
def test_a_function_that_returns_something_else_is_refused(functions: str, name: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load(DataSettings(name=f"{functions}:{name}"))


def test_a_source_of_a_plug_in_may_take_a_path_and_any_key(monkeypatch, tmp_path):
    heard = []

    def mine(settings, path):
        heard.append((settings.label, path))
        return RawData(np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1]))

    monkeypatch.setattr(SOURCES, "_entries", dict(SOURCES._entries))
    SOURCES.register("mine", summary="zeros")(mine)
    read(DataSettings(name=f"mine:{tmp_path}", label="y"))
    assert heard == [("y", tmp_path)]
