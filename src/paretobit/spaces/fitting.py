"""One description of a space for networks with different layers: a word may mean nothing in some of them."""

from collections.abc import Sequence

from paretobit.graph import ModelGraph
from paretobit.spaces.base import Space


class Fitting:
    """Makes a space fit a network: without the words for layers that only other networks have.

    A word that means nothing in any of them stays, so that binding refuses it.

    Args:
        space: The space.
        graphs: Networks with every set of layers.
    """

    def __init__(self, space: Space, graphs: Sequence[ModelGraph]) -> None:
        self._space = space
        self._known = {one for one in space.mentions() if any(one.means_something(graph) for graph in graphs)}

    def on(self, graph: ModelGraph) -> Space | None:
        """The space for one network; None where it is about layers of other networks only."""
        gone = {one for one in self._known if not one.means_something(graph)}
        return self._space.without(gone) if gone else self._space
