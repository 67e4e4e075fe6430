"""Settings of the pass `prune`, and the tables they are read from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from paretobit.errors import BadInput, under
from paretobit.passes.transform.prune_activation import InputPruning, check_sparsity
from paretobit.passes.transform.prune_layers import Choice
from paretobit.passes.transform.prune_scores import parse_pattern
from paretobit.schemas import check_fields, schema_of

Method = Literal["l1-norm", "random", "activation-aware"]
Scope = Literal["local", "global", "output"]
Granularity = Literal["elementwise", "channel"]
Ragged = Literal["refuse", "dense"]
Groups = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class WeightPruning:
    """Which weights of which layers go.

    Args:
        sparsity: Fraction that goes, 0 to 1: of the weights, or of the output channels. A table
            gives key to fraction and chooses the layers itself, by `by`.
        pattern: N:M in place of a sparsity: `"2:4"` keeps 2 of every 4 weights that are neighbours
            along the input axis.
        method: What goes first. `l1-norm`: the smallest |w|. `random`: drawn from `seed` and the
            layer's path. `activation-aware`: the smallest |w| · ‖x‖₂ of the input feature (Wanda,
            Sun et al. 2023), which needs calibration batches.
        scope: What is ranked together. `local`: the weights of a layer. `global`: those of all
            chosen layers, so that the fraction holds for them together. `output`: those of one
            output feature, as Wanda does.
        granularity: `elementwise`, or `channel`: whole output channels with their biases, ranked by
            the mean score of their weights.
        floor: Fraction of every layer that stays at least, whatever the global rank.
        ragged: What N:M does with a layer whose input axis is no multiple of M: `refuse`, or leave
            it `dense` and list it.
        revive: Weights that an earlier pruning took may come back (as zeros that can be trained).
        seed: Of `random`.
        groups: For channels: name of a group to layers whose output channels go together; norms
            that follow may be members. Where given, nothing else is pruned unless chosen. Where
            neither groups nor layers are, the width groups of the model are meant.
        choice: The layers.

    Raises:
        BadInput: A value out of range, or two that contradict each other.
    """

    sparsity: float | Mapping[str, float] | None = None
    pattern: str | None = None
    method: Method = "l1-norm"
    scope: Scope = "local"
    granularity: Granularity = "elementwise"
    floor: float = 0.0
    ragged: Ragged = "refuse"
    revive: bool = False
    seed: int = 0
    groups: Groups = field(default_factory=dict)
    choice: Choice = field(default_factory=Choice)

    def __post_init__(self) -> None:
        check_fields(self)
        check_sparsity(self.floor, "floor")
        if (self.sparsity is None) == (self.pattern is None):
            raise BadInput("how much goes must be said once", key="sparsity", allowed="sparsity or pattern")
        if self.pattern is not None:
            parse_pattern(self.pattern)
        elif isinstance(self.sparsity, Mapping):
            for key, value in self.sparsity.items():
                check_sparsity(value, f"sparsity.{key}")
        else:
            check_sparsity(self.sparsity)
        for key, without in self._contradictions():
            raise BadInput(f"this does not go with {without}", key=key, found=getattr(self, key))

    def _contradictions(self) -> list[tuple[str, str]]:
        table, channel = isinstance(self.sparsity, Mapping), self.granularity == "channel"
        rules = [
            (self.pattern is not None and self.scope != "local", "scope", "an N:M pattern"),
            (self.pattern is not None and channel, "granularity", "an N:M pattern"),
            (self.floor > 0 and self.pattern is not None, "floor", "an N:M pattern"),
            (self.floor > 0 and self.scope == "output", "floor", "the scope 'output'"),
            (self.scope == "output" and channel, "scope", "whole channels"),
            (table and self.scope == "global", "scope", "a sparsity of each layer's own"),
            (table and bool(self.groups), "groups", "a sparsity of each layer's own"),
            (table and self.choice.layers is not None, "choice", "a table of sparsities, which chooses layers"),
            (bool(self.groups) and not channel, "groups", "single weights; granularity = 'channel' has groups"),
        ]
        return [(key, without) for broken, key, without in rules if broken]


@dataclass(frozen=True)
class ActivationPruning:
    """What is done to the inputs of the chosen layers at run time."""

    inputs: InputPruning
    choice: Choice = field(default_factory=Choice)


@dataclass(frozen=True)
class PruneSettings:
    """Settings of the pass; at least one part.

    Attributes:
        weight: Weights that go once.
        activation: Inputs that go each time a layer runs.
    """

    weight: WeightPruning | None = None
    activation: ActivationPruning | None = None

    def __post_init__(self) -> None:
        if self.weight is None and self.activation is None:
            raise BadInput("the pass prunes nothing", allowed="weight, activation")


_OF_CHOICE = ("choice", "inputs")
_WEIGHT = schema_of(WeightPruning, Choice, leave_out=_OF_CHOICE)
_ACTIVATION = schema_of(
    InputPruning,
    Choice,
    scope=(Literal["local"], "local", "the reports' word: layers run one by one"),
    granularity=(Literal["elementwise"], "elementwise", "the reports' word: single elements"),
)
PRUNE_TABLE = schema_of(
    WeightPruning,
    Choice,
    leave_out=_OF_CHOICE,
    weight=(_WEIGHT | None, None, "weights that go once: these keys, in a table of their own"),
    activation=(_ACTIVATION | None, None, "inputs that go each time a layer runs"),
)


def read_settings(table: Mapping[str, Any]) -> PruneSettings:
    """The settings that a `[passes.prune]` table describes, checked by `PRUNE_TABLE`.

    Two forms: the reports' `weight` and `activation` tables, or the keys of `weight` alone.

    Raises:
        BadInput: The two forms are mixed, or a value is out of range.
    """
    nested = [key for key in ("weight", "activation") if key in table]
    for key in table:
        if nested and key not in nested:
            raise BadInput("unknown key beside 'weight' and 'activation'", key=key, found=key, allowed=nested)
    if not nested:
        return PruneSettings(weight=_read_weight(table))
    parts: dict[str, Any] = {}
    for name, read in (("weight", _read_weight), ("activation", _read_activation)):
        if name in table:
            with under(name):
                parts[name] = read(table[name])
    return PruneSettings(**parts)


_CHOICE = ("by", "layers", "skip")


def _read_weight(table: Mapping[str, Any]) -> WeightPruning:
    own = {key: value for key, value in table.items() if key not in _CHOICE}
    return WeightPruning(**own, choice=_choice(table))


def _read_activation(table: Mapping[str, Any]) -> ActivationPruning:
    own = {key: value for key, value in table.items() if key in InputPruning.__match_args__}
    return ActivationPruning(InputPruning(**own), _choice(table))


def _choice(given: Mapping[str, Any]) -> Choice:
    lists = {}
    for key in ("layers", "skip"):
        if key in given:
            value = given[key]
            listed = [value] if isinstance(value, str) else value
            if not isinstance(listed, list | tuple) or not all(isinstance(item, str) for item in listed):
                raise BadInput("not a list of names", key=key, found=value)
            lists[key] = tuple(listed)
    return Choice(given.get("by", "type"), lists.get("layers"), lists.get("skip", ()))
