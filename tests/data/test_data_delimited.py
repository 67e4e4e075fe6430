"""Tables: the label column is found, and every bad cell is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paretobit.data import DataSettings, load
from paretobit.data.delimited import read_table
from paretobit.errors import BadInput


def write(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("header", "label", "column"),
    [
        ("a,b,c", None, 2),
        ("a,Class,c", None, 1),
        ("TARGET,b,c", None, 0),
        ("a,b,c", "b", 1),
        ("a,b,c", 1, 1),
        ("a,b,c", "-3", 0),
        ("a,y,c", "c", 2),
    ],
)
def test_the_label_column_is_found(tmp_path: Path, header: str, label: Any, column: int) -> None:
    raw = read_table(write(tmp_path, f"{header}\n1,2,3\n4,5,6\n"), ",", label)
    assert raw.y.tolist() == [str(1 + column), str(4 + column)]
    assert raw.x.shape == (2, 2)
    assert raw.notes["features"] == [n for i, n in enumerate(header.split(",")) if i != column]


def test_a_table_becomes_a_data_set(tmp_path: Path) -> None:
    rows = "".join(f"{i}\t{i / 2}\t{'yes' if i % 2 else 'no'}\n" for i in range(60))
    path = write(tmp_path, "a\tb\tlabel\n" + rows)
    data = load(DataSettings(name=f"tsv:{path}"))
    assert data.classes == ("no", "yes")
    assert data.input_shape == (2,)
    assert sum(map(len, data.splits)) == 60


def test_quotes_blank_lines_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    raw = read_table(write(tmp_path, '\ufeffa,"y"\n"1","x, y"\n\n2,z\n'), ",")
    assert raw.x.tolist() == [[1], [2]]
    assert raw.y.tolist() == ["x, y", "z"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,y\n1,2,0\n1,two,1\n", "table.csv:3, column 'b'\\): found 'two'"),
        ("a,b,y\n1,2,0\n1,,1\n", "read by the source text.*found ''"),
        ("a,b,y\n1,2,0\n1,1\n", "cells in a row.*table.csv:3.*found 2; allowed: 3"),
        ("a,b,y\n\n1,2,\n", "label is empty.*table.csv:3, y"),
        ("a,a,y\n1,2,0\n", "two columns of one name.*'a'"),
        ("1,2,0\n1,2,1\n", "not column names"),
        ("y\n1\n", "too few columns"),
        ("", "too few columns"),
    ],
)
def test_a_bad_table_is_refused_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_table(write(tmp_path, text), ",")


def test_a_label_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for label in ("colour", 7):
        with pytest.raises(BadInput, match=r"no such column.*allowed: a, b"):
            read_table(write(tmp_path, "a,b\n1,2\n"), ",", label)


def test_what_is_not_a_number_in_any_row_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a,y\n" + "1,0\n2,1\n" * 10 + "nan,1\n")
    with pytest.raises(BadInput, match=r"NaN or infinity in 1 cells \(.*:22, column 'a'\): found nan"):
        load(DataSettings(name=f"csv:{path}"))


def test_binary_content_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,y\n\xff\xfe,1\n")
    with pytest.raises(BadInput, match="not UTF-8"):
        read_table(path, ",")


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="empty"):
        load(DataSettings(name=f"csv:{write(tmp_path, 'a,y')}"))
