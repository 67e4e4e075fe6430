"""Labelled sentences through the package `datasets`: GLUE, IMDb, and any set it can load."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paretobit.data.raw import RawData
from paretobit.data.settings import DataSettings
from paretobit.data.text import PARTS, columns, from_parts
from paretobit.data.tokenizer import Text
from paretobit.errors import BadInput, first_line
from paretobit.runtime import optional

GLUE: Mapping[str, tuple[str, ...]] = {
    "cola": ("sentence",),
    "mnli": ("premise", "hypothesis"),
    "mrpc": ("sentence1", "sentence2"),
    "qnli": ("question", "sentence"),
    "qqp": ("question1", "question2"),
    "rte": ("sentence1", "sentence2"),
    "sst2": ("sentence",),
    "wnli": ("sentence1", "sentence2"),
}
"""Task to its columns of sentences. STS-B is none: its labels are no classes."""
_GLUE_NAME, _IMDB_NAME = "nyu-mll/glue", "stanfordnlp/imdb"
_VALIDATION_OF = {"mnli": "validation_matched"}
_HIDDEN = -1
"""Label of rows whose label is not published."""


def read_glue(task: str, settings: DataSettings) -> RawData:
    """A task of GLUE. Labels of its test sets are not published: test rows are drawn from the training rows.

    Raises:
        BadInput: No such task, or it cannot be loaded.
        MissingExtra: The package is not installed.
    """
    if task not in GLUE:
        raise BadInput("no such task of GLUE", key="data.name", found=task, allowed=list(GLUE))
    for key in ("label", "text"):
        if getattr(settings, key) is not None:
            problem = "glue does not heed this setting"
            raise BadInput(problem, key=f"data.{key}", found=getattr(settings, key))
    sets = _loaded(_GLUE_NAME, task)
    chosen = {"train": sets["train"], "val": sets[_VALIDATION_OF.get(task, "validation")]}
    return _raw(chosen, GLUE[task], "label", f"glue:{task}")


def read_imdb(settings: DataSettings) -> RawData:
    """The film reviews of IMDb with their own test set.

    Raises:
        BadInput: It cannot be loaded.
        MissingExtra: The package is not installed.
    """
    sets = _loaded(_IMDB_NAME)
    return _raw({part: sets[part] for part in ("train", "test")}, ("text",), "label", "imdb")


def read_datasets(name: str, settings: DataSettings) -> RawData:
    """A set that `datasets` loads: a folder with files per split, or a name on HuggingFace's hub.

    A test set without labels is left out, and test rows are drawn instead.

    Args:
        name: Folder or name.
        settings: `label` and `text` name the columns.

    Raises:
        BadInput: It cannot be loaded, has no training rows, or no such columns.
        MissingExtra: The package is not installed.
    """
    where = Path(name).expanduser()
    sets = _loaded(str(where) if where.exists() else name)
    chosen = {}
    for part, names in PARTS.items():
        found = next((given for given in names if given in sets), None)
        if found is not None:
            chosen[part] = sets[found]
    if "train" not in chosen:
        raise BadInput("no training rows", source=name, found=sorted(sets), allowed=["train"])
    header = list(chosen["train"].column_names)
    text, label = columns(header, settings, name)
    return _raw(chosen, (header[text],), header[label], name)


def _loaded(name: str, *more: str) -> Any:
    """Split to rows."""
    package = optional("datasets", extra="text", purpose="this data set")
    try:
        return package.load_dataset(name, *more)
    except Exception as error:  # network, files, formats: each in its own way
        problem = f"datasets cannot load it: {first_line(error)}"
        raise BadInput(problem, key="data.name", found=" ".join((name, *more))) from error


def _raw(sets: Mapping[str, Any], text: Sequence[str], label: str, source: str) -> RawData:
    """Rows of `datasets` as sentences, or pairs of them, and labels."""
    parts: dict[str, tuple[list[Text], list[Any]]] = {}
    for part, rows in sets.items():
        absent = [column for column in (*text, label) if column not in rows.column_names]
        if absent:
            problem, allowed = f"no such column in the {part} set", list(rows.column_names)
            raise BadInput(problem, source=source, found=absent[0], allowed=allowed)
        labels = list(rows[label])
        if part == "test" and all(value == _HIDDEN or value is None for value in labels):
            continue
        bad = next((place for place, value in enumerate(labels) if value is None or value == _HIDDEN), None)
        if bad is not None:
            raise BadInput(f"a row of the {part} set has no label", source=source, line=bad + 1)
        columns_of_text = [list(rows[column]) for column in text]
        for column, sentences in zip(text, columns_of_text, strict=True):
            bad = next((place for place, sentence in enumerate(sentences) if not isinstance(sentence, str)), None)
            if bad is not None:
                problem, found = f"no sentence in a row of the {part} set", type(sentences[bad]).__name__
                raise BadInput(problem, source=source, line=bad + 1, key=f"column '{column}'", found=found)
        texts: list[Text] = columns_of_text[0] if len(text) == 1 else list(zip(*columns_of_text, strict=True))
        parts[part] = (texts, labels)
    names = getattr(sets["train"].features.get(label), "names", None)
    return from_parts(parts, source, classes=names)
