"""What a transform pass is, and all of them by name."""

from collections.abc import Callable, Mapping
from typing import Any

from paretobit.graph import ModelGraph
from paretobit.registry import Registry

Pass = Callable[[ModelGraph, Mapping[str, Any]], tuple[ModelGraph, dict[str, Any]]]


PASSES: Registry[Pass] = Registry("pass")
"""Transform passes by the name of their table in `[passes]`."""
