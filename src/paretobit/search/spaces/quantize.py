"""The space `quantize`: which number format each slot of each layer takes.

A seed entry gives, per slot, either whole formats as one knob
(`data_in = [{width = 16, frac_width = 8}, ...]`) or parameters as separate knobs
(`data_in_width = [4, 8]`). A scalar is fixed: no knob.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from torch import nn

from paretobit.errors import BadInput
from paretobit.formats import FULL, Format
from paretobit.graph import ModelGraph, Node
from paretobit.nn import layer_at
from paretobit.passes.choice import FIRST, LAST, LayerChoice
from paretobit.passes.entries import SLOTS, Entry, is_float
from paretobit.passes.pairs import AllowedPairs
from paretobit.passes.quantizable import complete, is_product, slots_at
from paretobit.passes.selection import By, path_of
from paretobit.passes.transform.quantize import Assignment, instrument_layers
from paretobit.search.knobs import Config, Knob, Option, Tree, Value
from paretobit.search.spaces.allowed import only_allowed
from paretobit.search.spaces.base import SPACES, BoundSpace, Dropped, Space, check_keys
from paretobit.search.spaces.format_knobs import (
    Choices,
    decode,
    knobs_of,
    one_of_each_name,
    plain,
    read_entry,
    spelt_out,
)

Share = Literal["name", "type"]


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
            `paretobit.passes.pairs`); the space holds no others.

    Raises:
        BadInput: An unknown value of `by` or `share`, an empty seed, or pairs that are none.
    """

    name: ClassVar[str] = "quantize"

    def __init__(
        self,
        *,
        by: By = "type",
        seed: Mapping[str, Mapping[str, Any]],
        share: Share = "name",
        skip: Sequence[str] = (),
        first: Mapping[str, Any] | None = None,
        last: Mapping[str, Any] | None = None,
        allowed: Sequence[Sequence[str]] | None = None,
    ) -> None:
        if by not in get_args(By):
            raise BadInput("unknown way to choose layers", key="by", found=by, allowed=get_args(By))
        if share not in get_args(Share):
            raise BadInput("unknown way to share knobs", key="share", found=share, allowed=get_args(Share))
        if not isinstance(seed, Mapping) or not seed:
            raise BadInput(
                "the seed names no layers", key="seed", found=seed, allowed="a table per type or layer"
            )
        self.by, self.seed, self.share, self.skip = by, dict(seed), share, skip
        self.ends = {end: entry for end, entry in ((FIRST, first), (LAST, last)) if entry is not None}
        self.allowed, self.pairs = allowed, AllowedPairs.read(allowed)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Quantize:
        """The space that a `[search.space]` table describes."""
        allowed = ("by", "seed", "share", "skip", FIRST, LAST, "allowed")
        check_keys(settings, allowed, "a table per type or layer")
        return cls(**settings)

    def to_settings(self) -> dict[str, Any]:
        """Plain values, formats as text."""
        given = {"skip": self.skip, **self.ends, "allowed": self.allowed}
        more = {key: plain(value) for key, value in given.items() if value}
        return {"by": self.by, "share": self.share, "seed": plain(self.seed), **more}

    def bind(self, graph: ModelGraph) -> BoundQuantize:
        """The space over one model."""
        return BoundQuantize(self, graph)

    @staticmethod
    def explain(described: Mapping[str, Any], config: Config) -> dict[str, Any]:
        """`{"seq_blocks_2": {"config": {"name": "integer", "data_in_width": 8, ...}}}`."""
        nested: dict[str, Any] = {}
        for target in described["targets"]:
            formats = decode(
                Choices(target["prefix"], Entry(**target["entry"]), tuple(target["slots"])), config
            )
            for layer, slots in target["layers"].items():
                nested[layer] = {"config": spelt_out({s: f for s, f in formats.items() if s in slots})}
        return nested


@dataclass(frozen=True)
class _Target(Choices):
    """Layers that share one set of knobs."""

    layers: tuple[Node, ...]
    knobs: tuple[Knob, ...]


