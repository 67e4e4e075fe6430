"""Tables of text: a header line, a label column, numeric features."""

import csv
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from paretobit.data.raw import RawData
from paretobit.errors import BadInput

LABEL_NAMES = ("label", "class", "target", "y")


def read_table(path: Path, delimiter: str, label: str | int | None = None) -> RawData:
    """A csv or tsv file.

    Args:
        path: The file, UTF-8.
        delimiter: One character.
        label: Label column by name or index (from 0; negative from the end); None for the column named as
            one of `LABEL_NAMES` in any case, otherwise the last.

    Raises:
        BadInput: No header, a row of another length, a feature that is no number; the line is named.
    """
    with opened(path) as lines:
        reader = csv.reader(lines, delimiter=delimiter)
        header = [name.strip() for name in next(reader, [])]
        check_header(header, path)
        where = label_column(header, label, path)
        return read_rows(numbered(reader, path), header, where, path)


def read_rows(rows: Iterable[tuple[int, list[str]]], names: list[str], label: int, path: Path) -> RawData:
    """Rows of cells as features and text labels.

    Args:
        rows: Line number and cells of each row.
        names: Column names.
        label: Index of the label column.
        path: File named in errors.

    Raises:
        BadInput: A row of another length, an empty label, a feature that is no number.
    """
    features = array("f")
    feature_names = [name for place, name in enumerate(names) if place != label]
    labels: list[str] = []
    line_of = array("q")
    known: dict[str, str] = {}
    for line, cells in rows:
        if len(cells) != len(names):
            raise BadInput("cells in a row", source=path, line=line, found=len(cells), allowed=f"{len(names)}")
        text = cells.pop(label).strip()
        if not text:
            raise BadInput("the label is empty", source=path, line=line, key=names[label])
        line_of.append(line)
        labels.append(known.setdefault(text, text))  # one string per class, not per row
        try:
            features.extend(map(float, cells))
        except ValueError:
            raise _bad_cell(cells, feature_names, path, line) from None
    x = np.asarray(features, dtype=np.float32).reshape(len(labels), len(feature_names))
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        row, column = bad[0].tolist()
        problem = f"NaN or infinity in {len(bad)} cells"
        raise BadInput(
            problem,
            source=path,
            line=line_of[row],
            key=f"column '{feature_names[column]}'",
            found=x[row, column].item(),
        )
    notes = {"features": feature_names}
    return RawData(x, np.asarray(labels, dtype=np.str_), source=str(path), notes=notes)


def label_column(names: list[str], label: str | int | None, path: Path) -> int:
    """Index of the label column; see `read_table`.

    Raises:
        BadInput: There is no such column.
    """
    if label is None:
        return next((i for i, name in enumerate(names) if name.lower() in LABEL_NAMES), len(names) - 1)
    if label in names:
        return names.index(str(label))
    try:
        return range(len(names))[int(label)]
    except (ValueError, IndexError):
        raise BadInput("no such column", source=path, key="data.label", found=label, allowed=names) from None


@contextmanager
def opened(path: Path) -> Iterator[Iterable[str]]:
    """The lines of a file, UTF-8.

    Raises:
        BadInput: Inside the block something was read that is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            yield lines
    except UnicodeDecodeError as error:
        raise BadInput(f"not UTF-8 text: {error}", source=path) from None


def numbered(reader: Iterable[list[str]], path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row of a reader of the module csv that is not empty.

    Raises:
        BadInput: The reader finds no table.
    """
    rows = iter(reader)
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as error:
            raise BadInput(f"not a table: {error}", source=path, line=getattr(reader, "line_num", None)) from None
        if cells is None:
            return
        if cells:
            yield getattr(reader, "line_num", 0), cells


def check_header(header: list[str], path: Path) -> None:
    """Refuse a first line that cannot be column names.

    Raises:
        BadInput: Fewer than two, all of them numbers, or two of one name.
    """
    if len(header) < 2:
        allowed = "a header line with a label column and one or more features"
        raise BadInput("too few columns", source=path, line=1, found=header, allowed=allowed)
    if all(_is_number(name) for name in header):
        raise BadInput("the first line holds numbers, not column names", source=path, line=1, found=header)
    doubled = [name for i, name in enumerate(header) if name in header[:i]]
    if doubled:
        raise BadInput("two columns of one name", source=path, line=1, found=doubled[0])


def _bad_cell(cells: list[str], names: list[str], path: Path, line: int) -> BadInput:
    name, cell = next((name, cell) for name, cell in zip(names, cells, strict=True) if not _is_number(cell))
    problem = "not a number (sentences are read by the source text)"
    return BadInput(problem, source=path, line=line, key=f"column '{name}'", found=cell, allowed="a number")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
