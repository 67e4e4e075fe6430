"""Strategies compared: curves over seeds, how soon they come close, and paired differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from paretobit.comparing.replay import Play
from paretobit.comparing.yardstick import Measure, Yardstick

Quartiles = tuple[float, float, float]
"""Lower quartile, median, upper quartile."""
RANDOM, SHUFFLED = "random", "shuffled brute force"
"""What every comparison holds."""


@dataclass(frozen=True)
class Paired:
    """Two strategies at one number of evaluations, seed by seed.

    Attributes:
        better: Seeds in which the first was better.
        equal: Seeds in which both were alike.
        worse: The other seeds.
        p: Two-sided p-value of Wilcoxon's signed-rank test, zeros ranked (Pratt); 1 where all are alike.
    """

    better: int
    equal: int
    worse: int
    p: float


@dataclass(frozen=True)
class Standing:
    """One strategy over all seeds.

    Attributes:
        label: As it was asked for.
        plays: One a seed.
        curves: For every seed the measure after 1, 2, … evaluations, as many as the budget; one that ended
            early stays where it was.
        last: Evaluations after which every seed had ended.
    """

    label: str
    plays: tuple[Play, ...]
    curves: tuple[tuple[float, ...], ...]
    last: int

    def at(self, evaluations: int) -> Quartiles:
        """The measure after so many evaluations."""
        return quartiles([curve[evaluations - 1] for curve in self.curves])

    @cached_property
    def bands(self) -> tuple[Quartiles, ...]:
        """The measure after every number of evaluations."""
        return tuple(quartiles(values) for values in zip(*self.curves, strict=True))

    @property
    def duplicates(self) -> Quartiles:
        """Share of proposals that had been answered before."""
        return quartiles([play.duplicates / max(1, play.proposals) for play in self.plays])

    @property
    def seconds(self) -> float:
        """Median time per proposal."""
        return quartiles([play.seconds / max(1, play.proposals) for play in self.plays])[1]

    @property
    def evidence(self) -> float:
        """Median cost of the evidence it asked for, in evaluations."""
        return quartiles([play.evidence for play in self.plays])[1]

    @property
    def ended(self) -> str | None:
        """How many seeds ended before the budget was spent, and why."""
        reasons = [play.ended for play in self.plays if play.ended is not None]
        return f"{len(reasons)} of {len(self.plays)} seeds: {reasons[0]}" if reasons else None


@dataclass(frozen=True)
class Comparison:
    """Strategies on one space.

    Attributes:
        name: Of the table or the configuration.
        objectives: In words.
        constraints: In words.
        size: Configurations of the space.
        exact: Whether the best is known, because all configurations are; otherwise it is the best that any
            strategy found.
        yardstick: What the curves measure.
        seeds: Of the strategies.
        budget: Unique expensive evaluations.
        within: What counts as close.
        charged: Whether evidence counts as evaluations, before the first one.
        entries: Random and shuffled brute force among them.
        left_out: Strategies that cannot be compared here, and why.
        notes: What the costs lack and what stays in float; of a table nothing is known.
    """

    name: str
    objectives: tuple[str, ...]
    constraints: tuple[str, ...]
    size: int
    exact: bool
    yardstick: Yardstick
    seeds: tuple[int, ...]
    budget: int
    within: float
    charged: bool
    entries: tuple[Standing, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def measure(self) -> Measure:
        """What the curves show."""
        return self.yardstick.measure

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Numbers of evaluations at which strategies are compared: a quarter, half, and all of the budget."""
        return tuple(sorted({max(1, self.budget // 4), max(1, self.budget // 2), self.budget}))

    def entry(self, label: str) -> Standing:
        """The strategy of this label."""
        return next(entry for entry in self.entries if entry.label == label)

    def evaluations_to_best(self, entry: Standing) -> Quartiles:
        """Evaluations until within `within` of the best; infinite where that was not reached."""
        return quartiles([self._reaches(curve) for curve in entry.curves])

    def reached(self, entry: Standing) -> int:
        """Seeds that came within `within` of the best."""
        return sum(math.isfinite(self._reaches(curve)) for curve in entry.curves)

    def paired(self, entry: Standing, other: Standing, evaluations: int) -> Paired:
        """How a strategy compares with another one, seed by seed."""
        sign = 1 if self.measure == "regret" else -1
        ours, theirs = ([sign * c[evaluations - 1] for c in e.curves] for e in (entry, other))
        return paired(ours, theirs)

    def to_json(self) -> dict[str, Any]:
        """Everything that is printed, as plain values; infinite numbers are None."""
        best = self.yardstick
        return {
            "name": self.name,
            "objectives": list(self.objectives),
            "constraints": list(self.constraints),
            "configurations": self.size,
            "best_is_known": self.exact,
            "measure": self.measure,
            "noise": best.noise,
            "within": self.within,
            "evidence_is_charged": self.charged,
            "budget": self.budget,
            "seeds": list(self.seeds),
            "strategies": {entry.label: self._entry_json(entry) for entry in self.entries},
            "left_out": dict(self.left_out),
            "notes": list(self.notes),
        }

    def _entry_json(self, entry: Standing) -> dict[str, Any]:
        random = self.entry(RANDOM)
        against = {str(x): vars(self.paired(entry, random, x)) for x in self.checkpoints}
        return {
            "at": {str(x): _plain(entry.at(x)) for x in self.checkpoints},
            "evaluations_to_best": _plain(self.evaluations_to_best(entry)),
            "seeds_that_reached_it": self.reached(entry),
            "duplicates": _plain(entry.duplicates),
            "seconds_per_proposal": entry.seconds,
            "evidence": entry.evidence,
            "ended": entry.ended,
            "against_random": None if entry is random else against,
            "curves": [_plain(curve) for curve in entry.curves],
        }

    def _reaches(self, curve: Sequence[float]) -> float:
        for number, value in enumerate(curve, 1):
            if self.yardstick.is_within(value, self.within):
                return number
        return math.inf


def entry_of(
    label: str, plays: Sequence[Play], yardstick: Yardstick, budget: int, *, charged: bool = False
) -> Standing:
    """The curves of a strategy's plays.

    Args:
        label: Its name.
        plays: One a seed.
        yardstick: What to measure with.
        budget: Length of the curves.
        charged: Whether the evidence that it asked for comes before its first evaluation.
    """
    blank = math.inf if yardstick.measure == "regret" else 0.0
    curves, last = [], 1
    for play in plays:
        before = math.ceil(play.evidence) if charged else 0
        curve = [blank] * before + yardstick.curve(play.points)
        last = min(budget, max(last, len(curve)))
        curve += [curve[-1] if curve else blank] * (budget - len(curve))
        curves.append(tuple(curve[:budget]))
    return Standing(label, tuple(plays), tuple(curves), last)


def quartiles(values: Sequence[float]) -> Quartiles:
    """Quartiles, interpolated; between a number and infinity lies infinity.

    >>> quartiles([1, 2, 3, 4, 5])
    (2.0, 3.0, 4.0)
    """
    ordered = sorted(values)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
        part = place - math.floor(place)
        return float(below) if part == 0 or below == above else below + part * (above - below)

    return at(0.25), at(0.5), at(0.75)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired:
    """Compare values of the same seeds; smaller is better."""
    gains = [0.0 if a == b else b - a for a, b in zip(ours, theirs, strict=True)]
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    if not better and not worse:
        return Paired(0, len(gains), 0, 1.0)
    from scipy.stats import wilcoxon

    p = float(wilcoxon(gains, zero_method="pratt").pvalue)
    return Paired(better, len(gains) - better - worse, worse, p)


def _plain(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]
