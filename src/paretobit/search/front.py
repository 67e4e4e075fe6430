"""Dominance and the front."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether `a` is at least as good everywhere and better somewhere; smaller is better.

    >>> dominates((1, 2), (1, 3)), dominates((1, 2), (1, 2))
    (True, False)
    """
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


class Front:
    """A non-dominated set that grows one point at a time; equal points all stay.

    >>> front = Front()
    >>> [front.add(point) for point in [(1, 5), (2, 2), (3, 3)]]
    [True, True, False]
    """

    def __init__(self) -> None:
        self.points: list[tuple[float, ...]] = []

    def add(self, point: Sequence[float]) -> bool:
        """Add a point unless it is dominated, and drop those it dominates; say whether it stayed."""
        losses = tuple(point)
        if any(dominates(other, losses) for other in self.points):
            return False
        self.points = [other for other in self.points if not dominates(losses, other)]
        self.points.append(losses)
        return True

    def __len__(self) -> int:
        return len(self.points)

    def __contains__(self, point: object) -> bool:
        return point in self.points


def non_dominated(items: Iterable[T], losses: Callable[[T], Sequence[float]]) -> list[T]:
    """The items on the front, sorted by their losses; equal points all stay.

    Args:
        items: Candidates.
        losses: What to minimise, per item.
    """
    scored = sorted(((tuple(losses(item)), i, item) for i, item in enumerate(items)), key=lambda s: s[:2])
    front = Front()
    for point, _, _ in scored:
        front.add(point)
    kept = set(front.points)
    return [item for point, _, item in scored if point in kept]
