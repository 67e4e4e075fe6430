"""Schemas read from code: the keys that a class takes, their types, and the words of its docstring.

A class says once, in its signature and under `Args:`, what can be set. Tables of a file are checked by
it, calls from Python too, and the lists of settings are written from it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import json
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator
from pydantic_core import PydanticCustomError, PydanticUndefined
from pydantic_core.core_schema import no_info_after_validator_function

from paretobit.document import Document, validate
from paretobit.errors import under

_KINDS = (bool, int, float, str, dict, list, Mapping, collections.abc.Sequence)


class Schema(BaseModel):
    """Base of the schemas: unknown keys are refused, and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class OpenSchema(Schema):
    """A schema whose further keys are entries, each with a schema of its own, where one is named."""

    model_config = ConfigDict(extra="allow")

    entry: ClassVar[type[BaseModel] | None] = None

    @model_validator(mode="after")
    def _entries_fit(self) -> OpenSchema:
        Entries(self.entry).check(self.model_extra or {})
        return self


@dataclasses.dataclass(frozen=True)
class Entries:
    """In `Annotated[Mapping, Entries(schema)]`: a table of entries, by type or layer.

    Attributes:
        schema: Of an entry; None: any value.
        noun: What the keys of the table name; where given there must be one.
    """

    schema: type[BaseModel] | None = None
    noun: str = ""

    def check(self, table: Mapping[str, Any], place: str = "") -> None:
        """Refuse entries that do not fit."""
        for key, entry in table.items() if self.schema else ():
            with under(f"{place}.{key}" if place else key):
                check(self.schema or Schema, entry)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """How pydantic is told: the table is kept as it is, once every entry was found to fit."""

        field = handler.field_name  # what a validator is told of it depends on the version of pydantic

        def fits(table: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
            if self.noun and not table:
                raise PydanticCustomError("empty", f"the {field} names no {self.noun}")
            self.check(table or {}, field)
            return table

        return no_info_after_validator_function(fits, handler(source))


def schema_of(
    *kinds: type, leave_out: Collection[str] = (), lists: Collection[str] = (), base: type[Schema] = Schema, **more: Any
) -> Any:
    """The schema of what classes take by keyword, several as one table.

    Unions, and types that no file can hold, are listed and left to the rules of the class.

    Args:
        kinds: The classes.
        leave_out: Keywords that are no keys of a file.
        lists: Keys that may have a list of choices in the place of a value.
        base: Of the schema.
        more: Further keys: type, default and description.
    """
    fields: dict[str, Any] = dict(more)
    for key, hint, default, meaning in (one for kind in kinds for one in _keywords(kind)):
        if key not in leave_out and key not in fields:
            fields[key] = (hint, default, meaning)
    made: dict[str, Any] = {}
    for key, (hint, default, meaning) in fields.items():
        kind = type_text(hint) + (" | list of them" if key in lists else "")
        info = Field(default, description=meaning, json_schema_extra={"type": kind})
        made[key] = (Any if key in lists else _enforced(hint), info)
    return create_model(kinds[0].__name__ if kinds else "Empty", __base__=base, **made)


class FromSignature:
    """As a class attribute: the schema of the class it is read from, without the keywords `not_in_files`."""

    def __get__(self, instance: object, owner: type) -> type[Schema]:
        return _of_class(owner)


@cache
def _of_class(owner: type) -> type[Schema]:
    made: type[Schema] = schema_of(owner, leave_out=tuple(getattr(owner, "not_in_files", ())))
    return made


def check(schema: type[BaseModel], given: Mapping[str, Any]) -> None:
    """Refuse keys and values that a schema does not take.

    Raises:
        BadInput: The first of them, by its key.
    """
    validate(schema, given, Document())


def check_fields(made: Any) -> None:
    """Refuse values of a frozen dataclass that are not of the types it says, from Python as from a file."""
    kind: type = type(made)
    check(_of_class(kind), {key: getattr(made, key) for key in _of_class(kind).model_fields})


def meanings(kind: type) -> dict[str, str]:
    """What the keywords of a class mean: from its docstring, or that of the nearest base that says so."""
    found: dict[str, str] = {}
    for base in kind.__mro__:
        for documented in (base, vars(base).get("__init__")):
            found = {**_arguments(getattr(documented, "__doc__", None) or ""), **found}
    return found


def _arguments(docstring: str) -> dict[str, str]:
    """The `Args:` or `Attributes:` of a docstring, one line each."""
    found = {}
    for _, section in re.findall(r"\n(Args|Attributes):\n((?: {4}.*\n?|\n)*)", inspect.cleandoc(docstring)):
        items = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
        found.update({name: " ".join(text.split()) for name, text in items})
    return found


def _keywords(kind: type) -> Iterator[tuple[str, Any, Any, str]]:
    """Name, type, default and meaning of what a class takes."""
    try:
        constructor: Any = kind.__init__  # type: ignore[misc]
        hints = get_type_hints(kind if dataclasses.is_dataclass(kind) else constructor, include_extras=True)
    except NameError:  # of types that are only imported for a type checker
        hints = {}
    words = meanings(kind)
    factories = {f.name: f.default_factory for f in getattr(kind, "__dataclass_fields__", {}).values()}
    for key, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        default = PydanticUndefined if parameter.default is parameter.empty else parameter.default
        factory = factories.get(key, dataclasses.MISSING)
        default = default if factory is dataclasses.MISSING else factory()
        yield key, hints.get(key, Any), default, words.get(key, "")


def _enforced(hint: Any) -> Any:
    """The type as far as a schema checks it."""
    origin, members = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        own = [member for member in members if member is not NoneType]
        return (_enforced(own[0]) | None if _enforced(own[0]) is not Any else Any) if len(own) == 1 else Any
    if origin is Annotated:
        return Any if _enforced(members[0]) is Any else hint
    is_table = isinstance(hint, type) and issubclass(hint, BaseModel)
    return hint if is_table or (origin or hint) in (*_KINDS, Literal) else Any


def type_text(hint: Any) -> str:
    """A type as a page shows it, in the words of TOML; empty where any value may stand."""
    origin, members = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " | ".join(json.dumps(member) for member in members)
    if origin in (Union, UnionType):
        return " | ".join(dict.fromkeys(filter(None, map(type_text, members))))
    if origin is Annotated:
        return type_text(members[0])
    kind = origin or hint
    if not isinstance(kind, type):
        return ""
    if issubclass(kind, str | NoneType):
        return "text" if kind is str else ""
    if issubclass(kind, Mapping | BaseModel):
        return "table"
    if issubclass(kind, collections.abc.Sequence):
        return "list"
    return {bool: "true or false", int: "integer", float: "number"}.get(kind, "")
