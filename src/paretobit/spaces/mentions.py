"""The words by which a space chooses layers, and what is left of it where a network lacks some of them."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph
from paretobit.graph.widths import width_groups
from paretobit.passes.layers.choice import meant
from paretobit.passes.layers.selection import By, select

DEFAULT = "default"
_LEFT_OUT = "identity"


@dataclass(frozen=True)
class Mention:
    """One word.

    Attributes:
        text: As it is written.
        by: What it chooses by; None: a name, a path or a pattern, as in `skip` and `tie`.
    """

    text: str
    by: By | Literal["group"] | None = None

    def means_something(self, graph: ModelGraph) -> bool:
        """Whether a network has anything that the word chooses."""
        if self.by == "group":
            return any(group.name == self.text for group in width_groups(graph))
        try:
            if self.by is None:
                return bool(meant(graph, self.text, ""))
            return any(node.op != _LEFT_OUT for node in select(graph, self.by, self.text, functions=True))
        except BadInput:
            return False


Ties = tuple[str | tuple[str, ...], ...]
"""As `read_ties` gives them."""


def keys_of(seed: Mapping[str, Any], by: Any) -> Iterator[Mention]:
    """The keys of a seed, without that for all others."""
    yield from (Mention(key, by) for key in seed if key != DEFAULT)


def in_ties(ties: Ties) -> Iterator[Mention]:
    """The words of ties."""
    yield from (Mention(text) for tie in ties if not isinstance(tie, str) for text in tie)


def seed_without(seed: Mapping[str, Any], by: Any, gone: Container[Mention]) -> dict[str, Any]:
    """A seed without the keys that are gone."""
    return {key: entry for key, entry in seed.items() if Mention(key, by) not in gone}


def ties_without(ties: Ties, gone: Container[Mention]) -> Ties:
    """Ties without the words that are gone, as far as they still tie anything."""
    left = [t if isinstance(t, str) else tuple(x for x in t if Mention(x) not in gone) for t in ties]
    return tuple(tie for tie in left if isinstance(tie, str) or len(tie) > 1)
