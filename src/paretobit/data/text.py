"""Sentences with a label: tables of them, and what becomes of them once they are split."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from paretobit.data.delimited import LABEL_NAMES, check_header, numbered, opened
from paretobit.data.raw import Array, RawData
from paretobit.data.settings import SPLIT, DataSettings
from paretobit.data.tokenizer import WORDPIECE, Text, again, open_tokenizer, padded, train_wordpiece
from paretobit.errors import BadInput
from paretobit.graph import two_rows

TEXT_NAMES = ("text", "sentence", "review", "content")
PARTS = {"train": ("train",), "val": ("dev", "val", "validation"), "test": ("test",)}
"""Split to what files of it are called."""
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_IMAGE_SETTINGS = ("mean", "std", "standardize", "crop_padding", "flip")


def read_text(path: Path | None, settings: DataSettings) -> RawData:
    """Sentences and labels from one table, or from one for each split.

    Args:
        path: A table; a folder whose tables are called after splits (`train.tsv`, `sst2_dev.tsv`); or
            a path with `{split}` in it. A `.csv` file has commas and may have quotes, a `.tsv` or
            `.txt` file has tabs and quotes mean nothing. UTF-8, with a header line.
        settings: `label` and `text` name the columns.

    Raises:
        BadInput: No such file, no such column, a row of another length, an empty label or sentence.
    """
    if path is None:
        allowed = f"text:PATH, a file, a folder, or a path with {SPLIT}"
        raise BadInput("'text' needs a file", key="data.name", found="text", allowed=allowed)
    files = _files(path)
    parts = {part: _read_table(file, settings) for part, file in files.items()}
    return from_parts(parts, str(path))


def from_parts(
    parts: Mapping[str, tuple[Sequence[Text], Sequence[Any]]],
    source: str,
    classes: Sequence[str] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> RawData:
    """Sentences and labels of `train`, and of `val` and `test` where there are such."""
    arrays: dict[str, Array] = {}
    for part, (texts, labels) in parts.items():
        suffix = "" if part == "train" else f"_{part}"
        x = np.empty(len(texts), dtype=object)
        for place, text in enumerate(texts):  # one by one: numpy would make two columns of pairs
            x[place] = text
        arrays |= {f"x{suffix}": x, f"y{suffix}": np.asarray(labels)}
    return RawData(**arrays, classes=classes, source=source, notes=notes or {})


def tokenised(
    texts: Mapping[str, Array], settings: DataSettings, source: str | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Token ids of every split, and what was done, JSON-able.

    Args:
        texts: Per split, `train` among them, N sentences or pairs. Only those of `train` are learnt from.
        settings: Which tokenizer.
        source: File named in errors.

    Returns:
        Per split token ids N×T, int64, in the order given, T the longest row of all splits; and what
        becomes part of `Data.preprocessing`: what `encode` needs, mean tokens of a training row, and how
        many rows were cut.

    Raises:
        BadInput: Settings that do not fit sentences, or a tokenizer that cannot be made.
        MissingExtra: tokenizers or transformers is not installed.
    """
    _refuse(settings, _IMAGE_SETTINGS, "sentences do not heed this setting", source)
    if settings.tokenizer == WORDPIECE:
        train = texts["train"].tolist()
        tokenizer = train_wordpiece(train, settings.vocab_size, settings.max_tokens, settings.lowercase)
    else:
        _refuse(settings, ("vocab_size", "lowercase"), f"only {WORDPIECE} heeds this setting", source)
        tokenizer = open_tokenizer(settings.tokenizer, settings.max_tokens)
    rows, cut = {}, {}
    for part, given in texts.items():
        rows[part], cut[part] = tokenizer.ids(given.tolist())
    width = max(1, *(len(row) for part in rows.values() for row in part))
    mean = sum(map(len, rows["train"])) / len(rows["train"])
    described = {
        "kind": "tokens",
        **tokenizer.describe(),
        "tokens_per_row": round(mean, 2),
        "rows_cut": {part: cut[part] for part in PARTS if cut.get(part)},
    }
    return {part: padded(ids, tokenizer.pad, width) for part, ids in rows.items()}, described


def encode(preprocessing: Mapping[str, Any], texts: Sequence[Text]) -> Tensor:
    """Sentences as a saved model takes them.

    Args:
        preprocessing: Of the data it was trained on: `Data.preprocessing`, or that of its `model.json`.
        texts: Sentences, or pairs of them.

    Returns:
        Token ids N×T, int64, T the longest row; longer sentences than the data's `max_tokens` are cut.

    Raises:
        BadInput: The data was no text.
        MissingExtra: tokenizers is not installed.
    """
    tokenizer = again(preprocessing)
    return padded(tokenizer.ids(texts)[0], tokenizer.pad)


def lengths(x: Tensor, pad: int) -> Tensor:
    """Tokens of each row without the padding at its end, (N,) int64."""
    places = torch.arange(1, x.shape[1] + 1, device=x.device)
    return torch.where(x == pad, 0, places).amax(1)


