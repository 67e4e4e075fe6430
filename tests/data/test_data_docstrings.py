"""Sentences that are always there: the same again, and without what would give the answer away."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
import sklearn.cluster
import torch

from paretobit.data import DataSettings, load
from paretobit.data.docstrings import PACKAGES, first_sentence, read_docstrings
from paretobit.data.raw import RawData
from paretobit.data.sources import read
from paretobit.data.text import encode
from paretobit.data.tokenizer import again
from paretobit.errors import BadInput

FILES = "text:$PARETOBIT_TEST_DATA/sst2_sentences_{split}.tsv"


@pytest.fixture(scope="module")
def raw() -> RawData:
    return read_docstrings()


def test_there_are_enough_sentences_of_both_packages(raw: RawData) -> None:
    assert raw.is_text
    assert raw.classes == tuple(PACKAGES) == ("scikit-learn", "torch")
    counts = {name: int((raw.y == name).sum()) for name in PACKAGES}
    assert min(counts.values()) >= 500
    assert sum(counts.values()) == len(raw.x) >= 1000
    assert raw.notes["versions"].keys() == {"scikit-learn", "torch"}


def test_no_sentence_comes_twice_or_names_its_package(raw: RawData) -> None:
    texts = raw.x.tolist()
    assert len(set(texts)) == len(texts)
    for text in texts:
        assert not any(name in text.lower() for name in ("torch", "sklearn", "scikit")), text
        assert len(text.split()) >= 3
        assert "\n" not in text


@pytest.mark.parametrize(
    ("thing", "package"), [(sklearn.cluster.KMeans.fit, "scikit-learn"), (torch.nn.Linear, "torch")]
)
def test_documented_things_are_found_under_their_package(raw: RawData, thing: object, package: str) -> None:
    asked = first_sentence(inspect.getdoc(thing) or "")
    assert raw.y[raw.x.tolist().index(asked)] == package


def test_the_first_sentence_is_the_docstrings_own() -> None:
    source = 'def f():\n    """Sum of `a` and ``b``,\n    as torch.add says.  Not this.\n\n    Nor this.\n    """'
    text = ast.get_docstring(ast.parse(source).body[0])  # type: ignore[arg-type]
    assert first_sentence(text or "") == "Sum of a and b, as add says."
    assert first_sentence("Half of x, e.g. y. And more.") == "Half of x, e.g. y."
    assert first_sentence("") == ""


def test_the_same_again_and_through_the_tokenizer_of_text() -> None:
    settings = DataSettings(name="docstrings", vocab_size=500, max_tokens=20, limit=300)
    data = load(settings)
    assert load(settings).fingerprint == data.fingerprint
    assert data.classes == ("scikit-learn", "torch")
    assert data.tokens == {"vocab_size": data.preprocessing["vocab_size"], "pad": 0}
    assert data.train.x.dtype == torch.int64
    assert data.train.x.shape[1] <= 20
    row = encode(data.preprocessing, ["Compute the loss."])[0]
    assert "loss" in again(data.preprocessing).own.decode(row.tolist())


def test_it_stands_in_where_no_file_of_sentences_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARETOBIT_TEST_DATA", raising=False)
    assert DataSettings(name=[FILES, "docstrings"]).name == "docstrings"  # type: ignore[arg-type]
    monkeypatch.setenv("PARETOBIT_TEST_DATA", str(tmp_path))
    assert DataSettings(name=[FILES, "docstrings"]).name == "docstrings"  # type: ignore[arg-type]
    (tmp_path / "sst2_sentences_train.tsv").write_text("label\ttext\n")
    chosen = DataSettings(name=[FILES, "docstrings"]).name  # type: ignore[arg-type]
    assert chosen == f"text:{tmp_path}/sst2_sentences_{{split}}.tsv"


def test_it_takes_no_path_and_no_columns() -> None:
    with pytest.raises(BadInput, match="takes no path"):
        read(DataSettings(name="docstrings:here"))
    with pytest.raises(BadInput, match="does not heed"):
        read(DataSettings(name="docstrings", label="package"))
