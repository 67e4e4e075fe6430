"""What a pass takes: a table of settings, checked by a schema."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from pydantic import BaseModel

from paretobit.graph import ModelGraph
from paretobit.schemas import Schema, check

Result = tuple[ModelGraph, dict[str, Any]]


class TablePass:
    """A pass with the schema of its table.

    Args:
        run: The pass.
        settings: The schema.
    """

    def __init__(self, run: Callable[..., Result], settings: type[BaseModel]) -> None:
        self._run, self.Settings = run, settings
        functools.update_wrapper(self, run)

    def __call__(self, graph: ModelGraph, table: Mapping[str, Any] | None = None, *more: Any, **named: Any) -> Result:
        """Run it.

        Raises:
            BadInput: The table has an unknown key, or a value that it cannot have.
        """
        table = {} if table is None else table
        check(self.Settings, table)
        return self._run(graph, table, *more, **named)


def takes(settings: type[BaseModel] = Schema) -> Callable[[Callable[..., Result]], TablePass]:
    """Decorator that gives a pass the schema of its table; by default there are no keys."""
    return lambda run: TablePass(run, settings)


def with_entries(kind: type[Any], table: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of a table are fields of the settings, and the rest: entries by type or layer."""
    own = {f.name for f in fields(kind)} - {"entries"}
    options = {key: value for key, value in table.items() if key in own}
    return options, {key: value for key, value in table.items() if key not in own}
