"""Which option each group takes so that the predicted harm is smallest within budgets: a knapsack."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paretobit.spaces.knobs import Value
from paretobit.strategies.insight.insight import ScoreTable

Array = NDArray[np.float64]
Choice = tuple[int, ...]
"""Index of the option that each group takes."""
_GAP = 1e-4  # of the least harm: scores predict nothing nearly as exactly
_NODES = 5000  # of the solver's search: a limit in seconds would give other answers on a busy machine
_UNIT = 1e-3  # of a row's largest number: the solver keeps bounds to 1e-6, in units of this
_CUTS = 8  # choices that rounding let through are forbidden one by one, so many times; then bounds shrink
_OF_VALUE, _OF_SPREAD = 1e-10, 1e-6
"""How exactly a cost adds up: of its own value (sums of doubles, 1e-16 a term), and of what choices can change
of it (the solver keeps bounds no more exactly than that)."""


@dataclass(frozen=True)
class Additive:
    """A cost that is a sum over the groups, after a transformation.

    Attributes:
        metric: Its name.
        base: The transformed cost where every group takes its first option.
        parts: For each group, what each option adds to that.
        reciprocal: Whether it is 1 / cost that adds up.
    """

    metric: str
    base: float
    parts: tuple[Array, ...]
    reciprocal: bool

    def added(self, choice: Choice) -> float:
        """What a choice adds to the base."""
        return sum(float(part[k]) for part, k in zip(self.parts, choice, strict=True))

    def total(self, choice: Choice) -> float:
        """The metric itself."""
        total = self.base + self.added(choice)
        return 1 / total if self.reciprocal else total

    def agrees(self, choice: Choice, value: float) -> bool:
        """Whether a choice's value is this sum, as exactly as numbers add up."""
        there = (1 / value if value > 0 else math.inf) if self.reciprocal else value
        spread = sum(float(np.max(np.abs(part), initial=0.0)) for part in self.parts)
        return abs(self.base + self.added(choice) - there) <= _OF_VALUE * abs(there) + _OF_SPREAD * spread

    def limits(self, low: float, high: float) -> tuple[float, float]:
        """Bounds of the metric as bounds of what is added to the base; `(inf, -inf)`: no choice is within."""
        if self.reciprocal:
            if high <= 0:
                return math.inf, -math.inf
            low, high = 1 / high, 1 / low if low > 0 else math.inf
        return low - self.base, high - self.base

    def without(self, limits: tuple[float, float], choice: Choice) -> tuple[float, float]:
        """Limits that this choice, just beyond one of them, is outside of."""
        low, high = limits
        added, least = self.added(choice), _OF_VALUE * (abs(self.base) + abs(self.added(choice)))
        if abs(added - high) < abs(added - low):
            return low, high - abs(added - high) - least
        return low + abs(added - low) + least, high


