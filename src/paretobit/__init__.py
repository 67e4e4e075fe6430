"""ParetoBit: the trade-off front between how well a PyTorch model works and what it costs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from paretobit._version import __version__

if TYPE_CHECKING:
    from paretobit import formats
    from paretobit.errors import BadInput, ParetoBitError
    from paretobit.graph import trace
    from paretobit.models import load, save
    from paretobit.spaces import Architecture, ChannelMultiplier, Correct, Prune, Quantize, Training
    from paretobit.studies.study import Study
    from paretobit.studies.trial import Trial
    from paretobit.workflow.api import search

# Public name to the module that defines it: nothing heavy is imported before it is used.
_HOME = {
    "BadInput": "paretobit.errors",
    "ParetoBitError": "paretobit.errors",
    "Architecture": "paretobit.spaces",
    "ChannelMultiplier": "paretobit.spaces",
    "Correct": "paretobit.spaces",
    "Prune": "paretobit.spaces",
    "Quantize": "paretobit.spaces",
    "Training": "paretobit.spaces",
    "Study": "paretobit.studies.study",
    "Trial": "paretobit.studies.trial",
    "load": "paretobit.models",
    "save": "paretobit.models",
    "search": "paretobit.workflow.api",
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
    if name == "formats":
        return importlib.import_module("paretobit.formats")
    if name not in _HOME:
        raise AttributeError(f"module 'paretobit' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
