"""Jet substructure classification: two lineages of one task, never mixed.

Both hold 16 features of simulated jets and five classes. Models score about one point apart on them, so
the lineage is part of what a result says.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from paretobit.data.delimited import read_rows, read_table
from paretobit.data.download import Progress, cache_folder, fetch, progress_bar
from paretobit.data.raw import Array, RawData
from paretobit.errors import BadInput, ParetoBitError
from paretobit.runtime import optional

Lineage = Literal["openml", "hdf5"]

FEATURES = [
    *("zlogz", "c1_b0_mmdt", "c1_b1_mmdt", "c1_b2_mmdt", "c2_b1_mmdt", "c2_b2_mmdt", "d2_b1_mmdt", "d2_b2_mmdt"),
    *("d2_a1_b1_mmdt", "d2_a1_b2_mmdt", "m2_b1_mmdt", "m2_b2_mmdt", "n2_b1_mmdt", "n2_b2_mmdt", "mass_mmdt"),
    "multiplicity",
]
CLASSES = ("g", "q", "t", "w", "z")
TABLE = "t_allpar_new"
DESCRIPTION_URL = "https://www.openml.org/api/v1/json/data/42468"
CACHED_NAME = "hls4ml_lhc_jets_hlf.arff"

_SUFFIXES: dict[str, Lineage] = {".arff": "openml", ".csv": "openml", ".h5": "hdf5", ".hdf5": "hdf5"}
_HOW = "jsc:PATH to the OpenML file (.arff, .csv) or to the HDF5 files (.h5 or their folder), or download = true"


def read(path: Path | None, lineage: Lineage | None = None, download: bool = False) -> RawData:
    """The jets under `path`, or the OpenML ones from the cache or the network.

    Args:
        path: An .arff, .csv, .h5 or .hdf5 file, or a folder of HDF5 files, joined in order of name.
        lineage: The expected lineage; None for what the suffix says.
        download: Fetch the OpenML file where no path is given and the cache lacks it.

    Raises:
        BadInput: No path and no download, a file of the other lineage, or columns missing.
        ParetoBitError: The download failed.
    """
    if path is None:
        path = _openml_file(lineage, download)
    elif download:
        raise BadInput("a path is given, so nothing is downloaded", key="data.download", found=True)
    if not path.exists():
        raise BadInput("no such file or folder", key="data.name", found=str(path))
    files = _files_in(path) if path.is_dir() else [path]
    found = _SUFFIXES.get(files[0].suffix.lower())
    if found is None:
        raise BadInput("unknown kind of file", source=path, found=path.suffix, allowed=list(_SUFFIXES))
    if lineage is not None and lineage != found:
        raise BadInput(
            "the file is of the other lineage", source=path, key="data.lineage", found=found, allowed=lineage
        )
    return _read_hdf5(files) if found == "hdf5" else _read_openml(path)


def download_openml(target: Path, description_url: str = DESCRIPTION_URL, progress: Progress | None = None) -> Path:
    """Fetch the file that OpenML's description names, verified by the checksum it states.

    Raises:
        ParetoBitError: The download failed, or the description is not the expected one.
    """
    described = fetch(description_url, target.with_suffix(".json"))
    try:
        description = json.loads(described.read_text(encoding="utf-8"))["data_set_description"]
        url, md5 = description["url"], description["md5_checksum"]
    except (ValueError, KeyError, TypeError) as error:
        raise ParetoBitError(f"{description_url} is not a description of an OpenML data set: {error!r}") from error
    return fetch(url, target, md5, progress)


def _openml_file(lineage: Lineage | None, download: bool) -> Path:
    if lineage == "hdf5":
        raise BadInput("the HDF5 lineage cannot be fetched", key="data.name", found="jsc", allowed="jsc:PATH")
    target = cache_folder() / CACHED_NAME
    if target.is_file():
        return target
    if not download:
        raise BadInput("no jet data", key="data.name", found="jsc", allowed=_HOW)
    with progress_bar("jet data from OpenML") as progress:
        return download_openml(target, progress=progress)


def _files_in(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise BadInput("no HDF5 files in the folder", source=folder, allowed="*.h5, *.hdf5")
    for file in files:
        if _SUFFIXES[file.suffix.lower()] != "hdf5":
            raise BadInput("a folder holds the HDF5 lineage only", source=folder, found=file.name)
    return files


def _read_openml(path: Path) -> RawData:
    raw = read_table(path, ",", "class") if path.suffix.lower() == ".csv" else _read_arff(path)
    names = list(raw.notes["features"])
    columns = [_position(name, names, path) for name in FEATURES]
    strays = np.setdiff1d(raw.y, CLASSES).tolist()
    if strays:
        raise BadInput("unknown class", source=path, found=strays[0], allowed=CLASSES)
    return _jets(raw.x[:, columns], raw.y, "openml", str(path))


def _read_arff(path: Path) -> RawData:
    try:
        with path.open(encoding="utf-8") as lines:
            numbered = enumerate(lines, 1)
            names = _arff_header(numbered, path)
            if "class" not in names:
                raise BadInput("no such attribute", source=path, found="class", allowed=names)
            return read_rows(_arff_rows(numbered), names, names.index("class"), path)
    except UnicodeDecodeError as error:
        raise BadInput(f"not UTF-8 text: {error}", source=path) from None


def _arff_header(lines: Iterator[tuple[int, str]], path: Path) -> list[str]:
    """Attribute names; leaves `lines` behind `@data`."""
    names: list[str] = []
    for _, line in lines:
        if re.match(r"\s*@data\b", line, re.IGNORECASE):
            return names
        if found := re.match(r"""\s*@attribute\s+(?:"([^"]*)"|'([^']*)'|(\S+))\s""", line, re.IGNORECASE):
            names.append((found[1] or found[2] or found[3]).strip())
    raise BadInput("not an ARFF file", source=path, allowed="@attribute lines, then @data")