class Allocation:
    """The options of one score table with their costs.

    Args:
        table: Scores.
        costs: The metrics of a choice of options that need no model.
        metrics: Those that matter: 1 where small is wanted, -1 where large is, 0 where either may be.

    Attributes:
        additive: Metric to what its options add, for those that add up.
        useful: For each group, its options that are not worse than another one in every cost and in harm.
        remaining: Metrics that do not: they are known for a whole choice only.
    """

    def __init__(
        self, table: ScoreTable, costs: Callable[[Mapping[str, Value]], Mapping[str, float]], metrics: Mapping[str, int]
    ) -> None:
        self.table, self._costs, self._signs = table, costs, metrics
        self.scores = [np.array(group.scores) for group in table.groups]
        self.sizes = [len(group.options) for group in table.groups]
        measured = self._measured(metrics)
        self.additive = {name: found for name in metrics if (found := self._additive(name, measured)) is not None}
        self.remaining = tuple(name for name in metrics if name not in self.additive)
        self.useful = [self._useful(g) for g in range(len(self.sizes))]
        self._indices = [_by_values(group.options) for group in table.groups]

    def rescored(self, scores: Sequence[Array]) -> Allocation:
        """The same options and costs with other scores."""
        other = copy.copy(self)
        other.scores = [np.where(np.isfinite(old), new, np.inf) for old, new in zip(self.scores, scores, strict=True)]
        other.useful = [other._useful(g) for g in range(len(self.sizes))]
        return other

    def choice_of(self, config: Mapping[str, Value]) -> Choice:
        """Index of the option that a configuration takes in every group; -1 where it is none of them."""
        return tuple(
            next((k for names, of in known.items() if (k := of.get(_values(names, config), -1)) >= 0), -1)
            for known in self._indices
        )

    def values(self, choice: Choice) -> dict[str, Value]:
        """The knobs of all groups under a choice."""
        chosen = (group.options[k] for group, k in zip(self.table.groups, choice, strict=True))
        return {name: value for option in chosen for name, value in option.items()}

    def exact(self, choice: Choice) -> Mapping[str, float]:
        """The metrics of a choice that need no model."""
        return self._costs(self.values(choice))

    def predicted(self, choice: Choice) -> float:
        """Predicted harm of a choice."""
        return float(sum(own[k] for own, k in zip(self.scores, choice, strict=True)))

    def least_harmful(self) -> Choice:
        """Every group at its best; the first of equals."""
        return tuple(int(np.argmin(own)) for own in self.scores)

    def cheapest(self, metric: str) -> Choice:
        """The best possible value of an additive cost: smallest, or largest where large is wanted.

        Among equals the least harmful.
        """
        cost = self.additive[metric]
        sign = self._wanted(metric) or 1
        pairs = zip(cost.parts, self.scores, strict=True)
        return tuple(int(np.lexsort((own, np.where(np.isfinite(own), sign * part, np.inf)))[0]) for part, own in pairs)

    def within(self, bounds: Mapping[str, tuple[float, float]], avoid: Sequence[Choice] = ()) -> Choice | None:
        """The least harmful choice whose metrics lie within bounds `(low, high)`; None where there is none.

        An exact multiple-choice knapsack, solved as a mixed-integer programme by HiGHS: predicted harm is
        within a share of 1e-4 of the least. Bounds are kept exactly, by the metrics themselves.

        Args:
            bounds: Of additive metrics, in the direction that they are wanted in.
            avoid: Choices that are not given, if all their options are useful ones.
        """
        if not all(np.isfinite(own).any() for own in self.scores):
            return None
        limits = {metric: self.additive[metric].limits(*ends) for metric, ends in bounds.items()}
        cuts = list(avoid)
        while True:
            choice = self._solved(limits, cuts)
            if choice is None:
                return None
            costs = self.exact(choice)
            outside = [m for m, (low, high) in bounds.items() if not low <= costs[m] <= high]
            if not outside:
                return choice
            if len(cuts) < len(avoid) + _CUTS and self.sizes:
                cuts.append(choice)
            else:
                limits |= {m: self.additive[m].without(limits[m], choice) for m in outside}

    def _solved(self, limits: Mapping[str, tuple[float, float]], avoid: Sequence[Choice]) -> Choice | None:
        """The least harmful choice whose added-up parts lie within limits, to the solver's precision."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        if any(low > high for low, high in limits.values()):
            return None
        sizes = [len(kept) for kept in self.useful]
        if not sizes:
            return () if all(low <= 0 <= high for low, high in limits.values()) else None
        harm = self._of_useful(self.scores)
        groups = np.repeat(np.arange(len(sizes)), sizes)
        constraints = [LinearConstraint(csr_array((np.ones(len(harm)), (groups, np.arange(len(harm))))), 1, 1)]
        for metric, (low, high) in limits.items():
            row = self._of_useful(self.additive[metric].parts)
            unit = _UNIT * (float(np.max(np.abs(row), initial=0.0)) or 1.0)
            constraints.append(LinearConstraint(csr_array(row[None, :] / unit), low / unit, high / unit))
        result = milp(
            harm / (float(np.max(np.abs(harm), initial=0.0)) or 1.0),
            constraints=constraints + self._without(avoid),
            integrality=np.ones(len(harm)),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": _GAP, "node_limit": _NODES},
        )
        if result.x is None:
            return None
        parts = np.split(result.x, np.cumsum(sizes)[:-1])
        return tuple(int(kept[np.argmax(part)]) for part, kept in zip(parts, self.useful, strict=True))

    def _of_useful(self, values: Sequence[Array]) -> Array:
        """What useful options have, one group after the other."""
        return np.concatenate([own[kept] for own, kept in zip(values, self.useful, strict=True)])

    def _without(self, avoid: Sequence[Choice]) -> list[Any]:
        """At least one group decides otherwise than in each of these."""
        from scipy.optimize import LinearConstraint

        starts = np.cumsum([0, *map(len, self.useful)])
        rows = []
        for choice in avoid:
            places = [np.flatnonzero(kept == k) for kept, k in zip(self.useful, choice, strict=True)]
            if all(len(place) for place in places):
                row = np.zeros(int(starts[-1]))
                row[[start + int(place[0]) for start, place in zip(starts[:-1], places, strict=True)]] = 1.0
                rows.append(row)
        return [LinearConstraint(np.stack(rows), -np.inf, len(self.sizes) - 1)] if rows else []

    def _wanted(self, metric: str) -> int:
        """1 where the parts of an additive metric are to be small, -1 where large, 0 where either may be."""
        return -self._signs[metric] if self.additive[metric].reciprocal else self._signs[metric]

    def _useful(self, group: int) -> NDArray[np.int64]:
        """Options of finite harm that no other one beats; of those that are equal, the first."""
        rows = [self.scores[group]]
        for metric, cost in self.additive.items():
            wanted = self._wanted(metric)
            rows += [sign * cost.parts[group] for sign in ((wanted,) if wanted else (1, -1))]
        values = np.stack(rows, axis=1)
        candidates = np.flatnonzero(np.isfinite(self.scores[group]))
        kept: list[int] = []
        for k in candidates[np.lexsort(values[candidates].T[::-1])]:
            if not np.all(values[kept] <= values[k], axis=1).any():
                kept.append(int(k))
        return np.array(sorted(kept) or [0], dtype=np.int64)

    def _measured(self, metrics: Iterable[str]) -> dict[str, list[Array]]:
        """Cost of every option, the other groups at their first one."""
        first = (0,) * len(self.sizes)
        found: dict[str, list[Array]] = {name: [np.zeros(size) for size in self.sizes] for name in metrics}
        for g, size in enumerate(self.sizes):
            for k in range(size):
                costs = self.exact((*first[:g], k, *first[g + 1 :]))
                for name in metrics:
                    found[name][g][k] = costs[name]
        return found

    def _additive(self, metric: str, measured: Mapping[str, list[Array]]) -> Additive | None:
        """The metric as a sum over groups, checked on choices of several groups at once."""
        own = measured[metric]
        draw = np.random.default_rng(0)
        # what adds up here by chance only is caught where bounds are kept
        probes = [tuple(int(draw.integers(size)) for size in self.sizes) for _ in range(4)]
        probes += [tuple(size - 1 for size in self.sizes), (0,) * len(self.sizes)]
        found = {probe: self.exact(probe)[metric] for probe in probes}
        first = found[probes[-1]]
        for reciprocal in (False, True):
            if reciprocal and not (first > 0 and all(np.all(part > 0) for part in own)):
                return None
            base = 1 / first if reciprocal else first
            parts = tuple((1 / part if reciprocal else part) - base for part in own)
            cost = Additive(metric, base, parts, reciprocal)
            if all(cost.agrees(probe, value) for probe, value in found.items()):
                return cost
        return None


Names = tuple[str, ...]


def _by_values(options: Sequence[Mapping[str, Value]]) -> dict[Names, dict[Hashable, int]]:
    """Names of knobs, as options have them, to values to the index of the option; the first of equals."""
    known: dict[Names, dict[Hashable, int]] = {}
    for k, option in enumerate(options):
        names = tuple(option)
        known.setdefault(names, {}).setdefault(_values(names, option), k)
    return known


def _values(names: Names, config: Mapping[str, Value]) -> Hashable:
    """The values of these knobs, told apart by type; None where one is missing."""
    if not all(name in config for name in names):
        return None
    return tuple([(type(config[name]), config[name]) for name in names])
