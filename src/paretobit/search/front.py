"""Dominance and the front."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Points = np.ndarray[tuple[int, int], np.dtype[np.float64]]


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
        self._held: Points = np.empty((0, 0))  # different ones, with room to grow
        self._times = np.empty(0, dtype=np.int64)
        self._size = 0

    @property
    def points(self) -> list[tuple[float, ...]]:
        """The points; equal ones stand side by side."""
        held = zip(self._held[: self._size].tolist(), self._times.tolist(), strict=False)
        return [tuple(point) for point, times in held for _ in range(times)]

    def add(self, point: Sequence[float]) -> bool:
        """Add a point unless it is dominated, and drop those it dominates; say whether it stayed."""
        losses = np.asarray(point, dtype=np.float64)
        held, times = self._held[: self._size], self._times[: self._size]
        if self._size:
            no_worse, no_better = (held <= losses).all(1), (held >= losses).all(1)
            same = no_worse & no_better
            if same.any():
                times += same
                return True
            if no_worse.any():
                return False
            if no_better.any():
                self._size = int((~no_better).sum())
                self._held[: self._size], self._times[: self._size] = held[~no_better], times[~no_better]
        if self._size == len(self._held):
            room = max(16, self._size)
            self._held = np.concatenate([self._held.reshape(-1, len(losses)), np.zeros((room, len(losses)))])
            self._times = np.concatenate([self._times, np.zeros(room, dtype=np.int64)])
        self._held[self._size], self._times[self._size] = losses, 1
        self._size += 1
        return True

    def __len__(self) -> int:
        return int(self._times[: self._size].sum())

    def __contains__(self, point: object) -> bool:
        return point in self.points


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
