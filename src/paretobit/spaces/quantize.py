"""The space `quantize`: which number format each slot of each layer takes.

A seed entry gives, per slot, either whole formats as one knob
(`data_in = [{width = 16, frac_width = 8}, ...]`) or parameters as separate knobs
(`data_in_width = [4, 8]`). A scalar is fixed: no knob.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from torch import nn

from paretobit.data.calibration import Calibration
from paretobit.errors import BadInput, under
from paretobit.formats import FULL, Format
from paretobit.graph import ModelGraph, Node
from paretobit.graph.operations import row_of
from paretobit.nn import layer_at
from paretobit.passes.layers.assignment import Assignment, instrument_layers
from paretobit.passes.layers.choice import FIRST, LAST, LayerChoice
from paretobit.passes.layers.entries import SLOTS, is_float
from paretobit.passes.layers.pairs import AllowedPairs
from paretobit.passes.layers.quantizable import complete, slots_at
from paretobit.passes.layers.selection import By, path_of
from paretobit.schemas import Entries
from paretobit.spaces.allowed import only_allowed
from paretobit.spaces.base import SPACES, BoundSpace, Dropped, Space, Step, Weights
from paretobit.spaces.format_knobs import (
    Choices,
    SearchEntry,
    SearchEntrySettings,
    decode,
    knobs_of,
    one_of_each_name,
    read_entry,
    spelt_out,
)
from paretobit.spaces.knobs import Config, Knob, Tree, Value
from paretobit.spaces.mentions import Mention, in_ties, keys_of, seed_without, ties_without
from paretobit.spaces.slot_ties import SlotTies
from paretobit.spaces.static_scales import StaticScales
from paretobit.spaces.ties import INPUTS, Share, read_ties, tied_by_hand

Scales = Literal["static", "dynamic"]
_KEPT = 2**16  # answers: a search of days stays within some 100 MB


@SPACES.register("quantize")
class Quantize(Space):
    """Number formats of layers, chosen by type, name or regex.

    Args:
        by: How the keys of `seed` choose layers: `type`, `name` or `regex`.
        seed: Key to entry. The key `default` is for the layers that no other key chooses.
        share: `name`: every layer has knobs of its own. `type`: the layers that one key chooses
            share one set of knobs.
        skip: Names, paths or patterns of layers that stay float whatever else is said; the path of
            a module means all within it.
        first: Entry for the first layer with weights that are multiplied or looked up, in place of
            that of its type, a pattern or the default.
        last: The same for the last one.
        allowed: Pairs `[data, weight]` of formats that the device multiplies (see
            `paretobit.passes.layers.pairs`); the space holds no others.
        scales: Where the scales of data in `scaled_integer` come from: `static`, fixed once from
            calibration rows where the search has some; `dynamic`, from every batch anew.
        tie: Lists of names, paths or patterns (`["conv1", "regex:layer1\\..*"]`): the layers of one list
            share one set of knobs, known by the name of the first layer to run; they need the same
            entry. The word `inputs` beside them: layers and functions that read the same tensor (q, k
            and v; both branches of a residual block) share the format of `data_in`.

    Layers that share a stored tensor have one format for it, whatever is said: the knobs of the first
    of them that has any decide, a layer that the space would leave alone follows, and where one is
    skipped the tensor stays float for all. Their entries must give the tensor the same choices.

    Raises:
        BadInput: An unknown value of `by`, `share` or `scales`, an empty seed, pairs that are none, or
            ties that are none.
    """

    name: ClassVar[str] = "quantize"
    step: ClassVar[Step | None] = Step("quantize", order=-1)
    scales_from_data: ClassVar[bool] = True

    def __init__(
        self,
        *,
        by: By = "type",
        seed: Annotated[Mapping[str, Mapping[str, Any]], Entries(SearchEntrySettings, "layers")],
        share: Share = "name",
        skip: Sequence[str] = (),
        first: Mapping[str, Any] | None = None,
        last: Mapping[str, Any] | None = None,
        allowed: Sequence[Sequence[str]] | None = None,
        scales: Scales = "static",
        tie: str | Sequence[str | Sequence[str]] = (),
    ) -> None:
        self.check(
            by=by, seed=seed, share=share, skip=skip, first=first, last=last, allowed=allowed, scales=scales, tie=tie
        )
        self.by, self.seed, self.share, self.skip, self.scales = by, dict(seed), share, skip, scales
        self.first, self.last = first, last
        self.allowed, self.pairs = allowed, AllowedPairs.read(allowed)
        self.tie = read_ties(tie)

    @property
    def ends(self) -> dict[str, Mapping[str, Any]]:
        """The entries of the first and of the last layer, where given."""
        return {end: entry for end, entry in ((FIRST, self.first), (LAST, self.last)) if entry is not None}

    def mentions(self) -> list[Mention]:
        return [*keys_of(self.seed, self.by), *map(Mention, self.skip), *in_ties(self.tie)]

    def without(self, gone: Container[Mention]) -> Quantize | None:
        other = copy.copy(self)
        other.seed = seed_without(self.seed, self.by, gone)
        other.skip = tuple(text for text in self.skip if Mention(text) not in gone)
        other.tie = ties_without(self.tie, gone)
        return other if other.seed else None

    def bind(self, graph: ModelGraph, calibration: Calibration | None = None) -> BoundQuantize:
        return BoundQuantize(self, graph, calibration)

    @staticmethod
    def explain(described: Mapping[str, Any], config: Config) -> dict[str, Any]:
        """`{"seq_blocks_2": {"config": {"name": "integer", "data_in_width": 8, ...}}}`."""
        formats = {
            t["prefix"]: decode(Choices(t["prefix"], SearchEntry.from_json(t["entry"]), tuple(t["slots"])), config)
            for t in described["targets"]
        }
        nested: dict[str, Any] = {}
        for target in described["targets"]:
            own = formats[target["prefix"]]
            for layer, slots in target["layers"].items():
                borrowed = target.get("borrowed", {}).get(layer, {})
                lent = {s: formats[p].get(s, FULL) for s, p in borrowed.items() if p is not None}
                shown = {s: f for s, f in own.items() if s in slots and s not in borrowed} | lent
                nested[layer] = {"config": spelt_out({s: shown[s] for s in SLOTS if s in shown})}
        return nested


@dataclass(frozen=True)
class _Target(Choices):
    """Layers that share one set of knobs.

    Attributes:
        layers: In order of execution.
        knobs: Those with an effect.
        borrowed: Layer to slot to the prefix whose knobs decide the slot's format; None: none do, it
            stays float.
    """

    layers: tuple[Node, ...]
    knobs: tuple[Knob, ...]
    borrowed: Mapping[str, Mapping[str, str | None]]


@dataclass(frozen=True)
class _Group:
    """Layers that are to share knobs, and where in the description they are."""

    key: str
    prefix: str
    entry: SearchEntry
    layers: tuple[Node, ...]


def _grouped(space: Quantize, key: str, prefix: str, layers: tuple[Node, ...], entry: SearchEntry) -> Iterator[_Group]:
    if space.share == "type" and layers:
        yield _Group(key, prefix, entry, layers)
    else:
        yield from (_Group(key, node.name, entry, (node,)) for node in layers)


class BoundQuantize(BoundSpace):
    """The space `quantize` over one model."""

    name = Quantize.name

    def __init__(self, space: Quantize, graph: ModelGraph, calibration: Calibration | None = None) -> None:
        super().__init__(graph)
        self._dropped: list[Dropped] = []
        choice = LayerChoice(graph, space.by, space.skip, space.ends)
        groups = tied_by_hand(graph, self._make_groups(space, choice), space.tie, space.share == "name")
        self.skipped = choice.skipped
        self._ties = SlotTies(graph, groups, choice.skipped, INPUTS in space.tie)
        groups += [_Group("tie", f"{node.name}:tied", SearchEntry(), (node,)) for node in self._ties.joined]
        self._targets = sorted((self._target(group, space) for group in groups), key=self._position)
        self._dropped += [Dropped(name, why) for name, why in choice.left.items()]
        if not self._targets:
            raise BadInput("the model has no layer that can be quantised", key="seed.default")
        self._decoded: dict[tuple[int, tuple[Value, ...]], tuple[dict[str, Format], ...]] = {}
        self.tree = Tree(tuple(knob for target in self._targets for knob in target.knobs))
        unable = {name: reason for name, reason in choice.left.items() if not slots_at(graph, graph[name])}
        self.dropped = (*self._dropped, *(Dropped(name, reason) for name, reason in unable.items()))
        chosen = {node.name for target in self._targets for node in target.layers}
        self.matched = tuple(node.name for node in graph if node.name in chosen)
        self.unmatched = tuple(node.name for node in graph.layers if node.name not in chosen)
        self._by_prefix = {target.prefix: target for target in self._targets}
        self._names = [tuple(self._decided_by(target)) for target in self._targets]
        nodes = [node for target in self._targets for node in target.layers]
        self._scales = None
        if calibration is not None and space.scales == "static":
            self._scales = StaticScales(graph, nodes, calibration)

    def formats(self, config: Config) -> Assignment:
        assignment: dict[str, dict[str, Format]] = {}
        for i, target in enumerate(self._targets):
            key = (i, tuple([config.get(name) for name in self._names[i]]))
            decoded = self._decoded.get(key)
            if decoded is None:
                if len(self._decoded) >= _KEPT:
                    self._decoded.clear()
                decoded = self._decoded[key] = tuple(self._decode(target, config))
            for node, slots_of_layer in zip(target.layers, decoded, strict=True):
                assignment[path_of(node)] = slots_of_layer
        return assignment

    def weights(self, config: Config) -> Weights:
        return {}

    def reached(self) -> dict[str, frozenset[str]]:
        own = {target.prefix: frozenset(s for s in SLOTS if target.entry.says(s)) for target in self._targets}
        found: dict[str, frozenset[str]] = {}
        for target in self._targets:
            configs = list(one_of_each_name(target.knobs))
            for node in target.layers:
                borrowed = target.borrowed.get(node.name, {})
                slots = {s for s in own[target.prefix] if s in slots_at(self._graph, node) and s not in borrowed}
                slots |= {slot for slot, prefix in borrowed.items() if prefix and slot in own[prefix]}
                slots |= {s for config in configs for s in self._fitting(node, decode(target, config)) if s == "bias"}
                found[path_of(node)] = frozenset(slots)
        return found

    def _decode(self, target: _Target, config: Config) -> Iterator[dict[str, Format]]:
        """The formats of each layer of a target."""
        own = decode(target, config)
        for node in target.layers:
            borrowed = target.borrowed.get(node.name, {})
            slots = {slot: f for slot, f in own.items() if slot not in borrowed}
            for slot, prefix in borrowed.items():
                if prefix is not None:
                    slots[slot] = decode(self._by_prefix[prefix], config).get(slot, FULL)
            yield self._fitting(node, slots)

    def _decided_by(self, target: _Target) -> Iterator[str]:
        """The knobs that decide the formats of a target's layers."""
        lenders = {prefix for ties in target.borrowed.values() for prefix in ties.values() if prefix}
        for one in (target, *(self._by_prefix[prefix] for prefix in sorted(lenders))):
            yield from (knob.name for knob in Tree(one.knobs).all_knobs())

    def instrument(self, model: nn.Module) -> None:
        """The varied layers become quantised layers, all at full precision."""
        if self._scales:
            self._scales.follow_weights()
        instrument_layers(model, tuple(path_of(n) for t in self._targets for n in t.layers), self._graph.places)

    def apply(self, prepared: nn.Module, config: Config | None) -> nn.Module:
        """Set the slots of every varied layer; what is not named returns to full precision."""
        formats = {} if config is None else self.formats(config)
        for target in self._targets:
            for node in target.layers:
                path = path_of(node)
                layer = layer_at(prepared, path)
                assert layer is not None
                slots = formats.get(path, {})
                layer.set_slots(self._scales.fixed(path, slots) if self._scales else slots)
        return prepared

    @property
    def ties(self) -> dict[str, str]:
        """Slot of a layer, as `path.slot`, to whose format it has, for all that the graph or `inputs` ties."""
        return self._ties.in_words

    def acts_on(self) -> dict[str, tuple[str, ...]]:
        """Every knob acts on the layers of its target, and on those that borrow a format from it."""
        acts: dict[str, list[str]] = {}
        for target in self._targets:
            for node in target.layers:
                lenders = {p for p in target.borrowed.get(node.name, {}).values() if p is not None}
                for prefix in {target.prefix, *lenders}:
                    for knob in self._by_prefix[prefix].knobs:
                        acts.setdefault(knob.name, []).append(path_of(node))
        return {knob.name: tuple(acts[knob.name]) for knob in self.tree.knobs if knob.name in acts}

    def describe(self) -> dict[str, Any]:
        """The targets: prefix, entry, the slots of each layer, and from where those that it borrows come."""
        return {"targets": [self._describe(target) for target in self._targets]}

    def _describe(self, target: _Target) -> dict[str, Any]:
        layers = {node.name: list(slots_at(self._graph, node)) for node in target.layers}
        borrowed = {name: dict(ties) for name, ties in target.borrowed.items()}
        described = {"prefix": target.prefix, "slots": list(target.slots), "layers": layers}
        more = {"borrowed": borrowed} if borrowed else {}
        return {**described, "entry": target.entry.to_json(), **more}

    def _make_groups(self, space: Quantize, choice: LayerChoice) -> Iterator[_Group]:
        """The layers that share knobs, before any ties."""
        for end, raw in space.ends.items():
            with under(end):
                yield from _grouped(space, end, end, (choice.end(end),), read_entry(raw))
        for key, raw in space.seed.items():
            with under(f"seed.{key}"):
                entry = read_entry(raw)
                if key != "default":
                    layers = choice.by_key(key, entry.written)
                    yield from _grouped(space, f"seed.{key}", key, layers, entry)
        if "default" not in space.seed:
            return
        with under("seed.default"):
            default = read_entry(space.seed["default"])
            if default.name is None or not is_float(default.name):
                yield from _grouped(space, "seed.default", "default", choice.rest(), default)

    def _target(self, group: _Group, space: Quantize) -> _Target:
        """The knobs of a group, without those that have no effect, and without pairs that are not allowed."""
        prefix, entry = group.prefix, group.entry
        here = {n.name: self._ties.of(n) for n in group.layers}
        present = {s for n in group.layers for s in slots_at(self._graph, n) if s not in here[n.name]}
        with under(group.key):
            try:
                every = knobs_of(prefix, entry)
                kept, knobs = entry, every
                if not present.issuperset(slot for slot in SLOTS if entry.says(slot)):
                    kept = entry.restricted(present)
                    knobs = knobs_of(prefix, kept)
                    self._report(every, knobs, group, present)
                if any(row_of(node.op).is_product for node in group.layers):
                    knobs = self._allowed(group, every, kept, knobs, space.pairs)
            except BadInput as error:  # a knob is known by its prefix, an entry's key is not
                error.key = error.key and error.key.removeprefix(f"{prefix}.")
                raise
            borrowed = {name: ties for name, ties in here.items() if ties}
            slots = tuple(slot for slot in SLOTS if slot in present)
            target = _Target(prefix, kept, slots, group.layers, knobs, borrowed)
            for config in one_of_each_name(knobs):
                decode(target, config)  # refuses what cannot be made before any work
        return target

    def _allowed(
        self, group: _Group, every: tuple[Knob, ...], kept: SearchEntry, knobs: tuple[Knob, ...], pairs: AllowedPairs
    ) -> tuple[Knob, ...]:
        """The knobs whose pairs are allowed; with a format from elsewhere, all of them must be."""
        if not any(self._ties.of(node) for node in group.layers):
            return only_allowed(group.prefix, kept, knobs, pairs)
        if pairs.pairs and only_allowed(group.prefix, group.entry, every, pairs) != every:
            problem = f"'{group.prefix}' takes a format from elsewhere, and some pairs with it are not allowed"
            raise BadInput(problem, key="allowed", allowed="a tie by hand of the layers as a whole")
        return knobs

    def _report(self, every: tuple[Knob, ...], knobs: tuple[Knob, ...], group: _Group, present: set[str]) -> None:
        """Note the knobs that are gone, and why."""
        left = {knob.name for knob in Tree(knobs).all_knobs()}
        gone = [knob.name for knob in Tree(every).all_knobs() if knob.name not in left]
        for slot in (slot for slot in SLOTS if slot not in present and group.entry.says(slot)):
            without = group.entry.restricted([s for s in SLOTS if s != slot])
            names = {knob.name for knob in Tree(knobs_of(group.prefix, without)).all_knobs()}
            reasons = (self._ties.reason(node, slot) for node in group.layers)
            reason = next(filter(None, reasons), f"the layer has no {slot}")
            self._dropped += [Dropped(name, reason) for name in gone if name not in names]
            gone = [name for name in gone if name in names]
        self._dropped += [Dropped(name, "no format it chooses has an effect") for name in gone]

    def _fitting(self, node: Node, slots: Mapping[str, Format]) -> dict[str, Format]:
        return {s: f for s, f in complete(self._graph, node, slots).items() if f is not FULL}

    def _position(self, target: _Target) -> int:
        return self._graph.nodes.index(target.layers[0])
