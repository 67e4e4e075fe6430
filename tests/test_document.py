"""A TOML document: every refusal names file, line, key and the closest match."""

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator

from paretobit.document import Document, dump, parse_value, split_key, validate
from paretobit.errors import BadInput

TEXT = """\
# a comment
seed = 3

[train]
epochs = 5
optimizer.name = "adam"
"quoted key" = 1
'a.b' = 2
indices = [
  [1, 2],
  [3]
]
after = 1

[ search . space ]  # spaces and a comment
by = "regex"

[search.space.seed."seq_blocks_[0-9]+"]
data_in_width = [4, 8]

[search.space.seed."seq\\\\.[24]".config]
name = "integer"

[[runs]]
number = 1
[runs.deep]
key = 1
"""


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "lab.toml"
    path.write_text(TEXT)
    return Document.read(path)


@pytest.mark.parametrize(
    ("path", "start"),
    [
        ("seed", "seed ="),
        ("train", "[train]"),
        ("train.epochs", "epochs ="),
        ("train.optimizer", "optimizer.name"),
        ("train.optimizer.name", "optimizer.name"),
        ("train.quoted key", '"quoted key"'),
        ("train.a.b", "'a.b'"),
        ("train.indices", "indices"),
        ("train.after", "after"),
        ("search.space", "[ search"),
        ("search.space.by", "by ="),
        ("search.space.seed.seq_blocks_[0-9]+.data_in_width", "data_in_width"),
        ('search.space.seed."seq_blocks_[0-9]+"', '[search.space.seed."seq_blocks'),
        ("search.space.seed.seq\\.[24].config.name", "name ="),
        ("runs", "[[runs]]"),
        ("runs.deep.key", "key"),
        ("train.epochs.missing", "epochs ="),
        ("train.missing", "[train]"),
    ],
)
def test_the_line_of_a_key_or_of_the_table_around_it_is_known(document, path, start):
    line = document.line(path)
    assert line is not None
    assert TEXT.splitlines()[line - 1].startswith(start)


def test_a_key_that_is_nowhere_has_no_line(document):
    assert document.line("nowhere.at.all") is None
    assert Document({"train": {}}).line("train") is None


def test_a_missing_unreadable_or_broken_file_is_named_with_the_line(tmp_path):
    with pytest.raises(BadInput, match=r"no such file.*gone\.toml"):
        Document.read(tmp_path / "gone.toml")
    with pytest.raises(BadInput, match="cannot read the file"):
        Document.read(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"not UTF-8 text \(.*binary\.toml:1\)"):
        Document.read(tmp_path / "binary.toml")
    (tmp_path / "broken.toml").write_text("a = 1\nb = = 2\n")
    with pytest.raises(BadInput, match=r"not valid TOML: .*broken\.toml:2"):
        Document.read(tmp_path / "broken.toml")


@pytest.mark.parametrize(
    ("assignment", "data"),
    [
        ("train.epochs=5", {"train": {"epochs": 5}}),
        (" train.epochs = 5 ", {"train": {"epochs": 5}}),
        ("lr=1e-3", {"lr": 0.001}),
        ("on=true", {"on": True}),
        ("widths=[4, 8]", {"widths": [4, 8]}),
        ("slot={width=8, frac_width=4}", {"slot": {"width": 8, "frac_width": 4}}),
        ("name=jsc-tiny", {"name": "jsc-tiny"}),
        ('name="5"', {"name": "5"}),
        ("where=a.b >= c - 0.01", {"where": "a.b >= c - 0.01"}),
        ("empty=", {"empty": ""}),
        ('seed."layer1.0".width=4', {"seed": {"layer1.0": {"width": 4}}}),
        ("seed.'layer1.0'.width=4", {"seed": {"layer1.0": {"width": 4}}}),
        ("seed.seq_[0-9]+.name=NA", {"seed": {"seq_[0-9]+": {"name": "NA"}}}),
    ],
)
def test_an_assignment_sets_a_toml_value_or_a_bare_string(assignment, data):
    document = Document()
    document.set(assignment)
    assert document.data == data


@pytest.mark.parametrize("assignment", ["", "=", "=5", "epochs", "train..epochs=5", ".epochs=5", "train.=5", '"a=5'])
def test_what_is_no_assignment_is_refused(assignment):
    with pytest.raises(BadInput, match=r"not an assignment \(--set\).*allowed: key\.path=value"):
        Document().set(assignment)


def test_overrides_create_tables_and_keep_what_is_there(document):
    document.set("train.epochs=9")
    document.set("new.table.key=1")
    assert document.get("train.epochs") == 9
    assert document.get("train.after") == 1
    assert document.data["new"] == {"table": {"key": 1}}


def test_a_value_is_no_table_to_put_keys_in(document):
    with pytest.raises(BadInput, match=r"not a table \(.*lab\.toml:5, train\.epochs\): found 5"):
        document.set("train.epochs.more=1")