class BoundQuantize(BoundSpace):
    """The space `quantize` over one model."""

    def __init__(self, space: Quantize, graph: ModelGraph) -> None:
        super().__init__(graph)
        self._dropped: list[Dropped] = []
        self._targets = sorted(self._make_targets(space), key=self._position)
        if not self._targets:
            raise BadInput("the model has no layer that can be quantised", key="seed.default")
        self._decoded: dict[tuple[int, tuple[Value, ...]], tuple[dict[str, Format], ...]] = {}
        self.tree = Tree(tuple(knob for target in self._targets for knob in target.knobs))
        self.dropped = tuple(self._dropped)
        chosen = {node.name for target in self._targets for node in target.layers}
        self.matched = tuple(node.name for node in graph if node.name in chosen)
        self.unmatched = tuple(node.name for node in graph.layers if node.name not in chosen)
        self._names = [tuple(k.name for k in Tree(t.knobs).all_knobs()) for t in self._targets]

    def formats(self, config: Config) -> Assignment:
        """The formats of every varied layer under a configuration."""
        assignment: dict[str, dict[str, Format]] = {}
        for i, target in enumerate(self._targets):
            key = (i, tuple([config.get(name) for name in self._names[i]]))
            decoded = self._decoded.get(key)
            if decoded is None:
                slots = decode(target, config)
                decoded = tuple(self._fitting(node, slots) for node in target.layers)
                self._decoded[key] = decoded
            for node, slots_of_layer in zip(target.layers, decoded, strict=True):
                assignment[path_of(node)] = slots_of_layer
        return assignment

    def instrument(self, model: nn.Module) -> None:
        """The varied layers become quantised layers, all at full precision."""
        instrument_layers(model, tuple(path_of(n) for t in self._targets for n in t.layers))

    def apply(self, prepared: nn.Module, config: Config | None) -> nn.Module:
        """Set the slots of every varied layer; what is not named returns to full precision."""
        formats = {} if config is None else self.formats(config)
        for target in self._targets:
            for node in target.layers:
                layer = layer_at(prepared, path_of(node))
                assert layer is not None
                layer.set_slots(formats.get(path_of(node), {}))
        return prepared

    def describe(self) -> dict[str, Any]:
        """The targets: prefix, entry, and the slots of each layer."""
        return {"targets": [self._describe(target) for target in self._targets]}

    def _describe(self, target: _Target) -> dict[str, Any]:
        layers = {node.name: list(slots_at(self._graph, node)) for node in target.layers}
        entry = {
            "name": target.entry.name,
            "whole": plain(target.entry.whole),
            "parameters": plain(target.entry.parameters),
        }
        return {"prefix": target.prefix, "slots": list(target.slots), "layers": layers, "entry": entry}

    def _make_targets(self, space: Quantize) -> Iterator[_Target]:
        choice = LayerChoice(self._graph, space.by, space.skip, space.ends)
        for end, raw in space.ends.items():
            try:
                yield from self._group(end, (choice.end(end),), read_entry(raw), space)
            except BadInput as error:
                raise error.under(end) from None
        for key, raw in space.seed.items():
            try:
                entry = read_entry(raw)
                if key != "default":
                    yield from self._group(key, choice.by_key(key, entry.written), entry, space)
            except BadInput as error:
                raise error.under(f"seed.{key}") from None
        if "default" not in space.seed:
            return
        try:
            default = read_entry(space.seed["default"])
            if default.name is None or not is_float(default.name):
                yield from self._group("default", choice.rest(), default, space)
        except BadInput as error:
            raise error.under("seed.default") from None

    def _group(self, key: str, layers: tuple[Node, ...], entry: Entry, space: Quantize) -> Iterator[_Target]:
        together = space.share == "type" and layers
        groups = [(key, layers)] if together else [(node.name, (node,)) for node in layers]
        for prefix, group in groups:
            present = {slot for node in group for slot in slots_at(self._graph, node)}
            try:
                knobs = self._without_effect(prefix, knobs_of(prefix, entry), present)
                if any(is_product(self._graph, node) for node in group):
                    knobs = only_allowed(prefix, entry, knobs, space.pairs)
            except BadInput as error:  # a knob is known by its prefix, an entry's key is not
                error.key = error.key and error.key.removeprefix(f"{prefix}.")
                raise
            target = _Target(prefix, entry, tuple(s for s in SLOTS if s in present), group, knobs)
            for config in one_of_each_name(knobs):
                decode(target, config)  # refuses what cannot be made before any work
            yield target

    def _without_effect(self, prefix: str, knobs: tuple[Knob, ...], present: set[str]) -> tuple[Knob, ...]:
        """Drop knobs of slots that no layer of the group has."""
        absent = [slot for slot in SLOTS if slot not in present]

        def kept(knob: Knob) -> Knob | None:
            name = knob.name.removeprefix(prefix + ".")
            slot = next((s for s in absent if name == s or name.startswith((f"{s}_", f"{s}."))), None)
            if slot is not None:
                if all(dropped.knob != knob.name for dropped in self._dropped):
                    self._dropped.append(Dropped(knob.name, f"the layer has no {slot}"))
                return None
            options = [Option(o.value, tuple(k for k in map(kept, o.knobs) if k)) for o in knob.options]
            return Knob(knob.name, tuple(options))

        return tuple(k for k in map(kept, knobs) if k)

    def _fitting(self, node: Node, slots: Mapping[str, Format]) -> dict[str, Format]:
        return {s: f for s, f in complete(self._graph, node, slots).items() if f is not FULL}

    def _position(self, target: _Target) -> int:
        return self._graph.nodes.index(target.layers[0])
