"""Sentences through the package `datasets`, in whose place stands one with its interface."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from paretobit.data import Data, DataSettings, load
from paretobit.data.tokenizer import again
from paretobit.errors import BadInput, MissingExtra

WORDS = ["fine", "dull", "warm", "cold"]
Rows = dict[str, list[Any]]


class Table:
    """Rows as `datasets` has them: a column by name, and what is known of each."""

    def __init__(self, rows: Rows, names: list[str] | None) -> None:
        self._rows = rows
        self.column_names = list(rows)
        self.features = {key: SimpleNamespace(names=names) if key == "label" else object() for key in rows}

    def __getitem__(self, column: str) -> list[Any]:
        return self._rows[column]


def rows(count: int, *columns: str) -> Rows:
    texts = {c: [f"{c} {WORDS[i % 4]}" for i in range(count)] for c in columns}
    return {**texts, "label": [i % 2 for i in range(count)], "idx": list(range(count))}


Offer = Callable[..., list[tuple[str, ...]]]


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Puts a package in the place of `datasets` that has these sets, and lists what it is asked for."""

    def put(names: list[str] | None = None, **sets: Rows) -> list[tuple[str, ...]]:
        asked: list[tuple[str, ...]] = []

        def load_dataset(*arguments: str) -> dict[str, Table]:
            asked.append(arguments)
            return {part: Table(given, names) for part, given in sets.items()}

        package = ModuleType("datasets")
        package.load_dataset = load_dataset  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "datasets", package)
        return asked

    return put


def loaded(name: str, **settings: Any) -> Data:
    return load(DataSettings(name=name, vocab_size=90, **settings))


def sentences(data: Data) -> list[str]:
    own = again(data.preprocessing).own
    return [own.decode(row, skip_special_tokens=False) for row in data.val.x.tolist()]


def test_a_task_of_glue_is_loaded_by_name(offer: Offer) -> None:
    hidden = {**rows(10, "sentence"), "label": [-1] * 10}
    asked = offer(["negative", "positive"], train=rows(60, "sentence"), validation=rows(8, "sentence"), test=hidden)
    data = loaded("glue:sst2", test_fraction=0.2)
    assert asked == [("nyu-mll/glue", "sst2")]
    assert data.classes == ("negative", "positive")
    assert [len(split) for split in data.splits] == [48, 8, 12]  # the published test set has no labels
    assert data.val.y.tolist() == [0, 1] * 4


def test_two_sentences_are_one_row_with_a_mark_between_them(offer: Offer) -> None:
    sets = {part: rows(40, "premise", "hypothesis") for part in ("train", "validation_matched")}
    asked = offer(None, **sets)
    data = loaded("glue:mnli")
    assert asked == [("nyu-mll/glue", "mnli")]
    assert sentences(data)[1].startswith("[CLS] premise dull [SEP] hypothesis dull [SEP]")


def test_imdb_comes_with_its_test_set(offer: Offer) -> None:
    asked = offer(["neg", "pos"], train=rows(40, "text"), test=rows(20, "text"), unsupervised=rows(4, "text"))
    data = loaded("imdb", val_fraction=0.25)
    assert asked == [("stanfordnlp/imdb",)]
    assert [len(split) for split in data.splits] == [30, 10, 20]


def test_any_set_is_loaded_with_its_columns_named(offer: Offer, tmp_path: Path) -> None:
    asked = offer(None, train=rows(40, "words", "title"), test=rows(20, "words", "title"))
    data = loaded(f"datasets:{tmp_path}", text="words")
    assert asked == [(str(tmp_path),)]
    assert sentences(data)[0].startswith("[CLS] words")
    with pytest.raises(BadInput, match=r"no such column.*data\.text.*did you mean 'words'"):
        loaded("datasets:some/where", text="word")


@pytest.mark.parametrize(
    ("name", "sets", "message"),
    [
        ("glue:sst3", {}, r"no such task of GLUE.*did you mean 'sst2'"),
        ("glue", {}, r"'glue' needs a name.*glue:sst2"),
        ("datasets:a", {"test": rows(4, "text")}, r"no training rows.*found \['test'\]"),
        ("datasets:a", {"train": {"text": ["a", None], "label": [0, 1]}}, r"no sentence in a row.*a:2.*NoneType"),
        ("datasets:a", {"train": {"text": ["a", "b"], "label": [0, -1]}}, r"a row of the train set has no label"),
        ("imdb", {"train": rows(4, "text"), "test": rows(4, "words")}, r"no such column in the test set.*'text'"),
    ],
)
def test_what_cannot_be_sentences_is_refused(offer: Offer, name: str, sets: dict[str, Rows], message: str) -> None:
    offer(None, **sets)
    with pytest.raises(BadInput, match=message):
        loaded(name)


def test_what_the_package_objects_to_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*arguments: str) -> None:
        raise ConnectionError("no network")

    package = ModuleType("datasets")
    package.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", package)
    with pytest.raises(BadInput, match=r"datasets cannot load it: ConnectionError: no network.*nyu-mll/glue sst2"):
        loaded("glue:sst2")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    for name in ("glue:sst2", "imdb", "datasets:some/where"):
        with pytest.raises(MissingExtra, match=r"needs the package 'datasets': pip install 'paretobit\[text\]'"):
            loaded(name)


def test_of_a_list_of_sources_the_package_must_be_there(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text("label\ttext\n")
    pattern = f"text:{tmp_path}/{{split}}.tsv"
    assert DataSettings.model_validate({"name": [pattern, "digits"]}).name == pattern
    for absent in (f"text:{tmp_path}/gone_{{split}}.tsv", "glue:sst2" if not _has_datasets() else "csv:gone"):
        assert DataSettings.model_validate({"name": [absent, "digits"]}).name == "digits"


def _has_datasets() -> bool:
    return find_spec("datasets") is not None
