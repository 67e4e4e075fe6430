"""Settings of the pass `prune`, and the tables they are read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args

from paretobit.errors import BadInput, under
from paretobit.passes.layers.selection import By
from paretobit.passes.transform.prune_activation import InputPruning, check_one_of, check_sparsity
from paretobit.passes.transform.prune_layers import Choice
from paretobit.passes.transform.prune_scores import parse_pattern

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
            gives key to fraction and chooses the layers itself, by `choice.by`.
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
        for key, words in _WORDS.items():
            check_one_of(key, getattr(self, key), get_args(words))
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


_WORDS = {"method": Method, "scope": Scope, "granularity": Granularity, "ragged": Ragged}


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


def read_settings(table: Mapping[str, Any]) -> PruneSettings:
    """The settings that a `[passes.prune]` table describes.

    Two forms: the reports' `weight` and `activation` tables, or the keys of `weight` alone.

    Raises:
        BadInput: An unknown key, or a value out of range.
    """
    nested = [key for key in ("weight", "activation") if key in table]
    for key in table:
        if nested and key not in nested:
            raise BadInput("unknown key beside 'weight' and 'activation'", key=key, found=key, allowed=nested)
    if not nested:
        return PruneSettings(weight=read_weight(table))
    parts: dict[str, Any] = {}
    for name, read in (("weight", read_weight), ("activation", read_activation)):
        if name in table:
            if not isinstance(table[name], Mapping):
                raise BadInput("not a table", key=name, found=table[name])
            with under(name):
                parts[name] = read(table[name])
    return PruneSettings(**parts)


def read_weight(table: Mapping[str, Any]) -> WeightPruning:
    """A `weight` table: fields of `WeightPruning` and of its choice of layers."""
    return _made(WeightPruning, table)


def read_activation(table: Mapping[str, Any]) -> ActivationPruning:
    """An `activation` table: fields of `InputPruning` and of its choice of layers.

    The reports' `scope = "local"` is accepted; no other is possible, as layers run one by one.
    """
    given = dict(table)
    check_one_of("scope", given.pop("scope", "local"), ("local",))
    check_one_of("granularity", given.pop("granularity", "elementwise"), ("elementwise",))
    choice = {key: given.pop(key) for key in _CHOICE if key in given}
    extra = ("scope", *_CHOICE)
    return ActivationPruning(_filled(InputPruning, given, extra), _choice(choice))


T = TypeVar("T")
_CHOICE = ("by", "layers", "skip")


def _made(kind: type[WeightPruning], table: Mapping[str, Any]) -> WeightPruning:
    given = {key: value for key, value in table.items() if key not in _CHOICE}
    if "choice" in given:
        raise BadInput("unknown key", key="choice", found="choice", allowed=_CHOICE)
    choice = _choice({key: table[key] for key in _CHOICE if key in table})
    return _filled(kind, {**given, "choice": choice}, _CHOICE)


def _filled(kind: type[T], given: Mapping[str, Any], extra: Sequence[str]) -> T:
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in given:
        if key not in names:
            allowed = [*(name for name in names if name != "choice"), *extra]
            raise BadInput("unknown key", key=key, found=key, allowed=allowed)
    if kind is InputPruning and "sparsity" not in given:
        raise BadInput("missing key", key="sparsity", allowed="a fraction from 0 to 1")
    return kind(**given)


def _choice(given: Mapping[str, Any]) -> Choice:
    check_one_of("by", given.get("by", "type"), get_args(By))
    lists = {}
    for key in ("layers", "skip"):
        if key in given:
            value = given[key]
            listed = [value] if isinstance(value, str) else value
            if not isinstance(listed, list | tuple) or not all(isinstance(item, str) for item in listed):
                raise BadInput("not a list of names", key=key, found=value)
            lists[key] = tuple(listed)
    return Choice(given.get("by", "type"), lists.get("layers"), lists.get("skip", ()))
