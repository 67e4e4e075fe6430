"""Names of nodes."""

import itertools


class Names:
    """Unique names: the second use of `a` becomes `a_1`."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def unique(self, name: str) -> str:
        """`name`, or the first free name after it."""
        candidates = (f"{name}_{i}" if i else name for i in itertools.count())
        chosen = next(candidate for candidate in candidates if candidate not in self._taken)
        self._taken.add(chosen)
        return chosen


def node_name(path: str) -> str:
    """A module's path as a node's name: dots as underscores."""
    return path.replace(".", "_")
