"""Multiply the widths of layers: chosen by width group, by layer, or by type of layer.

The keys are the reports': a layer's entry names a side (`output_only`, `both`, `input_only`) and a
`channel_multiplier`, or one for each side. What a layer asks for is asked of its width group, so that
all layers around it follow.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from paretobit.errors import BadInput, under
from paretobit.graph import ModelGraph, Node
from paretobit.graph.axes import Axis
from paretobit.graph.widths import WidthGroup, WidthGroups, width_groups
from paretobit.passes.layers.selection import select
from paretobit.passes.registry import PASSES
from paretobit.passes.taking import takes, with_entries
from paretobit.passes.transform.inherit import resize
from paretobit.passes.transform.width_maps import Inherit
from paretobit.schemas import Entries, OpenSchema, Schema, check_fields, schema_of

WidthBy = Literal["group", "name", "type"]
OnConflict = Literal["error", "last"]
Side = Literal["in", "out"]
NARROWEST, WIDEST = Fraction(1, 4), Fraction(8)
NOT_SET = (None, "NA")
REST = "default"

_SIDES: Mapping[str, tuple[Side, ...]] = {"output_only": ("out",), "both": ("in", "out"), "input_only": ("in",)}
_KEYS: Mapping[str, tuple[Side, ...]] = {
    "channel_multiplier": ("in", "out"),
    "input_multiplier": ("in",),
    "output_multiplier": ("out",),
    "channel_multiplier_input": ("in",),
    "channel_multiplier_output": ("out",),
}
"""The reports' keys, and the sides of a layer they mean."""


class WidthEntry(Schema):
    """What is asked of a group, a layer, or every layer of a type; a value alone is its multiplier."""

    name: Any = Field(None, description="sides of a layer: output_only, both or input_only; NA: none")
    multiplier: Any = Field(None, description="of a group: a number, or a fraction as text")
    channel_multiplier: Any = Field(None, description="the same, for every side")
    input_multiplier: Any = Field(None, description="for the input")
    output_multiplier: Any = Field(None, description="for the output")
    channel_multiplier_input: Any = Field(None, description="as input_multiplier")
    channel_multiplier_output: Any = Field(None, description="as output_multiplier")

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return {"multiplier": raw}
        return raw["config"] if set(raw) == {"config"} else raw


@dataclass(frozen=True)
class ChannelMultiplierSettings:
    """Settings of the pass.

    Attributes:
        by: How the keys of `entries` choose: width groups, layers by name, or layers by type.
        entries: Key to entry; the key `default` is for what no other key chooses.
        on_conflict: What happens where two layers ask one group for different multipliers: `error`,
            or `last`, the last in order of execution.
        inherit: Where the weights come from.
        seed: Of fresh weights and of what is copied.
        divisor: Widths become multiples of it.
    """

    by: WidthBy = "name"
    entries: Annotated[Mapping[str, Any], Entries(WidthEntry)] = field(default_factory=dict)
    on_conflict: OnConflict = "error"
    inherit: Inherit = "slice"
    seed: Annotated[int, Field(ge=0)] = 0
    divisor: Annotated[int, Field(ge=1)] = 1

    def __post_init__(self) -> None:
        check_fields(self)


class WidthTable(OpenSchema):
    """A `[passes.channel_multiplier]` table: settings, and an entry a key."""

    entry: ClassVar[type[BaseModel] | None] = WidthEntry


@dataclass(frozen=True)
class Demand:
    """What one key, or one side of one layer, asks of a group.

    Attributes:
        group: The group.
        value: The multiplier; in a search, the list of choices.
        key: The key that asks.
        layer: The layer it asks for, with its side; the group's name where a group was named.
    """

    group: WidthGroup
    value: Any
    key: str
    layer: str


@dataclass(frozen=True)
class Demands:
    """Everything that a table asks for, and what it leaves alone because it cannot change.

    Attributes:
        wanted: One demand a group.
        left: `(what, why)`: sides that a type or the default reaches and that are frozen.
        overruled: Demands that a later one overrules, with `on_conflict = "last"`, in order of execution.
    """

    wanted: tuple[Demand, ...]
    left: tuple[tuple[str, str], ...]
    overruled: tuple[Demand, ...] = ()