def test_get_walks_tables_and_falls_back(document):
    assert document.get("train.optimizer.name") == "adam"
    assert document.get('train."a.b"') == 2
    assert document.get("train.epochs.more", "none") == "none"
    assert document.get("..", "none") == "none"


@pytest.mark.parametrize(("key", "parts"), [("a", ["a"]), ("a.b-c.d_1", ["a", "b-c", "d_1"]), ("a . b", ["a", "b"])])
def test_keys_are_split_at_their_dots(key, parts):
    assert split_key(key) == parts


def test_a_value_that_is_not_toml_is_text():
    assert parse_value("floor") == "floor"
    assert parse_value("0x10") == 16
    assert parse_value("[1,") == "[1,"


patient = settings(deadline=None)  # a busy machine is no failure
names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=8)
values = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False), names),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=8,
)


@patient
@given(st.dictionaries(names, values, max_size=4))
def test_what_is_dumped_reads_back_the_same(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("dump") / "x.toml"
    path.write_text(dump(data), encoding="utf-8")
    assert Document.read(path).data == data


def test_none_is_left_out_and_tuples_become_lists():
    document = {"a": None, "b": {"c": None, "d": (1, 2)}, 3: "key"}
    assert dump(document) == '3 = "key"\n\n[b]\nd = [\n    1,\n    2,\n]\n'


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int = 8
    rounding: Literal["nearest", "floor"] = "nearest"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")
    epochs: int = Field(3, ge=1)
    items: list[Item] | None = None
    one: Item | None = None
    named: dict[str, Item] = {}
    needed: str = "x"

    @model_validator(mode="after")
    def refuse(self):
        if self.needed == "bad":
            raise BadInput("refused by the section", key="needed", found=self.needed)
        return self


@pytest.mark.parametrize(
    ("data", "path", "closest"),
    [
        ({"epocs": 3}, "train.epocs", "epochs"),
        ({"one": {"widht": 3}}, "train.one.widht", "width"),
        ({"items": [{}, {"widht": 3}]}, "train.items.1.widht", "width"),
        ({"named": {"linear": {"widht": 3}}}, "train.named.linear.widht", "width"),
        ({"one": {"rounding": "flor"}}, "train.one.rounding", "floor"),
    ],
)
def test_a_misspelt_key_or_choice_gets_its_closest_match_at_any_depth(document, data, path, closest):
    with pytest.raises(BadInput) as failure:
        validate(Section, data, document, "train")
    error = failure.value
    assert (error.key, error.closest, error.line) == (path, closest, 4)
    assert "lab.toml:4" in str(error)


def test_a_wrong_value_is_shown_at_its_line(document):
    with pytest.raises(BadInput, match=r"input should be a valid integer.*lab\.toml:5, train\.epochs\): found 'x'"):
        validate(Section, {"epochs": "x"}, document, "train")
    with pytest.raises(BadInput, match=r"greater than or equal to 1.*train\.epochs\): found 0"):
        validate(Section, {"epochs": 0}, document, "train")


def test_a_missing_key_is_named(document):
    class Needs(BaseModel):
        name: str

    with pytest.raises(BadInput, match=r"missing key \(.*lab\.toml:4, train\.name\)"):
        validate(Needs, {}, document, "train")


@pytest.mark.parametrize("prefix", ["", "train"])
def test_a_sections_own_refusal_is_put_in_its_place(document, prefix):
    with pytest.raises(BadInput, match="refused by the section") as failure:
        validate(Section, {"needed": "bad"}, document, prefix)
    assert failure.value.key == ".".join(filter(None, (prefix, "needed")))
    assert failure.value.source == str(document.source)


def placed(document, prefix, key):
    with pytest.raises(BadInput) as failure, document.placing(prefix):
        raise BadInput("refused", key=key)
    return failure.value.key, failure.value.line


@pytest.mark.parametrize(
    ("prefix", "key", "found"),
    [
        ("train", "epochs", ("train.epochs", 5)),
        ("train", "train.epochs", ("train.epochs", 5)),
        ("train", "trainer", ("train.trainer", 4)),
        ("train", None, ("train", 4)),
        ("", "train.epochs", ("train.epochs", 5)),
        ("", "workers", ("workers", None)),
        ("", None, (None, None)),
    ],
)
def test_what_a_block_refuses_is_put_in_its_place(document, prefix, key, found):
    assert placed(document, prefix, key) == found


def test_a_value_that_is_not_the_files_has_no_line_there(document):
    document.set("train.epochs=0")
    assert placed(document, "train", "epochs") == ("train.epochs", None)


def test_good_data_becomes_the_schema(document):
    assert validate(Section, {"epochs": 2, "one": {"width": 4}}, document, "train").one == Item(width=4)
