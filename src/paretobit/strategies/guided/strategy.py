"""The strategy: an opening that covers the costs, then the step that promises most."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from paretobit.errors import BadInput
from paretobit.spaces.knobs import Config
from paretobit.strategies.base import STRATEGIES, Strategy, StrategySettings
from paretobit.strategies.brute_force import permutation
from paretobit.strategies.guided.board import Board, Move, Point, decision
from paretobit.strategies.guided.goals import Goals
from paretobit.strategies.guided.outer import AT_RANDOM, choices, loss_of
from paretobit.strategies.guided.probing import Probes
from paretobit.strategies.guided.region import LEARNED, PROBED, Proposal, Region, Source
from paretobit.strategies.insight.allocation import Choice
from paretobit.strategies.insight.insight import FROM_GRADIENTS, UNSCORED, Insight
from paretobit.strategies.optuna_samplers import OptunaSettings
from paretobit.strategies.problem import Problem
from paretobit.studies.trial import Trial

_ENOUGH = 8  # points that tell whether predictions rank them: 0.7 by chance is 1 in 35 (of 5 points, 1 in 9)
_TRUSTED = 0.7  # rank correlation; the opening goes from few bits to many, which any useful score ranks
_LOOKED_AT = 10_000  # configurations outside the bounds until it gives up: seconds of costs, not minutes
_LEARNING = ("split", "learned", "swap")  # steps whose answer changes with what was measured
_NEWS = 5  # results after which they may lead elsewhere, and are taken again


class GuidedSettings(StrategySettings):
    """Settings of `guided`."""

    tables: list[Literal["diagonal", "directional", "kl"]] | None = Field(
        None, description="score tables to use, the first one mostly; unset: diagonal and directional"
    )
    uniform: int = Field(6, ge=0, description="uniform configurations measured first")
    budgets: int = Field(7, ge=1, description="budgets, evenly on a logarithmic scale, that the opening covers")
    around: int = Field(1, ge=0, description="how often scores are computed anew around a promising point")
    regions: int = Field(8, ge=1, description="choices of the knobs that change shapes, at most")
    outer: str = Field(AT_RANDOM, description="sampler of those choices: random, or see `paretobit list samplers`")

    @field_validator("outer")
    @classmethod
    def _known(cls, name: str) -> str:
        return name if name == AT_RANDOM else OptunaSettings(sampler=name).sampler


@STRATEGIES.register("guided")
class Guided(Strategy):
    """Scores every option of every layer, solves for budgets, verifies, refines where most is to be gained."""

    Settings: ClassVar[type[StrategySettings]] = GuidedSettings

    def __init__(self, problem: Problem, seed: int, settings: GuidedSettings) -> None:
        super().__init__(problem, seed, settings)
        if problem.insight is None:
            raise BadInput("guided needs a model or a table with evidence", key="strategy", found="guided")
        self._insight: Insight = problem.insight
        self._goals = Goals.of(problem, self._insight.costs(problem.tree.at(0)))
        self._tables = tuple(settings.tables or self._insight.tables[:2])
        measured = [c for c in problem.constraints if c.metric not in self._goals.bounds]
        sole = None
        if len(problem.objectives) == 1:
            sole = "cost" if set(problem.objectives[0].metrics) <= set(self._goals.costs) else "harm"
        self._board = Board(bool(measured), sole)
        self._regions: list[Region] = []
        self._asked: dict[Config, Proposal] = {}
        self._dead: set[tuple[str, Config, Config | None, int]] = set()
        self._arounds: set[Source] = set()
        self._turns = itertools.count()
        self._opening: Iterator[Proposal] | None = None
        self._rest = permutation(problem.tree.size, seed)

    def ask(self, n: int) -> list[Config]:
        found: list[Config] = []
        while len(found) < n:
            proposal = self._next()
            if proposal is None:
                break
            self._asked[proposal.config] = proposal
            if math.isfinite(proposal.predicted):
                self.predicted[proposal.config] = proposal.predicted
            found.append(proposal.config)
        return found

    def learn(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self._note(trial, self._foreign(trial.config))

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self._note(trial, self._asked[trial.config])

    def _note(self, trial: Trial, proposal: Proposal) -> None:
        try:
            harm = self._goals.harm(trial.metrics)
        except KeyError:  # failed, or refused before it was measured
            return
        costs = {metric: self._goals.cost(metric, trial.metrics) for metric in self._goals.costs}
        feasible = self.problem.violation(trial.metrics) <= 0
        self._board.add(Point(proposal, costs, harm, feasible), next(iter(costs)))

    def _foreign(self, config: Config) -> Proposal:
        decided = Config({k.name: config[k.name] for k in self._insight.choices.knobs})
        return Proposal(config, 0, Source("none"), (), decided, math.inf, "given")

    # Proposals

    def _next(self) -> Proposal | None:
        if self._opening is None:
            self._opening = self._open()
        for proposal in self._opening:
            if self._is_new(proposal):
                return proposal
        metrics = list(self._goals.costs)
        for _ in metrics:
            metric = metrics[next(self._turns) % len(metrics)]
            decisions = {region.number: region.decided for region in self._regions}
            for step in self._board.steps(metric, decisions, self._tables):
                for proposal in self._taken(step, metric):
                    if self._is_new(proposal):
                        return proposal
        return self._anything()

    def _is_new(self, proposal: Proposal) -> bool:
        config = proposal.config
        if config in self._asked or config in self._board.points:
            return False
        return self.problem.violation(self._insight.costs(config)) <= 0

    def _anything(self) -> Proposal | None:
        """What is left, in an order drawn by the seed, once no step is; bounds may leave nothing."""
        for index in itertools.islice(self._rest, _LOOKED_AT):
            config = self.problem.tree.at(index)
            proposal = self._foreign(config)
            if self._is_new(proposal):
                return proposal
        if next(self._rest, None) is not None:
            self.notes.append(f"nothing new within the bounds among {_LOOKED_AT:,} configurations drawn at random")
        return None

    def _open(self) -> Iterator[Proposal]:
        """Full precision or the least harmful, uniform configurations, and budgets from coarse to fine."""
        settings = self.settings
        tree = self._insight.outer
        for outer in choices(tree, settings.regions, settings.outer, self.seed, self._loss_of_region):
            region = Region(len(self._regions), self.problem.tree, outer, self._insight, self._goals)
            self._regions.append(region)
            alone = self._insight.outer.size == 1
            found = self._usable(region)
            if found is None:
                yield from self._probe(region)
            else:
                region.first = found
            yield from self._opening_of(region, region.first, self.settings.uniform if alone else 1, alone)
            yield from self._doubted(region, alone)

    def _usable(self, region: Region) -> Source | None:
        """The first table that can be computed; those that cannot are named and not asked for again."""
        failed: dict[str, list[str]] = {}
        found = None
        for table in dict.fromkeys([*self._tables, *self._insight.tables]):
            reason = _reason_against(region, Source(table))
            if reason is None:
                found = Source(table)
                break
            failed.setdefault(reason, []).append(table)
            self._tables = tuple(name for name in self._tables if name != table)
        for reason, tables in failed.items():
            self._say(f"no scores {', '.join(tables)}: {reason}")
        return found

    def _say(self, note: str) -> None:
        """A note, once."""
        if note not in self.notes:
            self.notes.append(note)

    def _probe(self, region: Region) -> Iterator[Proposal]:
        """Measure one group at a time, and make a table of what was found."""
        lacking = "no score" if self._insight.tables else "no calibration data"
        self._say(f"{lacking} tells harm beforehand: one group at a time is measured")
        metric = next(iter(self._goals.costs))
        unscored = Source(UNSCORED)
        probes = Probes(region.allocation(unscored), metric, self._goals.costs[metric])
        made = {}
        for choice in probes:
            made[choice] = self._proposal(region, unscored, choice, region.decided[0], "probe")
            yield made[choice]
        points = {choice: self._board.points.get(proposal.config) for choice, proposal in made.items()}
        region.give(PROBED, probes.table(lambda choice: point.harm if (point := points[choice]) else None))

    def _doubted(self, region: Region, alone: bool) -> Iterator[Proposal]:
        """Where predictions do not rank what was measured, begin again with divergences of the output."""
        source = region.first
        told = [p for p in self._board.points.values() if p.proposal.source == source and p.proposal.choice]
        pairs = [(p.proposal.predicted, p.harm) for p in told if p.proposal.decided == region.decided[0]]
        if len(pairs) < _ENOUGH or region.number:
            return
        from scipy.stats import spearmanr

        alike = min(len(set(values)) for values in zip(*pairs, strict=True)) == 1
        correlation = 0.0 if alike else float(spearmanr(*zip(*pairs, strict=True)).statistic)
        if correlation >= _TRUSTED:
            return
        self.notes.append(
            f"predicted and measured harm correlate by {correlation:.2f} (Spearman, {len(pairs)} points) only"
        )
        if "kl" in self._insight.tables and source.table != "kl" and self.settings.tables is None:
            reason = _reason_against(region, Source("kl"))
            if reason is not None:
                self._say(f"no scores kl: {reason}")
                return
            self._tables, region.first = ("kl", *self._tables), Source("kl")
            yield from self._opening_of(region, region.first, 0, alone)

    def _opening_of(self, region: Region, first: Source, uniform: int, alone: bool) -> Iterator[Proposal]:
        allocation = region.allocation(first)
        decided = region.decided[0]
        best = allocation.least_harmful()
        yield self._proposal(region, first, best, decided, "reference")
        metric = next(iter(self._goals.costs))
        alike = sorted(region.uniform(first), key=lambda c: self._goals.cost(metric, allocation.exact(c)))
        for choice in _spread(_not_beaten(alike, allocation.predicted), uniform):
            yield self._proposal(region, first, choice, decided, "uniform")
        for metric in self._goals.costs:
            for share in _coarse_to_fine(self.settings.budgets if alone else 3):
                choice = self._at_share(region, first, metric, share)
                if choice is not None:
                    yield self._proposal(region, first, choice, decided, "budget")

    def _loss_of_region(self, number: int) -> float:
        """What became of a choice of the outer knobs."""
        own = [point for point in self._board.points.values() if point.proposal.region == number]
        return loss_of(own, self._board, list(self._goals.costs))

    def _at_share(self, region: Region, source: Source, metric: str, share: float) -> Choice | None:
        """The choice whose cost is at a share of the way from the cheapest to the least harmful."""
        allocation = region.allocation(source)
        ends = [allocation.exact(allocation.least_harmful())[metric]]
        if metric in allocation.additive:
            ends.insert(0, allocation.exact(allocation.cheapest(metric))[metric])
        low, high = ends[0], ends[-1]
        bottom, top = self._goals.bounds.get(metric, (-math.inf, math.inf))
        low, high = (min(max(end, bottom), top) for end in (low, high))
        logarithmic = min(low, high) > 0
        budget = low * (high / low) ** share if logarithmic else low + (high - low) * share
        return region.within(source, metric, budget)

    def _taken(self, step: Move, metric: str) -> Iterator[Proposal]:
        """Proposals that carry out a step; a step that led to nothing new is not taken again."""
        told = len(self._board.points) // _NEWS if step.kind in _LEARNING else 0
        right = None if step.right is None else step.right.proposal.config
        key = (step.kind, step.left.proposal.config, right, told)
        if key not in self._dead:
            yield from self._carried_out(step, metric)
            self._dead.add(key)  # only once all of it was known already

    def _carried_out(self, step: Move, metric: str) -> Iterator[Proposal]:
        kind, _, what = step.kind.partition(":")
        point = step.left.proposal
        if kind == "split" and step.right is not None:
            yield from self._between(step.left, step.right, metric)
        elif kind == "decide":
            choices = self._regions[point.region].decided
            (decided,) = [d for d in choices if step.kind == decision(d)]
            config = Config({**point.config, **decided})
            yield replace(point, config=config, decided=decided, move=step.kind, origin=point.config)
        elif not point.choice:
            return
        elif kind == "table":
            yield from self._at_cost_of(step.left, Source(what), metric, step.kind)
        elif kind == "learned":
            yield from self._learned(step.left, metric)
        elif kind == "around":
            yield from self._around(step.left, metric)
        elif kind == "swap":
            yield from self._next_best(step.left, metric)

    def _between(self, left: Point, right: Point, metric: str) -> Iterator[Proposal]:
        """Halfway between two points, in the regions, tables and with the decisions of both."""
        halfway = (left.costs[metric] + right.costs[metric]) / 2
        budget = self._value(metric, halfway)
        for point in (left, right):
            proposal = point.proposal
            if proposal.choice:
                region = self._regions[proposal.region]
                source = self._learn(point, metric, halfway) or proposal.source
                choice = region.within(source, metric, budget)
                if choice is not None:
                    found = self._proposal(region, source, choice, proposal.decided, "split")
                    known = self._insight.costs(found.config)
                    if self._goals.cost(metric, known) > left.costs[metric]:
                        yield found

    def _learned(self, point: Point, metric: str) -> Iterator[Proposal]:
        """At the cost of a point, with scores that follow what was measured."""
        source = self._learn(point, metric, point.costs[metric])
        if source is not None:
            yield from self._at_cost_of(point, source, metric, "learned")

    def _next_best(self, point: Point, metric: str) -> Iterator[Proposal]:
        """At the cost of a point, the best of what was not measured."""
        source = self._learn(point, metric, point.costs[metric]) or point.proposal.source
        known = [c for c, other in self._asked.items() if other.decided == point.proposal.decided]
        yield from self._at_cost_of(point, source, metric, "swap", known)

    def _learn(self, point: Point, metric: str, cost: float) -> Source | None:
        """Scores from the points like this one; None while they are too few."""
        proposal = point.proposal
        region = self._regions[proposal.region]
        alike = [
            (other.proposal.config, self._board.level(other))
            for other in self._board.points.values()
            if (other.proposal.region, other.proposal.decided) == (proposal.region, proposal.decided)
        ]
        return LEARNED if region.learn(alike, region.first, metric, self._value(metric, cost)) else None

    def _around(self, point: Point, metric: str) -> Iterator[Proposal]:
        """With scores relative to the point itself; a few times only, as they take a pass over the rows."""
        source = replace(point.proposal.source, around=point.proposal.config)
        known = source in self._arounds
        if source.table not in FROM_GRADIENTS or (len(self._arounds) >= self.settings.around and not known):
            return
        self._arounds.add(source)
        yield from self._at_cost_of(point, source, metric, "around")

    def _at_cost_of(
        self, point: Point, source: Source, metric: str, move: str, avoid: Sequence[Config] = ()
    ) -> Iterator[Proposal]:
        proposal = point.proposal
        region = self._regions[proposal.region]
        budget = self._value(metric, point.costs[metric]) * (1 + 1e-9)
        try:
            choice = region.within(source, metric, budget, avoid)
        except BadInput as error:  # no such table for this shape, or none around a point in stored evidence
            self._say(f"no scores for the step {move}: {error}")
            return
        if choice is not None:
            yield self._proposal(region, source, choice, proposal.decided, move, proposal.config)

    def _proposal(
        self, region: Region, source: Source, choice: Choice, decided: Config, move: str, origin: Config | None = None
    ) -> Proposal:
        allocation = region.allocation(source)
        config = region.config(allocation.values(choice), decided)
        absolute = source.around is None and source != LEARNED
        predicted = allocation.predicted(choice) if absolute else math.inf
        return Proposal(config, region.number, source, choice, decided, predicted, move, origin)

    def _value(self, metric: str, cost: float) -> float:
        """The metric's own value of a cost on the board."""
        cost *= self._goals.costs[metric]
        positive = self._insight.costs(self.problem.tree.at(0))[metric] > 0
        return math.exp(cost) if positive else cost


