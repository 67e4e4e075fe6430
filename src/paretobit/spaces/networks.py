"""A space whose configurations are networks of their own, to which the other spaces of a product are bound."""

import abc
from collections.abc import Callable, Sequence

from paretobit.graph import ModelGraph
from paretobit.spaces.base import OwnModels
from paretobit.spaces.knobs import Knob, Tree, Value

LINEAR, IDENTITY = "linear", "identity"
LAYER = "layer"
Placed = tuple[Knob, frozenset[str]]
"""A knob of another space, and the paths of the layers that it acts on; none where it acts on the whole."""


def layer_knob(layer: str) -> str:
    """Name of the knob that says whether a layer is left out."""
    return f"{layer}.{LAYER}"


class Networks(OwnModels):
    """A space that goes first in a product: the others vary the layers of its networks.

    Attributes:
        layers_vary: Whether some networks have layers that others lack.
        leaves_out: Key of the settings by which networks have `nn.Identity` in the place of a layer;
            empty where none has.
    """

    layers_vary: bool
    leaves_out: str

    @abc.abstractmethod
    def samples(self) -> list[ModelGraph]:
        """One network with every set of layers."""

    @abc.abstractmethod
    def tree_with(self, more: Callable[[ModelGraph], Sequence[Placed]]) -> Tree:
        """The tree, with the knobs that other spaces have on these networks.

        Args:
            more: Knobs on one network, and where they act. It is asked once for each of `samples`.

        Raises:
            BadInput: Layers share knobs through one that may be left out.
        """

    @abc.abstractmethod
    def cases(self) -> list[list[dict[str, Value]]]:
        """For each of `samples`, by which knobs, with which values, a configuration has its layers."""

    @abc.abstractmethod
    def left_out(self, graph: ModelGraph, there: Sequence[Placed]) -> dict[str, dict[str, Value]]:
        """Name of each layer that may be left out to the knobs of other spaces on it, at their first option."""
