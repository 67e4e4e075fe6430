"""Slots whose format another layer's knobs decide, because both hold or read one tensor."""

from collections.abc import Container, Mapping, Sequence

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph, Node
from paretobit.passes.layers.selection import path_of
from paretobit.spaces.format_knobs import SearchEntry
from paretobit.spaces.ties import Place, Shares, shared_inputs, shared_parameters


class SlotTies:
    """The ties of single slots: those that the graph demands, and on demand those of inputs.

    Args:
        graph: The model.
        groups: What varies, and shares knobs already.
        skipped: Paths of what is to stay float.
        inputs: Whether layers that read the same tensor share the format of `data_in`.

    Attributes:
        joined: Layers that the groups leave alone and that hold a tensor of one that varies.

    Raises:
        BadInput: Layers that share a tensor give it different choices.
    """

    def __init__(self, graph: ModelGraph, groups: Sequence[Shares], skipped: Container[str], inputs: bool) -> None:
        self._groups = {path_of(node): group for group in groups for node in group.layers}
        self._skipped = skipped
        self._borrowed: dict[str, dict[str, str | None]] = {}
        self._reasons: dict[Place, str] = {}
        self.joined: list[Node] = []
        for places in shared_parameters(graph):
            self._stored_once(places)
        for places in shared_inputs(graph) if inputs else ():
            varied = {place: node for place, node in places.items() if self._says(place)}
            self._lend(varied, varied, "its input is that of")

    def of(self, node: Node) -> Mapping[str, str | None]:
        """Slot to the prefix whose knobs decide its format; None where none do."""
        return self._borrowed.get(path_of(node), {})

    def reason(self, node: Node, slot: str) -> str | None:
        """Why a slot has no knobs of its own, in words; None where it may have."""
        return self._reasons.get((path_of(node), slot))

    @property
    def in_words(self) -> dict[str, str]:
        """All ties: `path.slot` to the reason."""
        return {f"{path}.{slot}": reason for (path, slot), reason in self._reasons.items()}

    def _stored_once(self, places: Mapping[Place, Node]) -> None:
        """A stored tensor has one format: that of the first layer with knobs for it, or none."""
        varied = {place: node for place, node in places.items() if self._says(place)}
        floating = next((node for (path, _), node in places.items() if path in self._skipped), None)
        if not varied:
            return
        if floating is not None:
            for path, slot in varied:
                self._borrow((path, slot), None, f"its {slot} is that of '{floating.name}', which is skipped")
            return
        for place, node in places.items():
            if place[0] not in self._groups and all(node is not other for other in self.joined):
                self.joined.append(node)
        self._lend(varied, places, "its tensor is that of")

    def _lend(self, varied: Mapping[Place, Node], followers: Mapping[Place, Node], why: str) -> None:
        """Let the first group that varies a slot decide the format for all that follow."""
        if not varied:
            return
        (path, slot), first = next(iter(varied.items()))
        lender = self._groups[path]
        for place, node in varied.items():
            if _choices(self._groups[place[0]].entry, place[1]) != _choices(lender.entry, slot):
                problem = f"layers share a tensor, and their entries differ in '{place[1]}'"
                found = [first.name, node.name]
                raise BadInput(problem, key="tie", found=found, allowed="the same choices for both")
        for place in followers:
            if self._groups.get(place[0]) is not lender:
                self._borrow(place, lender.prefix, f"{why} '{first.name}'")

    def _borrow(self, place: Place, prefix: str | None, reason: str) -> None:
        self._borrowed.setdefault(place[0], {})[place[1]] = prefix
        self._reasons[place] = reason

    def _says(self, place: Place) -> bool:
        group = self._groups.get(place[0])
        return group is not None and group.entry.says(place[1])


def _choices(entry: SearchEntry, slot: str) -> object:
    """What of an entry decides the format of a slot."""
    return entry.names, entry.restricted([slot]).to_json()