def _reason_against(region: Region, source: Source) -> str | None:
    """Why the scores of a source cannot be used; None where they can."""
    try:
        allocation = region.allocation(source)
    except BadInput as error:
        return str(error)
    hopeless = [group.name for group in allocation.table.groups if not any(map(math.isfinite, group.scores))]
    return f"none is finite for {', '.join(hopeless)}" if hopeless else None


def _coarse_to_fine(number: int) -> Iterator[float]:
    """Shares 0 … 1, evenly spread, each halving the gaps that are left: 0, 1, 1/2, 1/4, 3/4, ..."""
    steps = [i / max(1, number - 1) for i in range(number)]
    order = sorted(range(number), key=lambda i: (_level(i, number - 1), i))
    return (steps[i] for i in order)


def _level(i: int, last: int) -> int:
    level, step = 0, max(1, last)
    while i % step and step > 1:
        level, step = level + 1, max(1, step // 2)
    return level


def _not_beaten(choices: Sequence[Any], harm: Any) -> list[Any]:
    """From the cheapest on, those that are predicted to harm less than everything cheaper."""
    kept: list[Any] = []
    for choice in choices:
        if math.isfinite(harm(choice)) and (not kept or harm(choice) < harm(kept[-1])):
            kept.append(choice)
    return kept


def _spread(choices: Sequence[Any], number: int) -> Iterable[Any]:
    """At most so many of them, evenly, the ends included."""
    if number >= len(choices):
        return choices
    if number < 2:
        return choices[:number]
    return [choices[round(i * (len(choices) - 1) / (number - 1))] for i in range(number)]
