"""One choice of the outer knobs, with its score tables: proposals within budgets."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from paretobit.spaces.knobs import Config, Tree, Value
from paretobit.strategies.guided.goals import Goals
from paretobit.strategies.guided.learning import ENOUGH, Learned
from paretobit.strategies.insight.allocation import Allocation, Choice
from paretobit.strategies.insight.insight import Insight, ScoreTable, assembled
from paretobit.wanted.objectives import Metrics

_STRICTER, _ATTEMPTS = 0.98, 12
"""Where a bound on a metric that does not add up is missed, the budget shrinks by so much, so many times: to
four fifths. Smaller budgets are asked for by themselves."""
_NEAR = 0.15  # of a budget: the answer under it costs nearly as much; each choice to avoid is a constraint


@dataclass(frozen=True)
class Source:
    """Where scores come from: a table, at full precision or around a configuration."""

    table: str
    around: Config | None = None


LEARNED, PROBED = Source("learned"), Source("probed")


@dataclass(frozen=True)
class Proposal:
    """A configuration to be measured.

    Attributes:
        config: All knobs.
        region: Number of the region.
        source: The scores that it comes from.
        choice: Index of the option that each group takes there.
        decided: Values of the knobs that are decided by measuring.
        predicted: Predicted increase of the loss.
        move: What kind of step led to it.
        origin: The point it should improve on, if any.
    """

    config: Config
    region: int
    source: Source
    choice: Choice
    decided: Config
    predicted: float
    move: str
    origin: Config | None = None


class Region:
    """The configurations of one choice of the outer knobs.

    Args:
        number: Of the region.
        tree: All knobs.
        outer: Values of the outer knobs.
        insight: Tables and costs.
        goals: What is cost.

    Attributes:
        first: The scores that its proposals begin with.
    """

    def __init__(self, number: int, tree: Tree, outer: Config, insight: Insight, goals: Goals) -> None:
        self.number, self.outer, self.first = number, outer, PROBED
        self._tree, self._insight, self._goals = tree, insight, goals
        self._allocations: dict[Source, Allocation] = {}
        self._choices: dict[tuple[Source, Config], Choice] = {}
        self._options_of: dict[Source, Source] = {}
        self._learned: dict[tuple[Source, tuple[tuple[Config, float], ...]], Learned] = {}
        self._solved: dict[tuple[Source, str, float], Choice | None] = {}
        self.decided = tuple(insight.choices.at(i) for i in range(insight.choices.size))

    def allocation(self, source: Source) -> Allocation:
        """The options of a table with their costs."""
        if source not in self._allocations:
            self.give(source, self._insight.table(source.table, self.outer, source.around))
        return self._allocations[source]

    def learn(self, points: Sequence[tuple[Config, float]], like: Source, metric: str, budget: float) -> bool:
        """Make the scores `LEARNED` from configurations and levels of harm; whether there are enough."""
        if len(points) < ENOUGH:
            return False
        budgeted = self.within(like, metric, budget)
        if budgeted is None:
            return False
        allocation = self.allocation(like)
        key = (like, tuple(points))
        if key not in self._learned:
            choices = [(self._choice(like, config), level) for config, level in points]
            self._learned = {key: Learned(allocation, choices)}
        self._options_of[LEARNED] = like
        self._allocations[LEARNED] = allocation.rescored(self._learned[key].scores(budgeted))
        return True

    def _choice(self, source: Source, config: Config) -> Choice:
        key = (self._options_of.get(source, source), config)
        if key not in self._choices:
            self._choices[key] = self.allocation(source).choice_of(config)
        return self._choices[key]

    def give(self, source: Source, scores: ScoreTable) -> None:
        """Use these scores."""
        self._allocations[source] = Allocation(scores, self._costs, self._goals.signs)

    def config(self, values: Mapping[str, Value], decided: Config) -> Config:
        """The outer knobs of the region, the decided ones, and these values of the others."""
        return assembled(self._tree, self.outer, decided, values)

    def within(self, source: Source, metric: str, budget: float, avoid: Sequence[Config] = ()) -> Choice | None:
        """The least harmful choice whose cost is within a budget and the problem's bounds; None: there is none.

        Args:
            source: Which scores.
            metric: Which cost.
            budget: Its largest value; the smallest of one that is to be large.
            avoid: Configurations that are not wanted.
        """
        if avoid or source == LEARNED:
            return self._within(source, metric, budget, avoid)
        key = (source, metric, budget)
        if key not in self._solved:
            self._solved[key] = self._within(source, metric, budget, ())
        return self._solved[key]

    def _within(self, source: Source, metric: str, budget: float, avoid: Sequence[Config]) -> Choice | None:
        allocation = self.allocation(source)
        bounds = {name: ends for name, ends in self._goals.bounds.items() if name in allocation.additive}
        if metric not in allocation.additive:
            return self._greedy(allocation, metric, budget)
        unwanted = self._near(allocation, source, metric, budget, avoid)
        low, high = bounds.get(metric, (-math.inf, math.inf))
        large = self._goals.costs.get(metric, 1) < 0
        for _ in range(_ATTEMPTS):
            bounds[metric] = (max(low, budget), high) if large else (low, min(high, budget))
            choice = allocation.within(bounds, unwanted)
            if choice is None or self._inside(allocation.exact(choice)):
                return choice
            budget *= 2 - _STRICTER if large else _STRICTER
        return None

    def _near(
        self, allocation: Allocation, source: Source, metric: str, budget: float, configs: Sequence[Config]
    ) -> list[Choice]:
        """Choices whose cost is close to a budget: those that could be the answer again."""
        choices = [self._choice(source, config) for config in configs]
        known = [choice for choice in choices if -1 not in choice]
        costs = [allocation.additive[metric].total(choice) for choice in known]
        return [choice for choice, cost in zip(known, costs, strict=True) if abs(cost - budget) <= _NEAR * abs(budget)]

    def uniform(self, source: Source) -> Iterator[Choice]:
        """Choices in which all groups take the same option, as far as they have it."""
        groups = self.allocation(source).table.groups
        best = self.allocation(source).least_harmful()
        named = [[_unprefixed(option) for option in group.options] for group in groups]
        for wanted in dict.fromkeys(itertools.chain(*named)):
            if all(wanted in own or all(set(option) != set(wanted) for option in own) for own in named):
                pairs = zip(named, best, strict=True)
                yield tuple(own.index(wanted) if wanted in own else least for own, least in pairs)

    def _costs(self, values: Mapping[str, Value]) -> Metrics:
        return self._insight.costs(self.config(values, self.decided[0]))

    def _inside(self, costs: Metrics) -> bool:
        """Whether exact costs are within all bounds, also of metrics that do not add up."""
        return all(low <= costs[name] <= high for name, (low, high) in self._goals.bounds.items())

    def _greedy(self, allocation: Allocation, metric: str, budget: float) -> Choice | None:
        """For a cost that does not add up: step by step, that which harms least for what it saves."""
        sign = self._goals.costs.get(metric, 1)
        choice = allocation.least_harmful()
        while True:
            costs = allocation.exact(choice)
            fits = sign * costs[metric] <= sign * budget
            if fits and self._inside(costs):
                return choice
            best: tuple[float, Choice] | None = None
            for g, size in enumerate(allocation.sizes):
                for k in range(size):
                    step = (*choice[:g], k, *choice[g + 1 :])
                    saved = sign * (costs[metric] - allocation.exact(step)[metric])
                    harm = allocation.predicted(step) - allocation.predicted(choice)
                    if saved > 0 and math.isfinite(harm) and (best is None or harm / saved < best[0]):
                        best = (harm / saved, step)
            if best is None:
                return None
            choice = best[1]


def _unprefixed(option: Config) -> Config:
    """Values by what comes after the layer's name: `layer1_conv.weight_width` is `weight_width`."""
    return Config({name.partition(".")[2] or name: value for name, value in option.items()})
