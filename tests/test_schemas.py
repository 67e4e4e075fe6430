"""Schemas say what a class takes: its signature and the words of its docstring, once for all doors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from paretobit.errors import BadInput
from paretobit.schemas import Entries, FromSignature, OpenSchema, Schema, check, check_fields, schema_of, type_text

Colour = Literal["red", "green"]


class Crate(Schema):
    """A crate."""

    weight: float = Field(description="kilograms")


class Truck:
    """A truck.

    Args:
        colour: What it is painted in.
        load: Crate by name.
        axles: How many, two
            or more.

    Raises:
        BadInput: No.
    """

    Settings = FromSignature()
    not_in_files = ("driver",)

    def __init__(
        self,
        *,
        colour: Colour,
        load: Annotated[Mapping[str, Any], Entries(Crate, "crates")],
        axles: Annotated[int, Field(ge=2)] = 2,
        stops: Sequence[str] = (),
        note: str | Sequence[str] = "",
        driver: Any = None,
    ) -> None:
        pass


LOAD = {"a": {"weight": 1}}


def test_keys_types_defaults_and_words_are_those_of_the_class():
    fields = Truck.Settings.model_fields
    assert list(fields) == ["colour", "load", "axles", "stops", "note"]
    assert fields["axles"].description == "How many, two or more."
    assert fields["axles"].default == 2
    assert fields["colour"].is_required()
    kinds = {key: info.json_schema_extra["type"] for key, info in fields.items()}
    assert kinds == {
        "colour": '"red" | "green"', "load": "table", "axles": "integer", "stops": "list",
        "note": "text | list",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"colour": "gren"}, "colour", "did you mean 'green'"),
        ({"color": "red"}, "color", "did you mean 'colour'"),
        ({"driver": "me"}, "driver", "unknown key"),
        ({"axles": 1}, "axles", "found 1"),
        ({"axles": "2"}, "axles", "valid integer"),
        ({"axles": True}, "axles", "valid integer"),
        ({"stops": "here"}, "stops", "not a list"),
        ({"stops": 3}, "stops", "not a list"),
        ({"load": 3}, "load", "not a table"),
        ({"load": {}}, "load", "names no crates"),
        ({"load": {"a": 3}}, "load.a", "not a table"),
        ({"load": {"a": {"wieght": 1}}}, "load.a.wieght", "did you mean 'weight'"),
        ({"load": {"a": {}}}, "load.a.weight", "missing key.*kilograms"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(changes, key, said):
    with pytest.raises(BadInput, match=said) as refused:
        check(Truck.Settings, {"colour": "red", "load": LOAD, **changes})
    assert refused.value.key == key


def test_what_fits_is_taken():
    for more in ({}, {"axles": 3, "stops": ["a"], "note": "a"}, {"stops": ("a",), "note": ["a", 3]}):
        check(Truck.Settings, {"colour": "red", "load": LOAD, **more})


@dataclass(frozen=True)
class Van:
    """A van.

    Attributes:
        colour: Its paint.
        doors: Names.
    """

    colour: Colour = "red"
    doors: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)


def test_a_dataclass_refuses_the_same_from_python():
    assert Van(doors={"left": "open"}).colour == "red"
    with pytest.raises(BadInput, match="not one of the choices"):
        Van(colour="blue")
    with pytest.raises(BadInput, match="not a table"):
        Van(doors=3)


def test_several_classes_make_one_table_and_keys_may_be_lists_of_choices():
    both = schema_of(Van, Truck, leave_out=("load", "driver"), lists=("colour",), more=(int, 1, "beside them"))
    assert list(both.model_fields) == ["more", "colour", "doors", "axles", "stops", "note"]
    check(both, {"colour": ["red", "green"], "more": 3})


def test_further_keys_of_an_open_schema_are_entries():
    class Loads(OpenSchema):
        entry = Crate

    check(schema_of(Van, base=Loads), {"colour": "green", "a": {"weight": 2.5}})
    with pytest.raises(BadInput, match="unknown key") as refused:
        check(schema_of(Van, base=Loads), {"a": {"wide": 3}})
    assert refused.value.key == "a.wide"


def test_types_are_told_in_the_words_of_toml():
    told = {int: "integer", bool: "true or false", str: "text", float: "number", Any: "", int | None: "integer"}
    told |= {dict[str, int]: "table", list[int]: "list", tuple[int, ...]: "list", Crate: "table"}
    assert {hint: type_text(hint) for hint in told} == told