def channel_multiplier(graph: ModelGraph, settings: ChannelMultiplierSettings) -> tuple[ModelGraph, dict[str, Any]]:
    """A new model whose width groups are multiplied, traced again.

    Returns:
        The new graph, and `{"widths": {group: (before, after)}, "left": {layer side: reason}}`.

    Raises:
        BadInput: A key matches nothing, a named width is frozen, a multiplier is out of range, two
            layers contradict each other, or the weights cannot be inherited so.
    """
    groups = width_groups(graph)
    asked = demands(graph, groups, settings)
    widths = {}
    for demand in asked.wanted:
        with under(demand.key):
            multiplier = as_multiplier(demand.value)
        widths[demand.group.name] = scaled(demand.group, multiplier, settings.divisor)
    new = resize(graph, widths, settings.inherit, settings.seed, groups=groups)
    changes = {name: (groups[name].width, width) for name, width in widths.items()}
    return new, {"widths": changes, "left": dict(asked.left)}


@PASSES.register("channel_multiplier", summary="wider or narrower layers, by width group, layer or type")
@takes(schema_of(ChannelMultiplierSettings, leave_out=("entries",), base=WidthTable))
def channel_multiplier_pass(graph: ModelGraph, table: Mapping[str, Any]) -> tuple[ModelGraph, dict[str, Any]]:
    """`channel_multiplier` with the keys of a `[passes.channel_multiplier]` table."""
    options, entries = with_entries(ChannelMultiplierSettings, table)
    if not entries:
        raise BadInput("the pass names no widths", allowed="an entry per group, layer or type, or default")
    return channel_multiplier(graph, ChannelMultiplierSettings(**options, entries=entries))


def as_multiplier(value: Any) -> Fraction:
    """A multiplier: a number, or a fraction as text.

    >>> as_multiplier("3/2"), as_multiplier(0.25), as_multiplier(8)
    (Fraction(3, 2), Fraction(1, 4), Fraction(8, 1))
    """
    allowed = f"{NARROWEST} to {WIDEST}: a number, or a fraction such as '3/2'"
    try:
        multiplier = None if isinstance(value, bool) else Fraction(value).limit_denominator(10**6)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        multiplier = None
    if multiplier is None or not NARROWEST <= multiplier <= WIDEST:
        raise BadInput("not a multiplier", found=value, allowed=allowed)
    return multiplier


def scaled(group: WidthGroup, multiplier: Fraction, divisor: int = 1) -> int:
    """A group's width times a multiplier, rounded to what the group and the divisor allow, at least one step.

    A multiplier of one leaves the width as it is.
    """
    if multiplier == 1:
        return group.width
    step = math.lcm(group.divisor, divisor)
    return max(1, math.floor(group.width * multiplier / step + Fraction(1, 2))) * step


def demands(graph: ModelGraph, groups: WidthGroups, settings: ChannelMultiplierSettings) -> Demands:
    """What the entries mean for the groups of a model, in order of execution."""
    asked: list[Demand] = []
    left: list[tuple[str, str]] = []
    for key, entry in settings.entries.items():
        if key == REST:
            continue
        with under(key):
            if settings.by == "group":
                asked += _of_group(groups, key, entry)
            else:
                asked += _of_layers(graph, groups, settings.by, key, entry, left)
    order = {name: k for k, name in enumerate(node.name for node in graph)}
    asked.sort(key=lambda demand: order.get(demand.layer.split(" ")[0], -1))
    wanted = _agreed(asked, settings.on_conflict)
    rest = settings.entries.get(REST)
    with under(REST):
        wanted += _of_rest(groups, {d.group.name for d in wanted}, rest)
    place = {group.name: k for k, group in enumerate(groups)}
    overruled = [demand for demand in asked if not any(demand is other for other in wanted)]
    if settings.on_conflict == "error":
        overruled = []  # they agree
    wanted.sort(key=lambda demand: place[demand.group.name])
    return Demands(tuple(wanted), tuple(left), tuple(overruled))


def _of_group(groups: WidthGroups, key: str, entry: Any) -> Iterator[Demand]:
    group = groups[key]
    value = _single(entry)
    if value in NOT_SET:
        return
    if group.frozen is not None:
        raise BadInput(f"this width cannot change: {group.frozen}")
    yield Demand(group, value, key, group.name)


def _single(entry: Any) -> Any:
    """The multiplier of an entry that has no sides: a value, or a table with `multiplier`."""
    if not isinstance(entry, Mapping):
        return entry
    if set(entry) == {"config"}:
        return _single(entry["config"])
    known = ("multiplier", "channel_multiplier")
    for key in entry:
        if key not in (*known, "name"):
            raise BadInput("unknown key", key=key, found=key, allowed=known)
    if tuple(entry) == ("name",) and entry["name"] in NOT_SET:
        return None
    given = [entry[key] for key in known if key in entry]
    if len(given) != 1:
        raise BadInput("no multiplier" if not given else "two multipliers", found=dict(entry), allowed=known)
    return given[0]