def typical_rows(x: Tensor, pad: int) -> Tensor:
    """The first row whose number of tokens is nearest the mean, and another cut to its length, 2×T, no padding.

    What a model costs on the first is what it costs per sentence: use them as the example of a trace.

    Args:
        x: Token ids N×T.
        pad: What fills them up.
    """
    tokens = lengths(x, pad)
    nearest = int((tokens - tokens.double().mean()).abs().argmin())
    length = max(1, int(tokens[nearest]))
    longer = x[tokens >= length, :length]
    return two_rows(torch.cat([x[nearest : nearest + 1, :length], longer]))


def by_length(x: Tensor, pad: int) -> Tensor:
    """Row numbers, shortest rows first, equal ones in order: batches of them have little padding."""
    return lengths(x, pad).argsort(stable=True)


def _files(path: Path) -> dict[str, Path]:
    """Split to file."""
    if SPLIT in str(path):
        return _filled_in(str(path))
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        raise BadInput("no such file", key="data.name", found=str(path), allowed=_neighbours(path))
    return {"train": path}


def _filled_in(pattern: str) -> dict[str, Path]:
    found = {}
    for part, names in PARTS.items():
        there = [file for name in names if (file := Path(pattern.replace(SPLIT, name))).is_file()]
        if len(there) > 1:
            raise BadInput(f"two files of {part}", key="data.name", found=[str(file) for file in there])
        if there:
            found[part] = there[0]
    if "train" not in found:
        wanted = Path(pattern.replace(SPLIT, "train"))
        raise BadInput("no such file", key="data.name", found=str(wanted), allowed=_neighbours(wanted))
    return found


def _in_folder(folder: Path) -> dict[str, Path]:
    tables = sorted(file for file in folder.iterdir() if file.suffix.lower() in _DELIMITERS)
    found: dict[str, Path] = {}
    for file in tables:
        words = re.split(r"[^a-z]+", file.stem.lower())
        part = next((part for part, names in PARTS.items() if set(names) & set(words)), None)
        if part in found:
            both = [found[part].name, file.name]
            raise BadInput(f"two files of {part}", source=folder, found=both, allowed=f"a path with {SPLIT}")
        if part is not None:
            found[part] = file
    if "train" not in found:
        names, allowed = [file.name for file in tables], "train.tsv; with it dev.tsv and test.tsv"
        raise BadInput("no file called after a split", source=folder, found=names, allowed=allowed)
    return found


def _neighbours(path: Path) -> list[str]:
    """What one may have meant: tables of the same folder."""
    if not path.parent.is_dir():
        return []
    return sorted(str(file) for file in path.parent.iterdir() if file.suffix.lower() in _DELIMITERS)


def _read_table(path: Path, settings: DataSettings) -> tuple[list[str], list[str]]:
    """Sentences and labels of a table, in order."""
    delimiter = _DELIMITERS.get(path.suffix.lower())
    if delimiter is None:
        raise BadInput("a table of unknown kind", key="data.name", found=path.name, allowed=list(_DELIMITERS))
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    texts, labels = [], []
    with opened(path) as lines:
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting)
        header = [name.strip() for name in next(reader, [])]
        check_header(header, path)
        text, label = columns(header, settings, path)
        for line, cells in _rows(reader, header, path):
            for place in (text, label):
                if not cells[place].strip():
                    problem = f"an empty {'sentence' if place == text else 'label'}"
                    raise BadInput(problem, source=path, line=line, key=f"column '{header[place]}'")
            texts.append(cells[text].strip())
            labels.append(cells[label].strip())
    return texts, labels


def _rows(reader: Any, header: list[str], path: Path) -> Iterator[tuple[int, list[str]]]:
    for line, cells in numbered(reader, path):
        if len(cells) != len(header):
            found, allowed = len(cells), str(len(header))
            raise BadInput("cells in a row", source=path, line=line, found=found, allowed=allowed)
        yield line, cells


def columns(header: list[str], settings: DataSettings, source: str | Path) -> tuple[int, int]:
    """Places of the sentence's column and of the label's.

    Columns that are not set are found by name, in any case; of two columns, the sentence is the other one.

    Raises:
        BadInput: There is no such column, or both are the same.
    """
    label = _column(header, settings.label, LABEL_NAMES, "label", source)
    if settings.text is None and len(header) == 2:
        return 1 - label, label
    text = _column(header, settings.text, TEXT_NAMES, "text", source)
    if text == label:
        raise BadInput("label and sentence are one column", source=source, key="data.text", found=header[text])
    return text, label


def _column(header: list[str], wanted: str | int | None, known: Sequence[str], key: str, source: str | Path) -> int:
    if wanted is None:
        named = [place for place, name in enumerate(header) if name.lower() in known]
        if len(named) == 1:
            return named[0]
        problem = f"which column is the {key}? {'several' if named else 'none'} called {' or '.join(known)}"
        raise BadInput(problem, source=source, key=f"data.{key}", found=header)
    if wanted in header:
        return header.index(str(wanted))
    try:
        return range(len(header))[int(wanted)]
    except (ValueError, IndexError):
        raise BadInput("no such column", source=source, key=f"data.{key}", found=wanted, allowed=header) from None


def _refuse(settings: DataSettings, keys: Sequence[str], problem: str, source: str | None) -> None:
    for key in keys:
        value = getattr(settings, key)
        if value != DataSettings.model_fields[key].default:
            raise BadInput(problem, source=source, key=f"data.{key}", found=value)
