"""What a strategy can ask about a model before it proposes anything: which option costs and harms how much.

Knobs come in three kinds. Those with a *local* effect (formats, sparsity of one layer) make groups:
the harm of a configuration is, to first approximation, the sum of the harms of the options that its
groups take. *Outer* knobs change the model as a whole (widths): every choice of them has tables of
its own. *Choices* change neither cost nor shape (a correction after quantisation) and are decided for
each point by measuring.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from paretobit.errors import BadInput
from paretobit.spaces.knobs import Config, Knob, Tree, Value
from paretobit.wanted.objectives import Metrics

FROM_GRADIENTS = ("diagonal", "directional")
"""Tables that there are around configurations too."""
UNSCORED = "unscored"
"""The table that every insight has: all options, none of them harmful."""


@dataclass(frozen=True)
class Group:
    """Local knobs that are decided together.

    Attributes:
        name: Of the layers they act on.
        options: Values of the group's active knobs, for each option.
        scores: Predicted increase of the loss under each option, the other groups at full precision, in
            nats for cross-entropy; infinite where it could not be computed.
    """

    name: str
    options: tuple[Config, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class ScoreTable:
    """How much every option of every group is predicted to harm.

    Attributes:
        groups: In the order of the tree.
        base: Loss of the model itself, on the calibration rows.
        excluded: Option, in words, to the reason why it is not proposed.
    """

    groups: tuple[Group, ...]
    base: float
    excluded: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain values; JSON has no infinity, None stands for it."""
        groups = [
            {
                "name": g.name,
                "options": [dict(o) for o in g.options],
                "scores": [score if math.isfinite(score) else None for score in g.scores],
            }
            for g in self.groups
        ]
        return {"groups": groups, "base": self.base, "excluded": dict(self.excluded)}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> ScoreTable:
        """What `to_json` gave."""
        groups = tuple(
            Group(
                g["name"],
                tuple(map(Config, g["options"])),
                tuple(math.inf if score is None else float(score) for score in g["scores"]),
            )
            for g in plain["groups"]
        )
        return cls(groups, float(plain["base"]), dict(plain["excluded"]))


class Insight(Protocol):
    """Evidence about a model, computed when it is asked for.

    Attributes:
        tables: Names of the score tables that can be asked for, the preferred one first.
        outer: Knobs that change the model as a whole.
        choices: Knobs that change neither cost nor shape.
    """

    tables: tuple[str, ...]
    outer: Tree
    choices: Tree

    def table(self, name: str, outer: Config, around: Config | None = None) -> ScoreTable:
        """One table, for one choice of the outer knobs.

        Args:
            name: One of `tables`, or `UNSCORED`.
            outer: Values of the outer knobs.
            around: A configuration: harm is then relative to it, in place of full precision.

        Raises:
            BadInput: There is no such table.
        """

    def costs(self, config: Config) -> Metrics:
        """The metrics that need no model, exactly."""


class StoredInsight:
    """Tables that were computed before, and costs that are looked up.

    Args:
        tree: All knobs.
        stored: What `store` gave.
        costs: The metrics of a configuration that need no model.
    """

    def __init__(self, tree: Tree, stored: Mapping[str, Any], costs: Callable[[Config], Metrics]) -> None:
        self.tables: tuple[str, ...] = tuple(name for name in stored["tables"] if name != UNSCORED)
        self.outer, self.choices = (_only(tree, stored[kind]) for kind in ("outer", "choices"))
        self._tables = stored["tables"]
        self._costs = costs

    def table(self, name: str, outer: Config, around: Config | None = None) -> ScoreTable:
        """A stored table; there is none around a configuration."""
        if around is not None or name not in self._tables or outer.to_json() not in self._tables[name]:
            raise BadInput("the table was not stored", key="table", found=name, allowed=self.tables)
        return ScoreTable.from_json(self._tables[name][outer.to_json()])

    def costs(self, config: Config) -> Metrics:
        """Looked up by the function that was given."""
        return self._costs(config)


def store(insight: Insight, outer: Sequence[Config], names: Sequence[str] | None = None) -> dict[str, Any]:
    """Everything that `StoredInsight` needs of these choices of the outer knobs; JSON-able."""
    tables = {
        name: {config.to_json(): insight.table(name, config).to_json() for config in outer}
        for name in names or insight.tables or (UNSCORED,)
    }
    kinds = {"outer": insight.outer, "choices": insight.choices}
    return {"tables": tables, **{kind: [knob.name for knob in tree.knobs] for kind, tree in kinds.items()}}


def assembled(tree: Tree, *parts: Mapping[str, Value]) -> Config:
    """The configuration of a tree whose knobs have the values of the parts."""
    values = {name: value for part in parts for name, value in part.items()}

    def choose(knob: Knob) -> Value:
        return knob.option(values[knob.name]).value

    return tree.walk(choose)


def _only(tree: Tree, names: Sequence[str]) -> Tree:
    return Tree(tuple(knob for knob in tree.knobs if knob.name in names))
