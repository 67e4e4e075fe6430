"""What was measured so far, and which step promises most."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from paretobit.spaces.knobs import Config
from paretobit.strategies.guided.region import Proposal

PRIORS: Mapping[str, float] = {"split": 0.5, "decide": 0.35, "table": 0.1, "around": 0.15, "swap": 0.05, "learned": 0.2}
"""How much of the harm, between the best known and now, each kind of step takes away until measured.

A guess at the order: halving the largest gap helps most, another choice among equals of one cost least.
`docs/guided.md` says how much depends on these and the constants below.
"""
_WEIGHT_OF_PRIOR = 0.5  # of one measured step: the second result already outweighs the guess four to one
_REACH = 0.12  # of the range of costs: how far a success counts; a little less than between two first budgets
_SATURATION = 20.0  # harms beyond a 20th of the largest count little: few bits leave chance, which nobody wants
_ELSEWHERE = 0.05  # what is to be gained where no answer to the constraints can be: not none, bounds may shift
_LAST = 0.05  # of the range of costs: the width of the gap to the right of the dearest point, which has none
_TINY = 1e-9  # instead of a range of nothing, where all points cost the same


@dataclass(frozen=True)
class Point:
    """A configuration that was measured.

    Attributes:
        proposal: Why it was proposed.
        costs: Cost to its value, smaller is better, on a logarithmic scale where positive.
        harm: What was measured, smaller is better.
        feasible: Whether all constraints hold.
    """

    proposal: Proposal
    costs: Mapping[str, float]
    harm: float
    feasible: bool


@dataclass(frozen=True)
class Move:
    """What could be measured next.

    Attributes:
        kind: One of `PRIORS`, and after a colon what is tried.
        gain: Expected, in units of cost times harm.
        left: The cheaper point of a gap, or the point that is to become better.
        right: The other point of the gap.
    """

    kind: str
    gain: float
    left: Point
    right: Point | None = None


def decision(decided: Config) -> str:
    """The kind of the step to these values of the knobs that are decided by measuring."""
    return "decide:" + ",".join(map(str, decided.values()))


class Board:
    """Points and successes.

    Attributes:
        points: By configuration, in the order in which they were told.
        constrained: Whether constraints on measured metrics tell points apart.
        sole: What the only objective is, where there is one: `cost` or `harm`.
    """

    def __init__(self, constrained: bool, sole: str | None = None) -> None:
        self.points: dict[Config, Point] = {}
        self.constrained, self.sole = constrained, sole
        self._smallest, self._largest = math.inf, -math.inf
        self._successes: dict[str, list[tuple[float, float]]] = {}

    def add(self, point: Point, cost: str) -> None:
        """A result; what it says of the kind of step that led to it is kept."""
        origin = None if point.proposal.origin is None else self.points.get(point.proposal.origin)
        self.points[point.proposal.config] = point
        if math.isfinite(point.harm):
            self._smallest, self._largest = min(self._smallest, point.harm), max(self._largest, point.harm)
        if origin is not None:
            before, after = self.level(origin), self.level(point)
            self._succeed(point.proposal.move, origin.costs[cost], before, after)
            if point.proposal.decided != origin.proposal.decided:  # the way back is known, too
                self._succeed(decision(origin.proposal.decided), origin.costs[cost], after, before)

    def _succeed(self, kind: str, cost: float, before: float, after: float) -> None:
        share = max(0.0, 1 - after / before) if before > 0 else 0.0
        self._successes.setdefault(kind, []).append((cost, share))

    def front(self, cost: str) -> list[Point]:
        """Points that nothing cheaper beats, from the cheapest on."""
        ordered = sorted(self.points.values(), key=lambda p: (p.costs[cost], p.harm))
        kept: list[Point] = []
        for point in ordered:
            if not kept or point.harm < kept[-1].harm:
                kept.append(point)
        return kept

    def steps(self, cost: str, decisions: Mapping[int, tuple[Config, ...]], tables: tuple[str, ...]) -> list[Move]:
        """Everything that could be measured next, the most promising first.

        Args:
            cost: The cost along which the front is looked at.
            decisions: Region to the values that the knobs decided by measuring can take.
            tables: Score tables that can be asked for.
        """
        front, found = self.front(cost), list[Move]()
        span = max(front[-1].costs[cost] - front[0].costs[cost], _TINY) if front else 1.0
        for i, point in enumerate(front):
            following = front[i + 1] if i + 1 < len(front) else None
            width = (following.costs[cost] - point.costs[cost]) if following else _LAST * span
            interest = self._interest(front, i)
            if following is not None:
                area = width * (self.level(point) - self.level(following))
                found.append(Move("split", PRIORS["split"] * area * interest, point, following))
            reward = width * self.level(point) * interest
            proposal = point.proposal
            others = [decided for decided in decisions[proposal.region] if decided != proposal.decided]
            kinds = [*map(decision, others), *(f"table:{t}" for t in tables if t != proposal.source.table)]
            for kind in (*kinds, "learned", "around", "swap"):
                found.append(Move(kind, reward * self._success(kind, point.costs[cost], span), point))
        return sorted(found, key=lambda step: -step.gain)

    def _interest(self, front: list[Point], i: int) -> float:
        """Where the answer can be: around the border of the constraints; for one objective, at one end."""
        point, following = front[i], front[i + 1] if i + 1 < len(front) else None
        if self.sole == "harm" and not self.constrained:
            return 1.0 if i + 2 >= len(front) else _ELSEWHERE
        if not self.constrained:
            return 1.0
        if point.feasible and self.sole == "cost":
            return _ELSEWHERE if any(p.feasible for p in front[:i]) else 1.0
        if point.feasible or following is None or following.feasible:
            return 1.0
        return _ELSEWHERE

    def _success(self, kind: str, cost: float, span: float) -> float:
        """Share of the harm that such a step takes away around this cost: measured, with a prior."""
        weight, total = _WEIGHT_OF_PRIOR, _WEIGHT_OF_PRIOR * PRIORS[kind.partition(":")[0]]
        for where, share in self._successes.get(kind, ()):
            near = math.exp(-0.5 * ((cost - where) / (_REACH * span)) ** 2)
            weight += near
            total += near * share
        return total / weight

    def level(self, point: Point) -> float:
        """Harm above the smallest known, compressed: useless and hopeless are nearly the same."""
        if not math.isfinite(point.harm):
            return math.log1p(_SATURATION)
        span = max(self._largest - self._smallest, 1e-12)
        return math.log1p(_SATURATION * (point.harm - self._smallest) / span)
