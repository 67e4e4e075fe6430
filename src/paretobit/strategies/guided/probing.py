"""Scores from measurements: one group at a time made cheaper, where nothing tells harm beforehand."""

import math
from collections.abc import Callable, Iterator

import numpy as np

from paretobit.strategies.insight.allocation import Allocation, Choice
from paretobit.strategies.insight.insight import Group, ScoreTable

_TIE = 1e-9  # of the largest harm: among options that are not told apart, the dearer one is preferred


class Probes:
    """Each group at its cheapest option, and halfway to it, the others at their dearest.

    Args:
        allocation: Options and costs; its scores are not looked at.
        metric: The cost.
        sign: -1 where a large value of the metric is wanted.
    """

    def __init__(self, allocation: Allocation, metric: str, sign: int) -> None:
        self._allocation, self._metric, self._sign = allocation, metric, sign
        first = (0,) * len(allocation.sizes)
        self._levels = [
            np.array([self._level((*first[:g], k, *first[g + 1 :])) for k in range(size)])
            for g, size in enumerate(allocation.sizes)
        ]
        self.dearest: Choice = tuple(int(level.argmax()) for level in self._levels)

    def __iter__(self) -> Iterator[Choice]:
        """The dearest of all, then one group at a time."""
        yield self.dearest
        for g in range(len(self._levels)):
            yield from (self._with(g, k) for k in self._probed(g))

    def table(self, harm: Callable[[Choice], float | None]) -> ScoreTable:
        """Scores that interpolate what was measured, on the logarithm of the cost.

        Args:
            harm: Of a choice; None where it was not measured.
        """
        base = harm(self.dearest) or 0.0
        groups = []
        for g, group in enumerate(self._allocation.table.groups):
            found = [(k, harm(self._with(g, k))) for k in self._probed(g)]
            known = [(self._levels[g][k], value - base) for k, value in found if value is not None]
            known.append((self._levels[g][self.dearest[g]], 0.0))
            xs, ys = zip(*sorted(known), strict=True)
            scores = np.interp(self._levels[g], xs, ys)
            span = float(np.ptp(self._levels[g])) or 1.0
            scores = scores + _TIE * max(map(abs, ys)) * (xs[-1] - self._levels[g]) / span
            groups.append(Group(group.name, group.options, tuple(map(float, scores))))
        return ScoreTable(tuple(groups), base, {})

    def _level(self, choice: Choice) -> float:
        value = self._sign * self._allocation.exact(choice)[self._metric]
        return math.log(value) if value > 0 else value

    def _with(self, group: int, option: int) -> Choice:
        return (*self.dearest[:group], option, *self.dearest[group + 1 :])

    def _probed(self, group: int) -> list[int]:
        """The cheapest option, and one whose cost is between where there are several."""
        order = np.argsort(self._levels[group], kind="stable")
        distinct = [
            int(k) for i, k in enumerate(order) if i == 0 or self._levels[group][k] > self._levels[group][order[i - 1]]
        ]
        if len(distinct) < 2:
            return []
        return [distinct[0]] if len(distinct) < 4 else [distinct[0], distinct[len(distinct) // 2]]
