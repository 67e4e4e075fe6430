"""Where data comes from: one loader per name, and a function of the user's."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from paretobit.data import hub, jsc
from paretobit.data.delimited import read_table
from paretobit.data.docstrings import read_docstrings
from paretobit.data.raw import ALLOWED_KEYS, Array, RawData, from_arrays
from paretobit.data.settings import DataSettings
from paretobit.data.text import read_text
from paretobit.errors import BadInput
from paretobit.registry import Registry
from paretobit.runtime import is_reference, load_function, seeded

Loader = Callable[[DataSettings, Path | None], RawData]
SOURCES: Registry[Loader] = Registry("data source")

# Settings that only some sources heed; elsewhere they are an error, not a no-op.
_TEXTS = ("text", "glue", "imdb", "datasets", "docstrings")
_ONLY_FOR = {
    "label": ("csv", "tsv", "text", "datasets"),
    "text": ("text", "datasets"),
    "tokenizer": _TEXTS,
    "vocab_size": _TEXTS,
    "max_tokens": _TEXTS,
    "lowercase": _TEXTS,
    "lineage": ("jsc",),
    "download": ("jsc",),
    "path": ("npz", "csv", "tsv", "jsc", "text", "glue", "datasets"),
}


def read(settings: DataSettings) -> RawData:
    """Raw arrays from the source that `settings.name` names: `name`, `name:PATH`, or `file.py:function`.

    Raises:
        BadInput: The source is unknown, unreadable, or does not heed a setting that is set.
    """
    if is_reference(settings.name):
        _refuse_ignored(settings, "a function")
        return from_function(settings.name, settings.seed)
    name, colon, path = settings.name.partition(":")
    if name not in SOURCES:
        allowed = [*SOURCES.names(), "path/to/file.py:function"]
        raise BadInput("unknown data source", key="data.name", found=name, allowed=allowed)
    _refuse_ignored(settings, name)
    if colon and name in _OWN and name not in _ONLY_FOR["path"]:
        raise BadInput(f"'{name}' takes no path", key="data.name", found=settings.name, allowed=[name])
    if path and settings.path:
        raise BadInput("the path is given twice", key="data.path", found=[path, settings.path])
    chosen = path or settings.path
    return SOURCES[name](settings, Path(chosen).expanduser() if chosen else None)


def _refuse_ignored(settings: DataSettings, source: str) -> None:
    for key, heeding in _ONLY_FOR.items() if source in _OWN else ():
        value = getattr(settings, key)
        if source not in heeding and value != DataSettings.model_fields[key].default:
            problem = f"{source} does not heed this setting"
            raise BadInput(problem, key=f"data.{key}", found=value, allowed=f"with {', '.join(heeding)}")


@SOURCES.register("digits", summary="1,797 handwritten digits, 1×8×8, ten classes; comes with scikit-learn")
def _digits(settings: DataSettings, path: Path | None) -> RawData:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = found.images.astype(np.float32)[:, None] / 16
    return RawData(images, found.target, notes={"source_scale": 1 / 16})


@SOURCES.register("npz", summary="NumPy archive with X and y, or X_train, y_train, X_test, y_test")
def _npz(settings: DataSettings, path: Path | None) -> RawData:
    path = existing_file(path, "npz")
    if not zipfile.is_zipfile(path):
        raise BadInput("not an npz archive", source=path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return from_arrays(lambda key: _entry(archive, key, path), archive.files, str(path))
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise BadInput(f"the archive is damaged: {error}", source=path) from None


def _entry(archive: Any, key: str, path: Path) -> Array:
    try:
        return np.asarray(archive[key])
    except ValueError as error:
        problem = "holds Python objects or is damaged; nothing is unpickled here"
        raise BadInput(problem, source=path, key=key, allowed="numbers or strings") from error


@SOURCES.register("csv", summary="table with a header line, a label column and numeric features")
def _csv(settings: DataSettings, path: Path | None) -> RawData:
    return read_table(existing_file(path, "csv"), ",", settings.label)


@SOURCES.register("tsv", summary="the same with tabs")
def _tsv(settings: DataSettings, path: Path | None) -> RawData:
    return read_table(existing_file(path, "tsv"), "\t", settings.label)


@SOURCES.register("jsc", summary="jet substructure, 16 features, five classes: OpenML 42468 or the HDF5 files")
def _jsc(settings: DataSettings, path: Path | None) -> RawData:
    return jsc.read(path, settings.lineage, settings.download)


@SOURCES.register("text", summary="sentences with a label: a table, or one for each split; see tokenizer")
def _text(settings: DataSettings, path: Path | None) -> RawData:
    return read_text(path, settings)


@SOURCES.register("docstrings", summary="sentences of docstrings of scikit-learn and torch: from which?")
def _docstrings(settings: DataSettings, path: Path | None) -> RawData:
    return read_docstrings()


@SOURCES.register("glue", summary="a task of GLUE (glue:sst2) through the package datasets")
def _glue(settings: DataSettings, path: Path | None) -> RawData:
    return hub.read_glue(_named(path, "glue", "glue:sst2"), settings)


@SOURCES.register("imdb", summary="film reviews of IMDb, two classes, through the package datasets")
def _imdb(settings: DataSettings, path: Path | None) -> RawData:
    return hub.read_imdb(settings)


@SOURCES.register("datasets", summary="sentences from a folder or name that the package datasets loads")
def _datasets(settings: DataSettings, path: Path | None) -> RawData:
    return hub.read_datasets(_named(path, "datasets", "datasets:NAME"), settings)


def _named(path: Path | None, source: str, allowed: str) -> str:
    if path is None:
        raise BadInput(f"'{source}' needs a name", key="data.name", found=source, allowed=allowed)
    return str(path)


def from_function(reference: str, seed: int) -> RawData:
    """Arrays or tensors from a function of no arguments, called under `seed`.

    It returns (x, y), or (x_train, y_train, x_test, y_test), or a dict with the keys of an npz.

    Raises:
        BadInput: The function is missing, fails, or returns anything else.
    """
    function = load_function(reference)
    if not callable(function):
        raise BadInput("not a function", source=reference, found=type(function).__name__)
    try:
        with seeded(seed):
            returned = function()
    except (Exception, SystemExit) as error:
        raise BadInput(f"the function failed: {type(error).__name__}: {error}", source=reference) from error
    keys = {2: ("x", "y"), 4: ("x_train", "y_train", "x_test", "y_test")}
    if isinstance(returned, tuple | list) and len(returned) in keys:
        returned = dict(zip(keys[len(returned)], returned, strict=True))
    if not isinstance(returned, dict) or not all(isinstance(key, str) for key in returned):
        size = f" of {len(returned)}" if isinstance(returned, tuple | list | dict) else ""
        allowed = f"(x, y), or (x_train, y_train, x_test, y_test), or a dict with {ALLOWED_KEYS}"
        found = f"{type(returned).__name__}{size}"
        raise BadInput("the function returned something else", source=reference, found=found, allowed=allowed)
    return from_arrays(returned.__getitem__, list(returned), reference)


def existing_file(path: Path | None, source: str) -> Path:
    """`path`, if it is a file.

    Raises:
        BadInput: No path was given, or there is no file.
    """
    if path is None:
        raise BadInput(f"'{source}' needs a file", key="data.name", found=source, allowed=f"{source}:PATH")
    if not path.is_file():
        problem = "not a file" if path.exists() else "no such file"
        raise BadInput(problem, key="data.name", found=str(path))
    return path


_OWN = frozenset(SOURCES.names())
"""Those of which it is known what they heed; a plug-in's may heed everything."""