def _of_rest(groups: WidthGroups, taken: Iterable[str], entry: Any) -> list[Demand]:
    """The default's demand of every free group that nothing else chooses."""
    value = None if entry is None else _single(entry)
    if value in NOT_SET:
        return []
    return [Demand(g, value, REST, g.name) for g in groups.free if g.name not in taken]


def _of_layers(
    graph: ModelGraph,
    groups: WidthGroups,
    by: Literal["name", "type"],
    key: str,
    entry: Any,
    left: list[tuple[str, str]],
) -> Iterator[Demand]:
    """The demands of one entry over the layers it chooses.

    A layer that is named must be able to change; of a type, those that can do.
    """
    values = read_sides(entry)
    found = False
    for node in select(graph, by, key):
        for side, value in values.items():
            place = f"{node.name} {side}put"
            reason = _why_not(groups, node, side)
            if reason is None:
                found = True
                yield from (Demand(group, value, key, place) for group in groups.of(_axis_at(groups, node, side)))
            elif by == "type":
                left.append((place, reason))
            else:
                raise BadInput(f"the {side}put of layer '{node.name}' cannot change: {reason}")
    if values and not found:
        raise BadInput("no layer of this type has a width that can change", found=key)


def _axis_at(groups: WidthGroups, node: Node, side: Side) -> Axis:
    layer = groups.layers[node.name]
    return (layer.takes, layer.gives)[side == "out"] or layer.takes or layer.gives or ()


def _why_not(groups: WidthGroups, node: Node, side: Side) -> str | None:
    """Why a side of a layer cannot change; None where all of it can."""
    layer = groups.layers.get(node.name)
    if layer is None:
        return "it has no channels of its own"
    if layer.takes is None and side == "in":
        return "it takes indices"
    return groups.variables.why_fixed(_axis_at(groups, node, side)) or None


def read_sides(entry: Any) -> dict[Side, Any]:
    """What an entry asks of each side of a layer, in the reports' keys.

    >>> read_sides({"config": {"name": "both", "input_multiplier": 2, "output_multiplier": 4}})
    {'in': 2, 'out': 4}
    """
    if not isinstance(entry, Mapping):
        raise BadInput("not a table", found=entry, allowed="name, and channel_multiplier")
    if set(entry) == {"config"}:
        return read_sides(entry["config"])
    name: Any = entry.get("name")
    if isinstance(name, list | tuple):  # as in the reports' seeds: a list of one choice
        if len(name) != 1:
            raise BadInput("the side is no choice", key="name", found=list(name), allowed=list(_SIDES))
        (name,) = name
    if not isinstance(name, str | None):
        raise BadInput("unknown side", key="name", found=name, allowed=list(_SIDES))
    if name in NOT_SET and "name" in entry:
        if len(entry) > 1:
            raise BadInput("a multiplier without a side", key="name", found=name, allowed=list(_SIDES))
        return {}
    if name is None or name not in _SIDES:
        raise BadInput("unknown side", key="name", found=name, allowed=list(_SIDES))
    sides = _SIDES[name]
    values: dict[Side, Any] = {}
    for key, value in entry.items():
        if key == "name":
            continue
        meant = [side for side in _KEYS[key] if side in sides]
        if not meant:
            raise BadInput(f"'{name}' does not change this side", key=key, found=value)
        for side in meant:
            if side in values:
                raise BadInput(f"the {side}put is given twice", key=key, found=value)
            values[side] = value
    for side in sides:
        if side not in values:
            raise BadInput(f"no multiplier for the {side}put", key="name", found=name, allowed=list(_KEYS))
    return {side: values[side] for side in ("in", "out") if side in values}


def _agreed(asked: Sequence[Demand], on_conflict: OnConflict) -> list[Demand]:
    """One demand a group; the last one where that is asked for.

    Raises:
        BadInput: Two demands contradict each other.
    """
    chosen: dict[str, Demand] = {}
    for demand in asked:
        before = chosen.get(demand.group.name)
        if before is not None and before.value != demand.value and on_conflict == "error":
            raise BadInput(
                f"'{before.layer}' and '{demand.layer}' are one width group, '{demand.group.name}', and "
                'contradict each other (on_conflict = "last" takes the later one)',
                key=demand.key,
                found=[before.value, demand.value],
            )
        if before is None or before.value != demand.value or on_conflict == "last":
            chosen[demand.group.name] = demand
    return list(chosen.values())
