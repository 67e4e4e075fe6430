"""Jet data: two lineages, their layouts, never mixed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paretobit.data import DataSettings, jsc, load
from paretobit.errors import BadInput, ParetoBitError

ROWS = 60
X = np.random.default_rng(0).normal(size=(ROWS, 16)).astype(np.float32)
Y = np.arange(ROWS) % 5


def arff(path: Path) -> Path:
    """The OpenML layout, columns in another order than the field's."""
    order = list(reversed(range(16)))
    head = ["% jets", "@RELATION jets", "", *(f"@ATTRIBUTE {jsc.FEATURES[i]} REAL" for i in order)]
    rows = [",".join([*(repr(float(X[r, i])) for i in order), jsc.CLASSES[Y[r]]]) for r in range(ROWS)]
    path.write_text("\n".join([*head, "@ATTRIBUTE 'class' {g, q, w, z, t}", "@DATA", *rows, ""]))
    return path


def hdf5(path: Path, rows: slice = slice(None), prefix: str = "j_") -> Path:
    h5py = pytest.importorskip("h5py", reason="h5py is an optional package")
    names = [*(prefix + name for name in jsc.FEATURES), "j_index", *(f"j_{c}" for c in jsc.CLASSES)]
    values = np.column_stack([X, np.arange(ROWS), np.eye(5)[Y]])[rows]
    table = np.array([tuple(row) for row in values], dtype=[(name, "f8") for name in names])
    with h5py.File(path, "w") as file:
        file["t_allpar_new"] = table
    return path


def same_jets(raw: Any) -> bool:
    labels = raw.y.argmax(1) if raw.y.ndim == 2 else np.array([jsc.CLASSES.index(name) for name in raw.y])
    return np.allclose(raw.x, X) and np.array_equal(labels, Y)


def test_the_openml_file_is_read_in_the_order_of_the_field(tmp_path: Path) -> None:
    raw = jsc.read(arff(tmp_path / "jets.arff"))
    assert same_jets(raw)
    assert raw.notes["lineage"] == "openml"


def test_a_csv_export_is_of_the_openml_lineage(tmp_path: Path) -> None:
    path = tmp_path / "jets.csv"
    rows = [",".join([*map(repr, X[r].tolist()), jsc.CLASSES[Y[r]]]) for r in range(ROWS)]
    path.write_text("\n".join([",".join([*jsc.FEATURES, "class"]), *rows]))
    raw = jsc.read(path)
    assert same_jets(raw)
    assert raw.notes["lineage"] == "openml"


@pytest.mark.parametrize("prefix", ["j_", ""])
def test_hdf5_files_are_read_with_and_without_prefix(tmp_path: Path, prefix: str) -> None:
    raw = jsc.read(hdf5(tmp_path / "jets.h5", prefix=prefix), lineage="hdf5")
    assert same_jets(raw)
    assert raw.notes["lineage"] == "hdf5"


def test_a_table_without_fields_needs_column_names(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is an optional package")
    with h5py.File(tmp_path / "jets.h5", "w") as file:
        file["t_allpar_new"] = np.column_stack([np.eye(5)[Y], X])
    with pytest.raises(BadInput, match="no names"):
        jsc.read(tmp_path / "jets.h5")
    with h5py.File(tmp_path / "jets.h5", "a") as file:
        file["t_allpar_new"].attrs["names"] = [*(f"j_{c}" for c in jsc.CLASSES), *jsc.FEATURES]
    assert same_jets(jsc.read(tmp_path / "jets.h5"))


def test_a_folder_is_joined_in_order_of_name(tmp_path: Path) -> None:
    hdf5(tmp_path / "b.h5", slice(20, None))
    hdf5(tmp_path / "a.h5", slice(0, 20))
    assert same_jets(jsc.read(tmp_path))


def test_jets_load_with_all_five_classes(tmp_path: Path) -> None:
    data = load(DataSettings(name=f"jsc:{arff(tmp_path / 'jets.arff')}"))
    assert (data.classes, data.input_shape) == (jsc.CLASSES, (16,))
    assert data.preprocessing["lineage"] == "openml"


def test_lineages_are_never_mixed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"other lineage.*found 'openml'; allowed: hdf5"):
        jsc.read(arff(tmp_path / "jets.arff"), lineage="hdf5")
    hdf5(tmp_path / "a.h5")
    with pytest.raises(BadInput, match=r"HDF5 lineage only.*jets.arff"):
        jsc.read(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@ATTRIBUTE zlogz REAL", "@ATTRIBUTE other REAL", "missing.*zlogz"),
        ("@DATA", "", "not an ARFF"),
        ("'class'", "kind", "no such attribute"),
        (",g\n", ",x\n", "unknown class.*'x'"),
        (",g\n", ",g,g\n", "cells in a row.*jets.arff:"),
    ],
)
def test_a_file_of_another_layout_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = arff(tmp_path / "jets.arff")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BadInput, match=message):
        jsc.read(path)


def test_files_that_are_no_jets_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("no")
    (tmp_path / "a.txt").write_text("no")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "a.h5": "not an HDF5",
        "a.txt": "unknown kind",
        "b.h5": "no such",
        "empty": "no HDF5",
    }.items():
        with pytest.raises(BadInput, match=message):
            jsc.read(tmp_path / name)


def test_without_data_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETOBIT_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match=r"jsc:PATH.*download = true"):
        load(DataSettings(name="jsc"))
    with pytest.raises(BadInput, match="cannot be fetched"):
        load(DataSettings(name="jsc", lineage="hdf5", download=True))
    with pytest.raises(BadInput, match="nothing is downloaded"):
        load(DataSettings(name="jsc", path=str(tmp_path), download=True))


def test_the_description_leads_to_the_file_and_the_cache_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = arff(tmp_path / "served.arff")
    md5 = hashlib.md5(served.read_bytes()).hexdigest()
    description = tmp_path / "description.json"
    description.write_text(json.dumps({"data_set_description": {"url": served.as_uri(), "md5_checksum": md5}}))
    monkeypatch.setenv("PARETOBIT_CACHE", str(tmp_path / "cache"))
    jsc.download_openml(tmp_path / "cache" / jsc.CACHED_NAME, description.as_uri())
    served.unlink()
    assert same_jets(jsc.read(None))


def test_a_strange_description_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text("[]")
    with pytest.raises(ParetoBitError, match="not a description"):
        jsc.download_openml(tmp_path / "t.arff", (tmp_path / "d.json").as_uri())
