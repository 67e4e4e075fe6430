"""What a transform pass is, and all of them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph
from paretobit.registry import Registry

Pass = Callable[[ModelGraph, Mapping[str, Any]], tuple[ModelGraph, dict[str, Any]]]


PASSES: Registry[Pass] = Registry("pass")
"""Transform passes by the name of their table in `[passes]`."""


def refuse_keys(table: Mapping[str, Any]) -> None:
    """Refuse a table with keys, for passes that have none."""
    for key in table:
        raise BadInput("this pass has no settings", key=key, found=key, allowed="an empty table")
