"""Scales of data, fixed once from calibration rows for every format that a space offers."""

from collections.abc import Mapping, Sequence
from typing import Any

from paretobit.data.calibration import Calibration
from paretobit.formats import Format
from paretobit.graph import ModelGraph, Node
from paretobit.graph.contents import digest
from paretobit.nn import parameter_uses
from paretobit.passes.layers.quantizable import slots_at
from paretobit.passes.layers.selection import path_of
from paretobit.passes.transform import Observed


class StaticScales:
    """Formats of data with the scales that the float model needs on calibration rows.

    The rows run when the first format asks, and again where the model's weights or statistics are others
    when a model is next prepared.
    Parameters keep their formats as they are: their scales come from the weights themselves.

    Args:
        graph: The float model.
        nodes: Layers and functions that may carry formats.
        calibration: The rows.
    """

    def __init__(self, graph: ModelGraph, nodes: Sequence[Node], calibration: Calibration) -> None:
        self._graph, self._calibration = graph, calibration
        self._slots = {path_of(node): _data_slots(graph, node) for node in nodes}
        self._fixed: dict[tuple[str, str, Format], Format] = {}
        self._observed: Observed | None = None
        self._of = ""  # what the model held when they were found

    def fixed(self, path: str, formats: Mapping[str, Format]) -> dict[str, Format]:
        """The formats of one layer, those of data with their scales.

        Raises:
            BadInput: The layer did not run on the calibration rows, or they are not finite there.
        """
        return {slot: self._one(path, slot, given) for slot, given in formats.items()}

    def _one(self, path: str, slot: str, given: Format) -> Format:
        if slot not in self._slots[path]:
            return given
        key = (path, slot, given)
        if key not in self._fixed:
            self._of = self._of if self._fixed else self._held()
            if self._observed is None:
                self._observed = Observed(self._graph, self._calibration.batches, self._slots)
            self._fixed[key] = self._observed.fixed(path, slot, given)
        return self._fixed[key]

    def follow_weights(self) -> None:
        """Forget the scales of other weights and statistics than the model has now."""
        if self._fixed and self._held() != self._of:
            self._fixed, self._observed = {}, None

    def _held(self) -> str:
        model = self._graph.model
        return digest([*model.parameters(), *model.buffers()])

    def __getstate__(self) -> dict[str, Any]:
        """With the scales found so far, without the histograms."""
        return {**self.__dict__, "_observed": None}


def _data_slots(graph: ModelGraph, node: Node) -> tuple[str, ...]:
    """Slots through which data flows: the operands of a function that are no parameters, the input of a layer."""
    slots = slots_at(graph, node)
    if node.kind == "call_module":
        return tuple(slot for slot in slots if slot.startswith("data"))
    parameters = {use.slot for use in parameter_uses(graph).at(path_of(node))}
    return tuple(slot for slot in slots if slot not in parameters)
