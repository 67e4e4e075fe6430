"""The space `channel_multiplier`: how wide each width group of the model is.

An entry gives the reports' keys with a list of multipliers in the place of one, or a list of
multipliers for a group. Every group has one knob, whichever of its layers asks for it.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from paretobit.data.calibration import Calibration
from paretobit.errors import BadInput, under
from paretobit.graph import ModelGraph
from paretobit.graph.widths import WidthGroup, width_groups
from paretobit.passes.transform.channel_multiplier import (
    ChannelMultiplierSettings,
    Demand,
    OnConflict,
    WidthBy,
    WidthEntry,
    as_multiplier,
    demands,
    scaled,
)
from paretobit.passes.transform.inherit import resize
from paretobit.passes.transform.width_maps import Inherit, make_plan
from paretobit.schemas import Entries
from paretobit.spaces.base import SPACES, Dropped, OwnModels, Space, Step
from paretobit.spaces.format_knobs import as_list, plain
from paretobit.spaces.knobs import Config, Knob, Option, Tree, Value
from paretobit.spaces.mentions import Mention, keys_of, seed_without

ShareWidths = Literal["name", "key"]
_KEPT_GRAPHS = 4


@SPACES.register("channel_multiplier")
class ChannelMultiplier(Space):
    """Widths of layers, chosen by width group, by layer name or by type.

    Args:
        by: How the keys of `seed` choose: `group`, `name` or `type`.
        seed: Key to entry; multipliers may be lists. The key `default` is for the other groups.
        share: `name`: every group has a knob of its own. `key`: the groups of one key share a knob.
        on_conflict: `error`, or `last`: the last layer in order of execution decides. What the others ask
            for is varied all the same, and configurations of equal widths are answered as duplicates.
        inherit: Where the weights of a resized model come from.
        divisor: Widths become multiples of it.

    Raises:
        BadInput: An unknown choice, or an empty seed.
    """

    name: ClassVar[str] = "channel_multiplier"
    step: ClassVar[Step | None] = Step("channel_multiplier", "shape")

    def __init__(
        self,
        *,
        by: WidthBy = "name",
        seed: Annotated[Mapping[str, Any], Entries(WidthEntry, "widths")],
        share: ShareWidths = "name",
        on_conflict: OnConflict = "error",
        inherit: Inherit = "slice",
        divisor: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        self.check(by=by, seed=seed, share=share, on_conflict=on_conflict, inherit=inherit, divisor=divisor)
        self.by, self.seed, self.share = by, dict(seed), share
        self.on_conflict, self.inherit, self.divisor = on_conflict, inherit, divisor

    @property
    def settings(self) -> ChannelMultiplierSettings:
        """Those of the pass that does the same with one multiplier each."""
        return ChannelMultiplierSettings(
            self.by, self.seed, on_conflict=self.on_conflict, inherit=self.inherit, divisor=self.divisor
        )

    def mentions(self) -> list[Mention]:
        return list(keys_of(self.seed, self.by))

    def without(self, gone: Container[Mention]) -> ChannelMultiplier | None:
        other = copy.copy(self)
        other.seed = seed_without(self.seed, self.by, gone)
        return other if other.seed else None

    def bind(self, graph: ModelGraph, calibration: Calibration | None = None) -> BoundChannelMultiplier:
        """The space over one model, which needs no calibration.

        Raises:
            BadInput: The description does not fit the model, or a width it offers cannot be built.
        """
        return BoundChannelMultiplier(self, graph)

    @staticmethod
    def explain(described: Mapping[str, Any], config: Config) -> dict[str, Any]:
        """`{"seq_blocks_2": {"config": {"multiplier": 2, "width": 32}}}`, a width group each."""
        spelt: dict[str, Any] = {}
        for target in described["targets"]:
            knob = target["knob"]
            value = target["values"][0] if knob is None else config[knob]
            for group, widths in target["widths"].items():
                width = widths[target["values"].index(value)]
                spelt[group] = {"config": {"multiplier": value, "width": width}}
        return spelt


@dataclass(frozen=True)
class _Target:
    """Groups that share their multiplier: its values, and the width each of them means for each group."""

    knob: str | None
    values: tuple[Value, ...]
    widths: Mapping[str, tuple[int, ...]]


class BoundChannelMultiplier(OwnModels):
    """The space `channel_multiplier` over one model.

    Attributes:
        tree: The knobs, in order of execution.
        dropped: Options and sides without effect, with the reason.
        matched: Layers whose channels vary, by node name.
        unmatched: The others.
    """

    name = ChannelMultiplier.name

    def __init__(self, space: ChannelMultiplier, graph: ModelGraph) -> None:
        super().__init__(graph)
        self._settings = space.settings
        self._groups = width_groups(graph)
        self._dropped: list[Dropped] = []
        self._built: OrderedDict[tuple[tuple[str, int], ...], ModelGraph] = OrderedDict()
        with under("seed"):
            asked = demands(graph, self._groups, space.settings)
            self._targets = [self._target(*item) for item in self._shared(asked.wanted, space.share)]
            idle = [self._without_effect(demand) for demand in asked.overruled]
        if not self._targets:
            raise BadInput("no width of the model varies", key="seed")
        knobs = [Knob(t.knob, tuple(map(Option, t.values))) for t in self._targets if t.knob]
        self.tree = Tree((*(knob for knob in idle if len(knob.values) > 1), *knobs))
        self.has_equals = bool(idle)
        self.dropped = (*self._dropped, *(Dropped(place, reason) for place, reason in asked.left))
        varied = {name for target in self._targets for name in target.widths}
        layers = {m.layer for group in self._groups if group.name in varied for m in group.members}
        self.matched = tuple(node.name for node in graph.layers if node.name in layers)
        self.unmatched = tuple(node.name for node in graph.layers if node.name not in layers)
        self._check_that_all_can_be_built()

    def widths(self, config: Config) -> dict[str, int]:
        widths: dict[str, int] = {}
        for target in self._targets:
            k = 0 if target.knob is None else target.values.index(config[target.knob])
            widths |= {group: choices[k] for group, choices in target.widths.items()}
        return widths

    def network_of(self, config: Config) -> Hashable:
        return tuple(self.widths(config).items())

    def graph(self, config: Config) -> ModelGraph:
        """The traced model of a configuration; the last few widths are kept, for costs as for measuring."""
        widths = self.widths(config)
        key = tuple(widths.items())
        if key not in self._built:
            inherit, seed = self._settings.inherit, self._settings.seed
            self._built[key] = resize(self._graph, widths, inherit, seed, groups=self._groups)
            if len(self._built) > _KEPT_GRAPHS:
                self._built.popitem(last=False)
        self._built.move_to_end(key)
        return self._built[key]

    def describe(self) -> dict[str, Any]:
        targets = [
            {"knob": t.knob, "values": list(t.values), "widths": {g: list(w) for g, w in t.widths.items()}}
            for t in self._targets
        ]
        return {"targets": targets}

    def _shared(self, wanted: Sequence[Demand], share: ShareWidths) -> list[tuple[str, str, Any, list[WidthGroup]]]:
        """Name, key, choices and groups of every target."""
        if share == "name":
            return [(demand.group.name, demand.key, demand.value, [demand.group]) for demand in wanted]
        by_key: dict[str, list[Demand]] = {}
        for demand in wanted:
            by_key.setdefault(demand.key, []).append(demand)
        shared = []
        for key, alike in by_key.items():
            if any(demand.value != alike[0].value for demand in alike):
                values = [demand.value for demand in alike]
                raise BadInput("a shared knob has one list of multipliers", key=key, found=values)
            shared.append((key, key, alike[0].value, [demand.group for demand in alike]))
        return shared

    @staticmethod
    def _without_effect(demand: Demand) -> Knob:
        """The knob of a demand that a later layer overrules: varied all the same, as in the reports."""
        choices = as_list(demand.value)
        for choice in choices:
            as_multiplier(choice)
        return Knob.of(f"{demand.layer.replace(' ', '.')}.multiplier", [plain(choice) for choice in choices])

    def _target(self, name: str, key: str, choices: Any, groups: Sequence[WidthGroup]) -> _Target:
        """The options that differ in a width; of those that do not, the first stays."""
        with under(key):
            listed = as_list(choices)
            if not listed:
                raise BadInput("a knob needs at least one option", found=[])
            kept: dict[tuple[int, ...], Value] = {}
            for choice in listed:
                multiplier = as_multiplier(choice)
                widths = tuple(scaled(group, multiplier, self._settings.divisor) for group in groups)
                if kept.setdefault(widths, plain(choice)) != plain(choice):
                    reason = f"multiplier {choice} gives the widths of {kept[widths]}"
                    self._dropped.append(Dropped(f"{name}.multiplier", reason))
        per_group = {group.name: tuple(widths[k] for widths in kept) for k, group in enumerate(groups)}
        return _Target(f"{name}.multiplier" if len(kept) > 1 else None, tuple(kept.values()), per_group)

    def _check_that_all_can_be_built(self) -> None:
        """Refuse before any work what cannot be inherited, and sizes in the code that no graph shows."""
        for target in self._targets:
            for k in range(len(target.values)):
                widths = {group: choices[k] for group, choices in target.widths.items()}
                make_plan(self._groups, widths, self._settings.inherit, self._settings.seed)
        if self._graph.method != "fx":
            for config in (self.tree.at(0), self.tree.at(self.tree.size - 1)):
                self.graph(config)
