"""One description of a space for networks with different layers: a key may mean nothing in some of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph
from paretobit.graph.widths import width_groups
from paretobit.nn import FUNCTIONS
from paretobit.passes.layers.choice import meant
from paretobit.passes.layers.selection import select
from paretobit.spaces.base import Space
from paretobit.spaces.channel_multiplier import ChannelMultiplier

_DEFAULT = "default"
_LEFT_OUT = "identity"


class Fitting:
    """Makes a space fit a network: without the keys that mean layers that only other networks have.

    A key that means nothing in any of them stays, so that binding refuses it.

    Args:
        space: The space.
        graphs: Networks with every set of layers.
    """

    def __init__(self, space: Space, graphs: Sequence[ModelGraph]) -> None:
        self._space = space
        keys = [key for key in _seed(space) if key != _DEFAULT]
        self._known = {key for key in keys if any(_has(space, graph, key) for graph in graphs)}
        texts = {text for text in _texts(space) if any(_means(graph, text) for graph in graphs)}
        self._texts = texts

    def on(self, graph: ModelGraph) -> Space | None:
        """The space for one network; None where it is about layers of other networks only."""
        gone = {key for key in self._known if not _has(self._space, graph, key)}
        absent = {text for text in self._texts if not _means(graph, text)}
        if not gone and not absent:
            return self._space
        seed = {key: entry for key, entry in _seed(self._space).items() if key not in gone}
        return _with(self._space, seed, absent) if seed else None


def _seed(space: Space) -> Mapping[str, Any]:
    if isinstance(space, ChannelMultiplier):
        return space.settings.entries
    seed = getattr(space, "seed", {}) if hasattr(space, "by") else {}
    return seed if isinstance(seed, Mapping) else {}


def _texts(space: Space) -> set[str]:
    """Names and patterns outside of the seed."""
    ties = getattr(space, "ties", ())
    return {*getattr(space, "skip", ()), *(text for tie in ties if not isinstance(tie, str) for text in tie)}


def _with(space: Space, seed: Mapping[str, Any], absent: set[str]) -> Space:
    """A copy with another seed and without some names."""
    other: Any = copy.copy(space)
    if isinstance(space, ChannelMultiplier):
        other.settings = replace(space.settings, entries=dict(seed))
        return _as_space(other)
    other.seed = dict(seed)
    if hasattr(space, "skip"):
        other.skip = tuple(text for text in space.skip if text not in absent)
    if hasattr(space, "ties"):
        left = [t if isinstance(t, str) else tuple(x for x in t if x not in absent) for t in space.ties]
        other.ties = tuple(tie for tie in left if isinstance(tie, str) or len(tie) > 1)
    return _as_space(other)


def _as_space(space: Any) -> Space:
    made: Space = space
    return made


def _has(space: Space, graph: ModelGraph, key: str) -> bool:
    """Whether a key of the seed means something in a network."""
    by: Any = space.settings.by if isinstance(space, ChannelMultiplier) else getattr(space, "by", "name")
    if by == "group":
        return any(group.name == key for group in width_groups(graph))
    try:
        return any(node.op != _LEFT_OUT for node in select(graph, by, key, FUNCTIONS))
    except BadInput:
        return False


def _means(graph: ModelGraph, text: str) -> bool:
    try:
        return bool(meant(graph, text, ""))
    except BadInput:
        return False
