"""Evidence about a model in memory: score tables from its calibration rows, costs from its runners."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import nn

from paretobit.errors import BadInput, first_line
from paretobit.formats import FULL, Format
from paretobit.runtime import derive_seed, seeded
from paretobit.spaces import BoundSpace
from paretobit.spaces.knobs import Config, Tree
from paretobit.strategies.insight.groups import KnobGroup, Place, Treatments, Unit, Values, knob_groups, options_of
from paretobit.strategies.insight.insight import FROM_GRADIENTS, UNSCORED, Group, ScoreTable, assembled
from paretobit.strategies.insight.scores import ROWS_AT_A_TIME, Scores
from paretobit.strategies.insight.unit_trials import KL, UnitTrials, fisher_scores, kl_scores
from paretobit.trials.evidence import Evidence
from paretobit.wanted.objectives import Metrics

DRAWS = 4
"""Labels a row: a backward pass each. Scores are means over rows and draws, of which rows are the more."""


class ModelInsight:
    """`Insight` of a space over a model.

    Args:
        space: What varies.
        evidence: The calibration rows.
        costs: The metrics of a configuration that need no model.
        seed: Of the labels that are drawn.
        known: Tables that were computed before, as `keep` was given them.
        keep: Is given all tables, JSON-able, whenever some were computed.

    Attributes:
        tables: None where there are no calibration rows.
        outer: Knobs that change shapes.
        choices: Knobs that are neither local nor change shapes.
    """

    def __init__(
        self,
        space: BoundSpace,
        evidence: Evidence,
        costs: Callable[[Config], Metrics],
        seed: int,
        known: Mapping[str, Any] | None = None,
        keep: Callable[[Mapping[str, Any]], None] = lambda tables: None,
    ) -> None:
        self._space, self._evidence, self.costs, self._seed = space, evidence, costs, seed
        local, outer = space.acts_on(), set(space.outer)
        knobs = space.tree.knobs
        self.tables: tuple[str, ...] = (*FROM_GRADIENTS, KL) if evidence.calibration is not None else ()
        self.outer = Tree(tuple(knob for knob in knobs if knob.name in outer))
        self.choices = Tree(tuple(k for k in knobs if k.name not in outer and k.name not in local))
        self._known = dict(known or {})
        self._failed: dict[str, BadInput] = {}
        self._keep = keep

    def table(self, name: str, outer: Config, around: Config | None = None) -> ScoreTable:
        """One table; those that come from gradients are computed together, and fail together."""
        if name == UNSCORED:
            return self._unscored(outer)
        allowed = self.tables if around is None else tuple(t for t in self.tables if t in FROM_GRADIENTS)
        if name not in allowed:
            problem = "there is no such score table" + ("" if around is None else " around a configuration")
            raise BadInput(problem, key="table", found=name, allowed=allowed)
        key, together = _key(name, outer, around), _key((KL,) if name == KL else FROM_GRADIENTS, outer, around)
        if together in self._failed:
            raise self._failed[together]
        if key not in self._known:
            try:
                measured = self._measure(name, outer, around)
            except BadInput as error:
                self._failed[together] = error
                raise
            except Exception as error:  # whatever somebody's model does when it is looked into
                self._failed[together] = BadInput(f"the model cannot be scored: {first_line(error)}")
                raise self._failed[together] from error
            self._known |= {_key(found, outer, around): table.to_json() for found, table in measured.items()}
            self._keep(self._known)
        return ScoreTable.from_json(self._known[key])

    @cached_property
    def _groups(self) -> tuple[KnobGroup, ...]:
        return knob_groups(self._space)

    @cached_property
    def _model(self) -> nn.Module:
        """A private instrumented copy."""
        return self._space.prepare()

    def _measure(self, name: str, outer: Config, around: Config | None) -> dict[str, ScoreTable]:
        """The table, and those that come with it.

        Where a group has too many options to list them, its formats are scored for each slot apart, and
        what only the options that are left bring (the accumulator of a bias) after that.
        """
        treatments = self._treatments(outer)
        shown = [self._shown(treatments, group) for group in self._groups]
        if around is not None:  # then full precision is a change too
            places = [{(path, slot) for path, slot, _ in own} for own in shown]
            shown = [self._shown(treatments, g, at) for g, at in zip(self._groups, places, strict=True)]
        names = (KL,) if name == KL else FROM_GRADIENTS
        scores = self._scores(name, treatments, shown, outer, around)
        options = {table: self._options(treatments, scores, table) for table in names}
        known = {unit for own in shown for unit in own}
        missing = [
            {
                unit: values
                for table in names
                for values in options[table][g]
                for unit in treatments.units(group, values).values()
                if unit not in known
            }
            for g, group in enumerate(self._groups)
        ]
        if any(missing):
            scores.join(self._scores(name, treatments, missing, outer, around))
        return {table: self._table(treatments, scores, table, options[table]) for table in names}

    def _scores(
        self,
        name: str,
        treatments: Treatments,
        shown: Sequence[Mapping[Unit, Values]],
        outer: Config,
        around: Config | None,
    ) -> Scores:
        calibration = self._evidence.calibration
        assert calibration is not None
        seed = derive_seed(self._seed, "labels", list(outer.items()))
        with seeded(seed):  # formats may draw, and nobody else's numbers shall differ for it
            trials = UnitTrials(self._space, self._model, treatments, shown, around)
            if name == KL:
                return kl_scores(trials, calibration)
            rows = max(ROWS_AT_A_TIME, self._evidence.rows_per_pass)
            return fisher_scores(trials, calibration, DRAWS, seed, rows)

    def _treatments(self, outer: Config) -> Treatments:
        first = dict(self._space.tree.at(0))
        return Treatments(self._space, assembled(self._space.tree, first, outer))

    def _unscored(self, outer: Config) -> ScoreTable:
        treatments = self._treatments(outer)
        groups = []
        for group in self._groups:
            options = options_of(treatments, group, lambda _, choices, *__: choices)
            groups.append(Group(", ".join(group.paths), tuple(map(Config, options)), (0.0,) * len(options)))
        return ScoreTable(tuple(groups), 0.0, {})

    def _shown(self, treatments: Treatments, group: KnobGroup, named: Iterable[Place] = ()) -> dict[Unit, Values]:
        """The units that decide between options of a group, and values of knobs that show them.

        Full precision, and weights as they are, are units only at the places `named`.
        """
        shown: dict[Unit, Values] = {}

        def note(
            group: KnobGroup, choices: list[Values], around: Values, places: set[Place] | None = None
        ) -> list[Values]:
            for values in choices:
                for place, unit in treatments.units(group, {**around, **values}, named).items():
                    if places is None or place in places:
                        shown.setdefault(unit, {**around, **values})
            return choices[:1]

        note(group, options_of(treatments, group, note), {})
        return shown

    def _options(self, treatments: Treatments, scores: Scores, name: str) -> list[list[Values]]:
        """The options of every group; where they are too many, those that harm least by this table."""
        means = scores.mean(name)

        def best(group: KnobGroup, choices: list[Values], around: Values, places: set[Place]) -> list[Values]:
            every = [treatments.units(group, {**around, **values}) for values in choices]
            return [choices[i] for i in _best_of_each_kind(means, every, places)]

        return [options_of(treatments, group, best) for group in self._groups]

    def _table(
        self, treatments: Treatments, scores: Scores, name: str, options: Sequence[Sequence[Values]]
    ) -> ScoreTable:
        means = scores.mean(name)
        reason = f"its score in the table {name} is not finite"
        excluded = {" ".join(map(str, unit)): reason for unit, mean in means.items() if mean == math.inf}
        groups = []
        for group, own in zip(self._groups, options, strict=True):
            units = [unit for unit in means if unit[0] in group.paths]
            places = {(path, slot) for path, slot, carried in units if carried is None or carried is FULL}
            harms = [sum(means[u] for u in treatments.units(group, v, places).values()) for v in own]
            groups.append(Group(", ".join(group.paths), tuple(map(Config, own)), tuple(harms)))
        return ScoreTable(tuple(groups), scores.mean_loss, excluded)


def _key(name: str | Sequence[str], outer: Config, around: Config | None) -> str:
    return " ".join([str(name), outer.to_json(), *([] if around is None else [around.to_json()])])


def _best_of_each_kind(
    means: Mapping[Unit, float], choices: Sequence[Mapping[Place, Unit]], places: set[Place]
) -> list[int]:
    """Of the choices whose formats are of the same families and sizes, the one that harms least there."""
    best: dict[Any, tuple[float, int]] = {}
    for i, units in enumerate(choices):
        kind = tuple((place, _kind(unit[2])) for place, unit in units.items())
        harm = sum(means[unit] for place, unit in units.items() if place in places)
        best[kind] = min(best.get(kind, (math.inf, i)), (harm, i))
    return sorted(i for _, i in best.values())


def _kind(carried: object) -> object:
    """What decides the cost of a format, whatever its other parameters are; a pruning is its own kind."""
    return (type(carried), carried.bits(_LARGE)) if isinstance(carried, Format) else carried


_LARGE = (64, 4096)  # so large that the shape does not matter
