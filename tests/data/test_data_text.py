"""Sentences become token ids that the training split alone decides, and come back from what is saved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from paretobit.data import Data, DataSettings, load
from paretobit.data.text import encode, lengths
from paretobit.data.tokenizer import again
from paretobit.errors import BadInput, MissingExtra

GOOD = ["a fine film", "warm , funny and true", "what a joy", "truly good"]
BAD = ["a dull mess", "cold and slow", "what a bore", "truly bad , unfunny"]


def write(path: Path, times: int = 5, header: str = "label\ttext", extra: str = "") -> Path:
    rows = [f"{label}\t{text}{extra}" for _ in range(times) for label, text in [*(("1", t) for t in GOOD),
            *(("0", t) for t in BAD)]]  # fmt: skip
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def loaded(path: Path | str, **settings: Any) -> Data:
    return load(DataSettings(**{"name": f"text:{path}", "vocab_size": 80, **settings}))


def words(data: Data, row: list[int]) -> str:
    return str(again(data.preprocessing).own.decode(row))


def test_one_table_is_split_like_any_other(tmp_path: Path) -> None:
    data = loaded(write(tmp_path / "a.tsv"), val_fraction=0.2, test_fraction=0.2)
    assert [len(split) for split in data.splits] == [24, 8, 8]
    assert data.classes == ("0", "1")
    assert data.tokens == {"vocab_size": data.preprocessing["vocab_size"], "pad": 0}
    assert load(DataSettings()).tokens is None
    assert data.train.x.dtype == torch.int64
    for split in data.splits:
        for row, label in zip(split.x.tolist(), split.y.tolist(), strict=True):
            assert words(data, row).replace(" ,", ",") in [t.replace(" ,", ",") for t in (BAD, GOOD)[label]]
            length = row.index(0) if 0 in row else len(row)
            assert (row[0], row[length - 1]) == (2, 3)  # [CLS] … [SEP]
            assert set(row[length:]) <= {0}


def test_files_of_each_split_stay_whole_and_in_order(tmp_path: Path) -> None:
    for part, times in (("train", 5), ("validation", 2), ("test", 1)):
        write(tmp_path / f"films_{part}.tsv", times)
    by_folder, by_name = loaded(tmp_path), loaded(tmp_path / "films_{split}.tsv")
    assert by_folder.fingerprint == by_name.fingerprint
    assert [len(split) for split in by_name.splits] == [40, 16, 8]
    assert by_name.test is not None
    assert [words(by_name, row) for row in by_name.test.x.tolist()] == [
        text.replace(" ,", ",") for text in (*GOOD, *BAD)
    ]
    assert torch.equal(by_name.train.x[:8], by_name.test.x)


def test_a_split_that_has_no_file_is_drawn(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv")
    write(tmp_path / "dev.tsv", 1)
    data = loaded(tmp_path, test_fraction=0.2)
    assert [len(split) for split in data.splits] == [32, 8, 8]


def test_only_training_sentences_make_the_vocabulary(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv")
    for name, word in (("dev", "film"), ("test", "ζζζ")):
        (tmp_path / f"{name}.tsv").write_text(f"label\ttext\n0\t{word}\n1\t{word}\n", encoding="utf-8")
    data = loaded(tmp_path)
    assert data.test is not None
    assert data.test.x[0, :4].tolist() == [2, 1, 3, 0]  # [CLS] [UNK] [SEP] [PAD]
    again_without = loaded(write(tmp_path / "alone.tsv"))  # the same sentences, other rows held out
    assert set(again(data.preprocessing).own.get_vocab()) >= {"[PAD]", "film", "f", "##m"}
    assert "ζ" not in again(again_without.preprocessing).own.get_vocab()


def test_a_vocabulary_is_the_same_in_every_process(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv")
    script = (
        "from paretobit.data import DataSettings, load; import json;"
        f"print(json.dumps(load(DataSettings(name='text:{path}', vocab_size=70)).preprocessing))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(found) == loaded(path, vocab_size=70).preprocessing


def test_what_is_saved_encodes_new_sentences(tmp_path: Path) -> None:
    path = write(tmp_path / "train.tsv")
    write(tmp_path / "dev.tsv", 1)
    data = loaded(path.parent, max_tokens=6)
    kept = json.loads(json.dumps(data.preprocessing))
    x = encode(kept, [*GOOD, *BAD])
    assert torch.equal(x, data.val.x[:, : x.shape[1]])
    assert encode(kept, ["A FINE FILM"]).tolist() == encode(kept, ["a fine film"]).tolist()
    pair = encode(kept, [("a", "film")])[0].tolist()
    assert pair == [*encode(kept, ["a"])[0].tolist(), *encode(kept, ["film"])[0, 1:].tolist()]
    with pytest.raises(BadInput, match="no tokenizer here"):
        encode({"kind": "features"}, ["a"])


def test_longer_sentences_are_cut_and_counted(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv")
    write(tmp_path / "dev.tsv", 1)
    data = loaded(tmp_path, max_tokens=5)
    tokens = [len(again({**data.preprocessing, "max_tokens": 99}).ids([text])[0][0]) for text in (*GOOD, *BAD)]
    assert data.preprocessing["rows_cut"]["val"] == sum(n > 5 for n in tokens)
    assert data.val.x.shape[1] == 5
    assert (data.val.x[:, -1][torch.tensor(tokens) > 5] == 3).all()  # a cut sentence still ends
    assert data.preprocessing["tokens_per_row"] == pytest.approx(
        lengths(data.train.x, 0).double().mean().item(), abs=0.01
    )


def test_case_is_kept_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f'{i % 2},"Good, {"GOOD" if i % 2 else "good"}"' for i in range(20)]
    path.write_text("\n".join(["stars,Review", *rows]))
    kept = loaded(path, label="stars", lowercase=False)
    assert len({tuple(row) for row in kept.train.x.tolist()}) == 2
    assert len({tuple(row) for row in loaded(path, label="stars").train.x.tolist()}) == 1


def test_quotes_mean_nothing_between_tabs(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("label\ttext\n" + '0\t" a fine film\n1\ta " bore\n' * 9)
    assert sum(len(split) for split in loaded(path).splits) == 18


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("", {}, r"too few columns.*a\.tsv:1"),
        ("label\ttext\n", {}, "train set is empty"),
        ("label\ttext\n1\ta\n1\tb\n", {}, "a single class"),
        ("label\ttext\n1\ta\n0\n", {}, r"cells in a row.*a\.tsv:3.*found 1; allowed: 2"),
        ("label\ttext\n1\ta\tb\n", {}, r"cells in a row.*a\.tsv:2.*found 3"),
        ("label\ttext\n1\t \n", {}, r"an empty sentence.*a\.tsv:2.*column 'text'"),
        ("label\ttext\n\ta\n", {}, r"an empty label.*a\.tsv:2.*column 'label'"),
        ("stars\ttext\n1\ta\n", {}, r"which column is the label\?.*data\.label.*stars"),
        ("id\tlabel\twords\n3\t1\ta\n", {}, r"which column is the text\?.*data\.text"),
        ("id\tlabel\twords\n3\t1\ta\n", {"text": "word"}, r"no such column.*data\.text.*did you mean 'words'"),
        ("label\ttext\n1\ta\n", {"label": "labels"}, r"no such column.*data\.label.*did you mean 'label'"),
        ("label\ttext\n1\ta\n", {"text": "label"}, "label and sentence are one column"),
        ("label\ttext\n1\ta\n0\tb\n" * 1, {"val_fraction": 0.5}, "too few rows"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(
    tmp_path: Path, text: str, settings: dict[str, Any], message: str
) -> None:
    (tmp_path / "a.tsv").write_text(text)
    with pytest.raises(BadInput, match=message):
        loaded(tmp_path / "a.tsv", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 20}, r"no room for every character.*data\.vocab_size.*found 20; allowed: \d+ or more"),
        ({"max_tokens": 2}, r"no room for words.*data\.max_tokens"),
        ({"standardize": True}, r"do not heed.*data\.standardize"),
        ({"flip": True}, r"do not heed.*data\.flip"),
        ({"tokenizer": "./gone"}, r"no such folder.*data\.tokenizer"),
        ({"tokenizer": "./gone", "vocab_size": 90}, r"only wordpiece heeds.*data\.vocab_size"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.tsv")
    with pytest.raises(BadInput, match=message):
        load(DataSettings(**{"name": f"text:{path}", **settings}))


def test_files_that_are_not_there_are_refused_with_what_is(tmp_path: Path) -> None:
    write(tmp_path / "films_trian.tsv")
    with pytest.raises(BadInput, match=r"no such file.*did you mean '.*films_trian\.tsv'"):
        loaded(tmp_path / "films_{split}.tsv")
    with pytest.raises(BadInput, match=r"no file called after a split.*films_trian\.tsv"):
        loaded(tmp_path)
    with pytest.raises(BadInput, match=r"no such file.*did you mean '.*films_trian\.tsv'"):
        loaded(tmp_path / "films_train.tsv")
    for name in ("dev", "val"):
        write(tmp_path / f"films_{name}.tsv")
    write(tmp_path / "films_train.tsv")
    for wanted in (tmp_path, tmp_path / "films_{split}.tsv"):
        with pytest.raises(BadInput, match="two files of val"):
            loaded(wanted)
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(BadInput, match=r"a table of unknown kind.*a\.xlsx"):
        loaded(tmp_path / "a.xlsx")


@pytest.mark.parametrize("key", ["text", "tokenizer", "vocab_size", "max_tokens", "lowercase"])
def test_other_sources_refuse_settings_of_text(key: str) -> None:
    value: Any = {"text": "a", "tokenizer": "b", "vocab_size": 9, "max_tokens": 9, "lowercase": False}[key]
    with pytest.raises(BadInput, match=f"digits does not heed this setting.*data.{key}"):
        load(DataSettings(**{"name": "digits", key: value}))


def test_without_tokenizers_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'paretobit\[huggingface\]'"):
        loaded(write(tmp_path / "a.tsv"))


def test_a_tokenizer_that_transformers_saved_is_taken_as_it_is(tmp_path: Path) -> None:
    import transformers

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "fine", "##y", "good", "truly"]
    own = transformers.BertTokenizer(vocab={word: place for place, word in enumerate(vocabulary)})
    own.save_pretrained(tmp_path / "model")
    data = load(DataSettings(name=f"text:{write(tmp_path / 'a.tsv')}", tokenizer=str(tmp_path / "model")))
    assert data.preprocessing["vocab_size"] == len(vocabulary)
    for texts in (["a fine film", "truly good"], ["goody ones"]):
        expected = own(texts, padding=True, return_tensors="pt")["input_ids"]
        assert torch.equal(encode(data.preprocessing, texts), expected)


def test_the_sentences_of_sst2_are_read_as_they_stand(real_data: Path, tmp_path: Path) -> None:
    for part, count in (("train", 300), ("dev", 60), ("test", 60)):
        lines = (real_data / f"sst2_sentences_{part}.tsv").read_text(encoding="utf-8").splitlines()
        (tmp_path / f"{part}.tsv").write_text("\n".join(lines[: count + 1]), encoding="utf-8")
    data = loaded(tmp_path, vocab_size=600)
    assert [len(split) for split in data.splits] == [300, 60, 60]
    assert data.preprocessing["vocab_size"] == 600
    labels = [int(line[0]) for line in (tmp_path / "train.tsv").read_text().splitlines()[1:]]
    assert data.train.y.tolist() == labels
    unknown = (data.train.x == 1).sum().item()
    assert unknown == 0
    assert 20 < data.preprocessing["tokens_per_row"] < 45
