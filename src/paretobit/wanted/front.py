"""Dominance and the front."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Points = np.ndarray[tuple[int, int], np.dtype[np.float64]]
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether `a` is at least as good everywhere and better somewhere; smaller is better.

    >>> dominates((1, 2), (1, 3)), dominates((1, 2), (1, 2))
    (True, False)
    """
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


class Front:
    """A non-dominated set that grows one point at a time; equal points all stay.

    A point is compared with all that are there at once, and equal ones are held once, so that a front
    of thousands costs little more than one of ten.

    >>> front = Front()
    >>> [front.add(point) for point in [(1, 5), (2, 2), (3, 3)]]
    [True, True, False]
    """

    def __init__(self) -> None:
        self._held: Points = np.empty((0, 0))  # a row per objective, a column per different point, and room
        self._times: list[int] = []

    @property
    def points(self) -> list[tuple[float, ...]]:
        """The points; equal ones stand side by side."""
        held = self._held[:, : len(self._times)].T.tolist()
        return [tuple(point) for point, times in zip(held, self._times, strict=True) for _ in range(times)]

    def add(self, point: Sequence[float]) -> bool:
        """Add a point unless it is dominated, and drop those it dominates; say whether it stayed."""
        losses, size = tuple(point), len(self._times)
        if size:
            held = self._held[:, :size]
            no_worse = _everywhere(np.less_equal, held, losses)
            first = int(no_worse.argmax())
            if no_worse[first]:  # one that is no worse is better, or the only one that is equal
                same = tuple(held[:, first].tolist()) == losses
                self._times[first] += same
                return same
            beaten = _everywhere(np.greater_equal, held, losses)
            if beaten.any():
                left = np.flatnonzero(~beaten)
                self._times = [self._times[i] for i in left]
                size = len(left)
                self._held[:, :size] = held[:, left]
        if size == self._held.shape[1]:
            room = np.zeros((len(losses), max(16, size)))
            self._held = np.concatenate([self._held.reshape(len(losses), -1), room], axis=1)
        self._held[:, size] = losses
        self._times.append(1)
        return True

    def __len__(self) -> int:
        return sum(self._times)

    def __contains__(self, point: object) -> bool:
        return point in self.points


def _everywhere(relation: np.ufunc, held: Points, losses: Sequence[float]) -> Mask:
    """Which columns are in a relation to a point in every row: twice as fast as comparing all at once."""
    found: Mask = relation(held[0], losses[0])
    for row, loss in zip(held[1:], losses[1:], strict=True):
        found &= relation(row, loss)
    return found


def non_dominated(items: Iterable[T], losses: Callable[[T], Sequence[float]]) -> list[T]:
    """The items on the front, sorted by their losses; equal points all stay, in the order they came.

    Args:
        items: Candidates.
        losses: What to minimise, per item.
    """
    listed = list(items)
    if not listed:
        return []
    points = np.array([tuple(losses(item)) for item in listed], dtype=np.float64)
    return [listed[i] for i in on_front(points)]


def on_front(points: Points) -> list[int]:
    """Numbers of the rows on the front, sorted by their losses and then by number.

    Different rows are visited in lexicographic order, in which none is dominated by a later one; each
    that is still there takes away all it dominates.

    Args:
        points: What to minimise, `(rows, objectives)`.
    """
    different, place = np.unique(points + 0.0, axis=0, return_inverse=True)
    place = place.reshape(-1)
    there, left = different, np.arange(len(different))
    done = 0
    while done < len(there):
        kept = (there < there[done]).any(1)
        kept[done] = True
        done = int(kept[: done + 1].sum())
        there, left = there[kept], left[kept]
    stays = np.zeros(len(different), dtype=bool)
    stays[left] = True
    rows = np.flatnonzero(stays[place])
    ordered = rows[np.argsort(place[rows], kind="stable")]
    return [int(row) for row in ordered]
