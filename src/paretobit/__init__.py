"""ParetoBit: the trade-off front between how well a PyTorch model works and what it costs."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from paretobit._version import __version__

if TYPE_CHECKING:
    from paretobit import formats
    from paretobit.errors import BadInput, ParetoBitError
    from paretobit.graph import trace
    from paretobit.models import load, save
    from paretobit.search import (
        Architecture,
        ChannelMultiplier,
        Correct,
        Prune,
        Quantize,
        Study,
        Training,
        Trial,
    )
    from paretobit.workflow.api import search

# Public name to the module that defines it: nothing heavy is imported before it is used.
_HOME = {
    "BadInput": "paretobit.errors",
    "ParetoBitError": "paretobit.errors",
    "Architecture": "paretobit.search",
    "ChannelMultiplier": "paretobit.search",
    "Training": "paretobit.search",
    "Correct": "paretobit.search",
    "Prune": "paretobit.search",
    "Quantize": "paretobit.search",
    "Study": "paretobit.search",
    "Trial": "paretobit.search",
    "formats": "paretobit",
    "load": "paretobit.models",
    "save": "paretobit.models",
    "trace": "paretobit.graph",
}

__all__ = [
    "Architecture",
    "BadInput",
    "ChannelMultiplier",
    "Correct",
    "ParetoBitError",
    "Prune",
    "Quantize",
    "Study",
    "Training",
    "Trial",
    "__version__",
    "formats",
    "load",
    "save",
    "search",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'paretobit' has no attribute '{name}'")
    if name == "formats":
        value: Any = importlib.import_module("paretobit.formats")
    else:
        value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """`paretobit.search` is the function; the room is reached by `from paretobit.search import`."""

    @property
    def search(self) -> Any:
        return importlib.import_module("paretobit.workflow.api").search

    @search.setter
    def search(self, room: ModuleType) -> None:
        """Importing the room would put it in the function's place."""


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted(__all__)
