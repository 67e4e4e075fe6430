"""How far a search is from the best there is, after every evaluation."""

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from paretobit.errors import BadInput
from paretobit.wanted.front import non_dominated
from paretobit.wanted.hypervolume import hypervolume
from paretobit.wanted.metric import Metric
from paretobit.wanted.objectives import Objective

Point = tuple[float, ...]
Measure = Literal["regret", "hypervolume fraction"]
_LOG_RANGE = 10.0
_WITHOUT_NOISE = 0.01


@dataclass(frozen=True)
class Scale:
    """Maps one objective's loss to 0 (the best there is) … 1 (the worst)."""

    best: float
    worst: float
    log: bool

    def __call__(self, loss: float) -> float:
        """Where a loss lies."""
        if self.log:
            return math.log(loss / self.best) / math.log(self.worst / self.best)
        return (loss - self.best) / (self.worst - self.best)


class Yardstick:
    """Regret to the optimum, or the fraction of the best front's hypervolume where objectives are several.

    The hypervolume is that of losses between the best (0) and the worst (1) of all points known; a cost that
    spans more than a factor of ten is taken on a logarithmic scale. The reference is the worst of every
    objective.

    Args:
        objectives: What the losses are.
        known: The losses of every feasible configuration there is, or that was seen.
        metrics: Direction and cost of the metrics, by name.
        samples: Rows that accuracy was measured on; None where that is not known.

    Raises:
        BadInput: No point is feasible, or all have the same loss in some objective.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        known: Iterable[Point],
        metrics: Mapping[str, Metric],
        samples: int | None = None,
    ) -> None:
        points = [point for point in known if all(map(math.isfinite, point))]
        if not points:
            raise BadInput("no configuration is feasible: there is nothing to compare with")
        self.objectives = tuple(objectives)
        self.measure: Measure = "regret" if len(self.objectives) == 1 else "hypervolume fraction"
        self.front: tuple[Point, ...] = tuple(dict.fromkeys(non_dominated(points, lambda point: point)))
        self.noisy = tuple(_noise_of(o, metrics, samples) for o in self.objectives)
        if self.measure == "regret":
            self.scales: tuple[Scale, ...] = ()
        else:
            cheap = [all(metrics[m].cheap for m in o.metrics) for o in self.objectives]
            self.scales = tuple(
                _scale(values, is_cheap, objective)
                for values, is_cheap, objective in zip(zip(*points, strict=True), cheap, self.objectives, strict=True)
            )
        self._total = self._volume(self.front)
        if self._total == 0:
            raise BadInput("the front has no volume: no point is better than the worst in every objective")
        self._range = max(points)[0] - min(points)[0]

    @property
    def optimum(self) -> float:
        """The best loss of the first objective."""
        return self.front[0][0]

    def curve(self, points: Iterable[Point | None]) -> list[float]:
        """The measure after every evaluation; infinite regret, or fraction 0, while nothing is feasible."""
        return self._regrets(points) if self.measure == "regret" else self._fractions(points)

    def is_within(self, value: float, distance: float) -> bool:
        """Whether a value of the curve is at most this far from the best."""
        shortfall = value if self.measure == "regret" else 1 - value
        return shortfall <= distance * (1 + 1e-12)

    @property
    def noise(self) -> float | None:
        """Differences of the measure below this are noise of the validation rows; None where that is not known.

        For the regret 2·sqrt(p(1−p)/n), p being the accuracy of the optimum and n the rows; for the
        hypervolume what the best front loses where each of its accuracies is lower by that much.
        """
        if not any(self.noisy):
            return None
        if self.measure == "regret":
            return self._band(0, self.front[0])
        moved = [tuple(loss + self._band(i, point) for i, loss in enumerate(point)) for point in self.front]
        return 1 - self._volume(moved) / self._total

    @property
    def near(self) -> float:
        """What counts as close by default: the noise; 1 % of the range, or of the volume, without it."""
        if self.noise is not None:
            return self.noise
        return _WITHOUT_NOISE * (self._range if self.measure == "regret" else 1.0)

    def _band(self, i: int, point: Point) -> float:
        noise = self.noisy[i]
        return 0.0 if noise is None else noise.band(point[i])

    def _regrets(self, points: Iterable[Point | None]) -> list[float]:
        best, regrets = math.inf, []
        for point in points:
            best = best if point is None else min(best, point[0])
            regrets.append(best - self.optimum)
        return regrets

    def _fractions(self, points: Iterable[Point | None]) -> list[float]:
        volume = GrowingVolume(len(self.objectives))
        fractions = []
        for point in points:
            if point is not None and all(map(math.isfinite, point)):
                volume.add(self._scaled(point))
            fractions.append(volume.value / self._total)
        return fractions

    def _scaled(self, point: Point) -> Point:
        return tuple(scale(loss) for scale, loss in zip(self.scales, point, strict=True))

    def _volume(self, points: Iterable[Point]) -> float:
        if self.measure == "regret":
            return 1.0
        return hypervolume([self._scaled(point) for point in points], [1.0] * len(self.objectives))


@dataclass(frozen=True)
class RowNoise:
    """The noise of an accuracy that is the only expensive term of an objective."""

    factor: float
    rows: int

    def band(self, loss: float) -> float:
        """Two standard errors of the accuracy in units of the loss; the cheap terms must be none."""
        accuracy = min(1.0, max(0.0, abs(loss / self.factor)))
        return 2 * abs(self.factor) * math.sqrt(accuracy * (1 - accuracy) / self.rows)


class GrowingVolume:
    """The hypervolume below (1, …, 1) of points that come one at a time; two objectives take a sorted list.

    >>> volume = GrowingVolume(2)
    >>> for point in [(0.5, 0.5), (0.0, 0.75), (0.6, 0.6)]:
    ...     volume.add(point)
    >>> volume.value
    0.375
    """

    def __init__(self, objectives: int) -> None:
        self.value = 0.0
        self._objectives = objectives
        self._xs: list[float] = []
        self._ys: list[float] = []
        self._points: list[Point] = []

    def add(self, point: Point) -> None:
        """Add a point; outside the box it adds nothing."""
        if any(value >= 1 for value in point):
            return
        if self._objectives == 2:
            self._add_step(*point)
        elif not any(all(map(float.__le__, other, point)) for other in self._points):
            self._points = [o for o in self._points if not all(map(float.__le__, point, o))] + [point]
            self.value = hypervolume(self._points, [1.0] * self._objectives)

    def _add_step(self, x: float, y: float) -> None:
        """Insert into the staircase whose x grows and y falls."""
        at = bisect.bisect_right(self._xs, x)
        ceiling = self._ys[at - 1] if at else 1.0
        if y >= ceiling:
            return
        # Between neighbours the new step lowers the ceiling that was there before.
        left, end = x, at
        while end < len(self._xs) and self._ys[end] >= y:
            self.value += (self._xs[end] - left) * (ceiling - y)
            left, ceiling, end = self._xs[end], self._ys[end], end + 1
        right = self._xs[end] if end < len(self._xs) else 1.0
        self.value += (right - left) * (ceiling - y)
        start = at - 1 if at and self._xs[at - 1] == x else at
        self._xs[start:end], self._ys[start:end] = [x], [y]


def _scale(values: Sequence[float], cheap: bool, objective: Objective) -> Scale:
    best, worst = min(values), max(values)
    if best == worst:
        raise BadInput("every configuration has the same value: it is no objective", found=objective.label)
    return Scale(best, worst, log=cheap and best > 0 and worst / best > _LOG_RANGE)


def _noise_of(objective: Objective, metrics: Mapping[str, Metric], samples: int | None) -> RowNoise | None:
    """The noise of an objective that is an accuracy, scaled or not."""
    if samples is None or objective.metrics != ("accuracy",) or metrics["accuracy"].unit != "share of rows":
        return None
    return RowNoise(objective.terms[0][1], samples)
