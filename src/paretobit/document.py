"""TOML documents: reading with line numbers, `--set` overrides, and checking against a schema.

Knows no section and no key: each room owns the settings class of its section.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from paretobit.errors import BadInput

if TYPE_CHECKING:
    from pydantic import BaseModel

Schema = TypeVar("Schema", bound="BaseModel")

_QUOTED = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*')"""
_PART = rf"""\s*({_QUOTED}|[^."']+?)\s*"""  # of a key as it is typed on a command line
_TOML_KEY = rf"\s*(?:{_QUOTED}|[\w-]+)(?:\s*\.\s*(?:{_QUOTED}|[\w-]+))*\s*"


@dataclass
class Document:
    """A TOML document: its tables, the file it came from, the line of each key, and keys set otherwise."""

    data: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None
    lines: dict[str, int] = field(default_factory=dict)
    overridden: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: str | Path) -> Document:
        """Read a file.

        Raises:
            BadInput: The file is missing, unreadable or not TOML; the line is named.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise BadInput("no such file", found=str(path)) from None
        except OSError as error:
            raise BadInput(f"cannot read the file: {error.strerror}", found=str(path)) from None
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise BadInput("not UTF-8 text", source=path, line=line) from None
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            said, _, place = str(error).rpartition(" (at ")
            number = re.match(r"line (\d+)", place)
            line = int(number[1]) if number else len(text.splitlines())
            raise BadInput(f"not valid TOML: {said}", source=path, line=line) from None
        return cls(data, path, _line_numbers(text, data))

    def set(self, assignment: str) -> None:
        """Apply one `key.path=value`; the value is TOML, or a bare string.

        >>> document = Document({"train": {"epochs": 3}})
        >>> document.set("train.epochs=5"); document.set("model.name=jsc-tiny"); document.data
        {'train': {'epochs': 5}, 'model': {'name': 'jsc-tiny'}}
        """
        path, equals, text = assignment.partition("=")
        keys = split_key(path.strip())
        if not equals or not keys:
            raise BadInput("not an assignment", key="--set", found=assignment, allowed="key.path=value")
        value = parse_value(text.strip())
        if isinstance(value, str) and value.startswith(("[", "{", '"', "'")) and value == text.strip():
            raise BadInput("not a TOML value", key="--set", found=assignment, allowed="key.path=value")
        self.override(keys, value)

    def override(self, keys: Iterable[str], value: Any) -> None:
        """`put` a value that is not the file's: errors about it name no file and no line."""
        keys = list(keys)
        self.put(keys, value)
        self.overridden.add(".".join(keys))

    def put(self, keys: Iterable[str], value: Any) -> None:
        """Set the value at a path of keys, creating tables on the way.

        Raises:
            BadInput: A key on the way holds a value that is not a table.
        """
        *parents, last = keys
        table = self.data
        for depth, key in enumerate(parents):
            child = table.setdefault(key, {})
            if not isinstance(child, dict):
                path = ".".join(parents[: depth + 1])
                raise self.error("not a table", path, found=child)
            table = child
        table[last] = value

    def get(self, path: str, default: Any = None) -> Any:
        """The value at a dotted path, or `default`."""
        node: Any = self.data
        for key in split_key(path) or [path]:
            if not isinstance(node, Mapping) or key not in node:
                return default
            node = node[key]
        return node

    def line(self, path: str) -> int | None:
        """Line of a key, or of the nearest table around it; None when it does not come from the file."""
        keys = path.replace('"', "").split(".")
        if not self._from_file(path):
            return None
        while keys:
            if ".".join(keys) in self.lines:
                return self.lines[".".join(keys)]
            keys.pop()
        return None

    def error(self, problem: str, path: str, **details: Any) -> BadInput:
        """A `BadInput` that points at a key of this document."""
        return self._place(BadInput(problem, key=path, **details))

    def _place(self, error: BadInput, prefix: str = "") -> BadInput:
        """The error with its key below `prefix`, and its file and line where they were not known."""
        key = error.key or ""
        if not f"{key}.".startswith(f"{prefix}."):
            key = ".".join(part for part in (prefix, key) if part)
        error.key = key or None
        if error.source is None and self._from_file(key):
            error.source = None if self.source is None else str(self.source)
            error.line = error.line or self.line(key)
        return error

    @contextmanager
    def placing(self, prefix: str = "") -> Iterator[None]:
        """Give errors raised inside the block their place: all below `prefix`, or, without one, those
        whose key is one of this document's."""
        try:
            yield
        except BadInput as error:
            if prefix or (error.key and error.key.split(".")[0] in self.data):
                self._place(error, prefix)
            raise

    def _from_file(self, path: str) -> bool:
        """Whether the value of a key is the file's own."""
        return not any(f"{path}.".replace('"', "").startswith(f"{key}.") for key in self.overridden)


