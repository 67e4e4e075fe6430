"""`paretobit list settings`: every key of everything registered, and no key that is not taken."""

import pytest

from paretobit.data import SOURCES
from paretobit.errors import BadInput
from paretobit.formats import FORMATS, parameters_of
from paretobit.models import MODELS
from paretobit.passes.registry import PASSES
from paretobit.schemas import Schema, check
from paretobit.spaces import SPACES, BoundSpace, Space
from paretobit.strategies import STRATEGIES
from paretobit.trials.runners import RUNNERS
from paretobit.workflow.catalogue import catalogue

ROWS = catalogue("settings")["settings"]
LISTED = {}
for _row in ROWS:
    LISTED.setdefault(_row["section"], {})[_row["key"]] = _row
SECTIONS = {
    **{f"search.space ({e.name})": e.value.Settings for e in SPACES},
    **{f"search.strategy ({e.name})": e.value.Settings for e in STRATEGIES},
    **{f"search.runners.{e.name}": e.value.Settings for e in RUNNERS},
    **{f"passes.{e.name}": e.value.Settings for e in PASSES},
}
MADE_OF_OTHERS = {
    "SLOT_PARAMETER": {"weight_width": 8},
    "FORMAT": {"name": ["integer"], "integer": {"weight_width": 8}},
}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_of_what_is_registered_is_listed_and_said(section):
    fields = SECTIONS[section].model_fields
    assert set(fields) == set(LISTED.get(section, ()))
    for row in LISTED.get(section, {}).values():
        assert row["what"], row
        assert row["default"] == "needed" or not fields[row["key"]].is_required()


@pytest.mark.parametrize("name", FORMATS.names())
def test_every_parameter_of_a_format_is_listed(name):
    wanted = {parameter.name for parameter in parameters_of(FORMATS[name])}
    rows = LISTED.get(f"format ({name})", {})
    assert set(rows) == wanted
    assert all(row["what"] for row in rows.values())


def test_keys_that_stood_on_no_page_stand_there():
    quantize, prune = LISTED["search.space (quantize)"], LISTED["search.space (prune).seed.NAME"]
    assert quantize.keys() >= {"skip", "first", "last", "tie", "allowed", "scales", "share", "by"}
    assert prune.keys() >= {"sparsity", "pattern", "method", "scope", "floor", "ragged", "seed"}
    assert LISTED["search.space (channel_multiplier)"].keys() >= {"divisor", "inherit", "on_conflict"}
    assert LISTED["passes.prune.activation"].keys() >= {"sparsity", "per", "layers"}
    assert LISTED["search.space (quantize).seed.NAME"].keys() >= {"name", "weight", "SLOT_PARAMETER", "FORMAT"}
    assert {"config", "head"} <= LISTED["model"].keys()
    assert {"label", "tokenizer", "lineage"} <= LISTED["data"].keys()


def test_every_model_source_and_space_is_listed_with_what_it_takes():
    found = catalogue()
    assert [row["takes"] for row in found["models"]] == [e.value.layout for e in MODELS]
    assert [row["name"] for row in found["datasets"]] == SOURCES.names()
    steps = {row["name"]: row["step"] for row in found["spaces"]}
    assert steps["architecture"] == "build"
    assert steps["quantize"] == "quantize"
    assert steps["correct"] == "calibrate"


def refusal(schema, table):
    """What is said against a table; nothing where it is taken."""
    try:
        check(schema, table)
    except BadInput as refused:
        return str(refused)
    return ""


def values(row):
    """Something for a key: only whether the key is known is looked at."""
    return MADE_OF_OTHERS.get(row["key"], {row["key"]: None})


@pytest.mark.parametrize("section", [s for s in LISTED if s.startswith(("search.space", "passes"))])
def test_every_listed_key_is_accepted_and_no_other(section):
    schema = schema_at(section)
    for row in LISTED[section].values():
        assert "unknown key" not in refusal(schema, values(row))
    if not getattr(schema, "entry", None) and schema.model_config["extra"] == "forbid":
        with pytest.raises(BadInput, match="unknown key"):
            check(schema, {"no_such_key": 3})


def schema_at(section):
    """The schema behind a section of the list, found by following its name."""
    known = max((s for s in SECTIONS if section == s or section.startswith(f"{s}.")), key=len)
    schema = SECTIONS[known]
    for key in section.removeprefix(known).strip(".").split("."):
        if key == "NAME" and getattr(schema, "entry", None):
            schema = schema.entry
        elif key and key != "NAME":
            info = schema.model_fields[key]
            inner = [entries.schema for entries in info.metadata if hasattr(entries, "schema")]
            kinds = [k for k in getattr(info.annotation, "__args__", ()) if isinstance(k, type)]
            schema = (inner or [kind for kind in kinds if issubclass(kind, Schema)])[0]
    return schema


def test_a_users_space_is_listed_by_its_signature(monkeypatch):
    class Mine(Space):
        """Mine.

        Args:
            strength: How strong.
        """

        name = "mine"

        def __init__(self, *, strength: int, seed: str = "x") -> None:
            self.strength, self.seed = strength, seed

        def bind(self, graph, calibration=None) -> BoundSpace:
            raise NotImplementedError

        @staticmethod
        def explain(described, config):
            return {}

    monkeypatch.setattr(SPACES, "_entries", dict(SPACES._entries))
    SPACES.register("mine")(Mine)
    rows = [row for row in catalogue("settings")["settings"] if row["section"] == "search.space (mine)"]
    assert [(row["key"], row["type"], row["default"], row["what"]) for row in rows] == [
        ("strength", "integer", "needed", "How strong."),
        ("seed", "text", '"x"', ""),
    ]
    assert Mine.from_settings({"strength": 3}).to_settings() == {"strength": 3, "seed": "x"}
    with pytest.raises(BadInput, match="did you mean 'strength'"):
        Mine.from_settings({"strenght": 3})