def _arff_rows(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines:
        text = line.strip()
        if text and not text.startswith("%"):
            yield number, [cell.strip().strip("'\"") for cell in text.split(",")]


def _read_hdf5(files: list[Path]) -> RawData:
    pieces = [_read_hdf5_file(file) for file in files]
    source = str(files[0] if len(files) == 1 else files[0].parent)
    return _jets(np.concatenate([x for x, _ in pieces]), np.concatenate([y for _, y in pieces]), "hdf5", source)


def _read_hdf5_file(path: Path) -> tuple[Array, Array]:
    """Features N×16 and one-hot labels N×5 of one file."""
    h5py = optional("h5py", extra="hdf5", purpose="the HDF5 lineage of the jet data")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise BadInput(f"not an HDF5 file: {error}", source=path) from None
    with file:
        if TABLE not in file:
            raise BadInput("no such data set in the file", source=path, found=list(file), allowed=[TABLE])
        table = file[TABLE]
        names = _column_names(table, path)
        wanted = [names[_position(name, names, path)] for name in (*FEATURES, *(f"j_{c}" for c in CLASSES))]
        if table.dtype.names:
            fields = table.fields(wanted)[:]  # one pass over the file, wanted columns only
            columns = np.stack([fields[name] for name in wanted], axis=1).astype(np.float32)
        else:
            columns = table[:][:, [names.index(name) for name in wanted]].astype(np.float32)
    return columns[:, : len(FEATURES)], columns[:, len(FEATURES) :]


def _column_names(table: Any, path: Path) -> list[str]:
    if table.dtype.names:
        return list(table.dtype.names)
    for key in ("names", "columns"):
        if key in table.attrs and table.ndim == 2 and len(table.attrs[key]) == table.shape[1]:
            return [name.decode() if isinstance(name, bytes) else str(name) for name in table.attrs[key]]
    allowed = "named fields, or two axes and an attribute 'names' or 'columns'"
    raise BadInput("columns have no names", source=path, key=TABLE, allowed=allowed)


def _position(name: str, names: list[str], path: Path) -> int:
    """Where a column stands; some files put `j_` before every name."""
    for spelling in (name, f"j_{name}"):
        if spelling in names:
            return names.index(spelling)
    raise BadInput("a column of the jet data is missing", source=path, key=name, found=names, allowed=[name])


def _jets(x: Array, y: Array, lineage: Lineage, source: str) -> RawData:
    notes = {"lineage": lineage, "features": list(FEATURES)}
    return RawData(x, y, classes=CLASSES, source=source, notes=notes)