def validate(schema: type[Schema], data: Mapping[str, Any], document: Document, prefix: str = "") -> Schema:
    """`data` as an instance of a pydantic `schema`.

    Raises:
        BadInput: The first key that does not fit, with file, line, allowed names and closest match.
    """
    from pydantic import ValidationError

    try:
        return schema.model_validate(data)
    except BadInput as refused:  # raised by a schema's own checks
        raise document._place(refused, prefix) from None
    except ValidationError as failure:
        errors = failure.errors()
        error = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
        location = [str(part) for part in error["loc"]]
        path = ".".join(part for part in (prefix, *location) if part)
        if error["type"] == "extra_forbidden":
            allowed = list(_fields_at(schema, location[:-1]))
            raise document.error("unknown key", path, found=location[-1], allowed=allowed) from None
        if error["type"] == "missing":
            meaning = _fields_at(schema, location[:-1]).get(location[-1])
            raise document.error("missing key", path, allowed=meaning or None) from None
        if error["type"] == "literal_error":
            choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
            raise document.error("not one of the choices", path, found=error["input"], allowed=choices) from None
        kind = "list_type" if error.get("ctx", {}).get("class") == "Sequence" else error["type"]
        problem = _NOT.get(kind, error["msg"].removeprefix("Value error, "))
        bounds = {key: text for key, text in _BOUNDS.items() if key in error.get("ctx", {})}
        within = next((text.format(error["ctx"][key]) for key, text in bounds.items()), None)
        problem = problem[0].lower() + problem[1:]
        raise document.error(problem, path, found=error.get("input"), allowed=within) from None


_BOUNDS = {"ge": "{} or more", "gt": "above {}", "le": "{} or less", "lt": "below {}"}
"""What a bound that is broken allows, by what pydantic calls it."""
_NOT = {"list_type": "not a list", "sequence_str": "not a list", "tuple_type": "not a list"}
_NOT |= dict.fromkeys(("dict_type", "mapping_type", "model_type"), "not a table")
"""What pydantic calls what it finds, and what the rest of the house does."""


def parse_value(text: str) -> Any:
    """A TOML value, or the text itself where it is not one.

    >>> parse_value("[1, 2]"), parse_value("true"), parse_value("adam")
    ([1, 2], True, 'adam')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def split_key(path: str) -> list[str]:
    """The parts of a dotted key, which may be quoted to hold dots; empty where it is no key.

    >>> split_key('seed."layer1.0".width')
    ['seed', 'layer1.0', 'width']
    """
    if not re.fullmatch(rf"{_PART}(?:\.{_PART})*", path):
        return []
    parts = re.findall(rf"{_PART}(?:\.|$)", path)
    return [str(parse_value(part)) if part[0] in "\"'" else part for part in parts]


def dump(data: Mapping[str, Any]) -> str:
    """TOML text of nested tables; keys whose value is None are left out."""
    import tomli_w

    return tomli_w.dumps(_without_none(data))


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value


def _line_numbers(text: str, data: Mapping[str, Any]) -> dict[str, int]:
    """Line of every table header of `data` and of every key that starts a line."""
    lines: dict[str, int] = {}
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(rf"\s*\[\[?({_TOML_KEY})\]\]?\s*(?:#|$)", line)
        if header and _is_table(data, split_key(header[1])):  # not a row of a nested list
            table = split_key(header[1])
            lines.setdefault(".".join(table), number)
        elif key := re.match(rf"({_TOML_KEY})=", line):
            path = [*table, *split_key(key[1])]
            for depth in range(len(table) + 1, len(path) + 1):
                lines.setdefault(".".join(path[:depth]), number)
    return lines


def _is_table(data: Any, keys: list[str]) -> bool:
    for key in keys:
        node = data[-1] if isinstance(data, list) and data else data
        if not isinstance(node, Mapping) or key not in node:
            return False
        data = node[key]
    return True


def _fields_at(schema: Any, location: list[str]) -> dict[str, str | None]:
    """Field names of the (possibly nested) schema that a validation error points into, and their meanings."""
    for part in location:
        fields = getattr(schema, "model_fields", {})
        if part in fields:
            schema = next(_schemas_in(fields[part].annotation), schema)
    fields = getattr(schema, "model_fields", {})
    return {info.alias or name: info.description for name, info in fields.items()}


def _schemas_in(annotation: Any) -> Iterator[Any]:
    """Schemas that a type mentions, however deep: `list[Item] | None` mentions `Item`."""
    if hasattr(annotation, "model_fields"):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _schemas_in(argument)
