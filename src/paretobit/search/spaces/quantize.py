"""The space `quantize`: which number format each slot of each layer takes.

A seed entry gives, per slot, either whole formats as one knob
(`data_in = [{width = 16, frac_width = 8}, ...]`) or parameters as separate knobs
(`data_in_width = [4, 8]`). A scalar is fixed: no knob.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from torch import nn

from paretobit.errors import BadInput
from paretobit.formats import FULL, Format
from paretobit.graph import ModelGraph, Node
from paretobit.nn import Quantized, slots_of
from paretobit.passes.entries import SLOTS, Entry, is_float
from paretobit.passes.selection import By, select
from paretobit.passes.transform.quantize import Assignment, check_slots, complete, instrument_layers
from paretobit.search.knobs import Config, Knob, Option, Tree, Value
from paretobit.search.spaces.base import SPACES, BoundSpace, Dropped, Space
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

    Raises:
        BadInput: An unknown value of `by` or `share`, or an empty seed.
    """

    name: ClassVar[str] = "quantize"

    def __init__(
        self, *, by: By = "type", seed: Mapping[str, Mapping[str, Any]], share: Share = "name"
    ) -> None:
        if by not in get_args(By):
            raise BadInput("unknown way to choose layers", key="by", found=by, allowed=get_args(By))
        if share not in get_args(Share):
            raise BadInput("unknown way to share knobs", key="share", found=share, allowed=get_args(Share))
        if not isinstance(seed, Mapping) or not seed:
            raise BadInput(
                "the seed names no layers", key="seed", found=seed, allowed="a table per type or layer"
            )
        self.by, self.seed, self.share = by, dict(seed), share

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Quantize:
        """The space that a `[search.space]` table describes."""
        allowed = ("by", "seed", "share")
        for key in settings:
            if key not in allowed:
                raise BadInput("unknown key", key=key, found=key, allowed=["name", *allowed])
        if "seed" not in settings:
            raise BadInput("missing key", key="seed", allowed="a table per type or layer")
        return cls(**settings)

    def to_settings(self) -> dict[str, Any]:
        """Plain values, formats as text."""
        return {"by": self.by, "share": self.share, "seed": plain(self.seed)}

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
        self._graph = graph
        self._dropped: list[Dropped] = []
        self._targets = sorted(self._make_targets(space), key=self._position)
        if not self._targets:
            raise BadInput("the model has no layer that can be quantised", key="seed.default")
        self._decoded: dict[tuple[int, tuple[Value, ...]], tuple[dict[str, Format], ...]] = {}
        self.tree = Tree(tuple(knob for target in self._targets for knob in target.knobs))
        self.dropped = tuple(self._dropped)
        chosen = {node.name for target in self._targets for node in target.layers}
        self.matched = tuple(node.name for node in graph.layers if node.name in chosen)
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
                assignment[node.owner] = slots_of_layer
        return assignment

    def prepare(self) -> nn.Module:
        """A private copy whose varied layers are quantised layers, all at full precision."""
        model = copy.deepcopy(self._graph.model)
        instrument_layers(model, tuple(n.owner for t in self._targets for n in t.layers))
        for parameter in model.parameters():
            parameter.grad = None
        return model.eval()

    def apply(self, prepared: nn.Module, formats: Assignment) -> None:
        """Set the slots of every varied layer; what is not named returns to full precision."""
        for target in self._targets:
            for node in target.layers:
                layer = prepared.get_submodule(node.owner)
                assert isinstance(layer, Quantized)
                layer.set_slots(formats[node.owner])

    def describe(self) -> dict[str, Any]:
        """The targets: prefix, entry, and the slots of each layer."""
        return {"targets": [self._describe(target) for target in self._targets]}

    def _describe(self, target: _Target) -> dict[str, Any]:
        layers = {node.name: list(slots_of(self._graph.module(node))) for node in target.layers}
        entry = {
            "name": target.entry.name,
            "whole": plain(target.entry.whole),
            "parameters": plain(target.entry.parameters),
        }
        return {"prefix": target.prefix, "slots": list(target.slots), "layers": layers, "entry": entry}

    def _make_targets(self, space: Quantize) -> Iterator[_Target]:
        chosen: dict[str, str] = {}
        entries = {key: entry for key, entry in space.seed.items() if key != "default"}
        for key, raw in entries.items():
            try:
                layers = select(self._graph, space.by, key)
                for node in layers:
                    if node.owner in chosen:
                        raise BadInput(f"layer '{node.name}' is chosen twice", found=[chosen[node.owner], key])
                    chosen[node.owner] = key
                yield from self._targets_of(key, layers, read_entry(raw), space.share)
            except BadInput as error:
                raise error.under(f"seed.{key}") from None
        if "default" not in space.seed:
            return
        rest = [n for n in self._graph.layers if n.owner not in chosen and slots_of(self._graph.module(n))]
        try:
            default = read_entry(space.seed["default"])
            if default.name is None or not is_float(default.name):
                yield from self._group("default", tuple(rest), default, space.share)
        except BadInput as error:
            raise error.under("seed.default") from None

    def _targets_of(self, key: str, layers: tuple[Node, ...], entry: Entry, share: Share) -> Iterator[_Target]:
        for node in layers:
            if not slots_of(self._graph.module(node)):
                kind = self._graph.original_type(node)
                raise BadInput(f"layer '{node.name}' is a {kind}, which cannot be quantised")
            check_slots(self._graph.module(node), node, entry.written)
        yield from self._group(key, layers, entry, share)

    def _group(self, key: str, layers: tuple[Node, ...], entry: Entry, share: Share) -> Iterator[_Target]:
        groups = [(key, layers)] if share == "type" and layers else [(node.name, (node,)) for node in layers]
        for prefix, group in groups:
            present = {slot for node in group for slot in slots_of(self._graph.module(node))}
            try:
                knobs = self._without_effect(prefix, knobs_of(prefix, entry), present)
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
        return {s: f for s, f in complete(self._graph.module(node), slots).items() if f is not FULL}

    def _position(self, target: _Target) -> int:
        return self._graph.layers.index(target.layers[0])
