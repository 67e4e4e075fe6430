"""The volume that a set of points dominates: one number for how good a front is."""

import math
from collections.abc import Iterable, Sequence

from paretobit.errors import BadInput
from paretobit.wanted.front import non_dominated

Point = tuple[float, ...]


def hypervolume(points: Iterable[Sequence[float]], reference: Sequence[float]) -> float:
    """The volume between the points and the reference; every objective is minimised.

    Exact for any number of objectives. Two objectives take one sorted sweep; each further one is sliced
    off as in WFG (While, Bradstreet, Barone: "A Fast Way of Calculating Exact Hypervolumes", IEEE
    Transactions on Evolutionary Computation 16(1), 2012): what a point adds to those before it is its own
    box less the part of it that they dominate.

    Args:
        points: Any number of points of n numbers each; dominated and repeated ones change nothing, one
            that is not better than the reference everywhere adds nothing. Plus infinity is worse than all.
        reference: The corner, n finite numbers.

    Returns:
        The volume in the product of the objectives' units; 0 without points.

    Raises:
        BadInput: A point of another length, NaN, minus infinity, or a reference that is not finite.

    >>> hypervolume([(1, 3), (2, 2), (3, 1)], (4, 4))
    6.0
    """
    corner = tuple(float(value) for value in reference)
    if not corner or not all(map(math.isfinite, corner)):
        raise BadInput("the reference point must hold finite numbers", key="reference", found=list(corner))
    inside = [point for point in _checked(points, len(corner)) if all(map(float.__lt__, point, corner))]
    return _volume(inside, corner)


def _checked(points: Iterable[Sequence[float]], length: int) -> list[Point]:
    checked = [tuple(float(value) for value in point) for point in points]
    for point in checked:
        if len(point) != length:
            raise BadInput("a point has another length than the reference", found=point, allowed=str(length))
        if any(math.isnan(value) or value == -math.inf for value in point):
            raise BadInput("a point has no volume", found=point, allowed="numbers, or plus infinity")
    return checked


def _volume(points: list[Point], corner: Point) -> float:
    """The volume of points inside the corner."""
    if not points:
        return 0.0
    if len(corner) == 1:
        return corner[0] - min(point[0] for point in points)
    if len(corner) == 2:
        return _area(points, corner)
    # In this order all earlier points reach at least as deep in the last objective, so what they take from
    # a point's box is a volume of one dimension less times the point's own depth.
    points = sorted(set(non_dominated(points, lambda point: point)), key=lambda point: point[-1])
    face, total = corner[:-1], 0.0
    for i, point in enumerate(points):
        own = math.prod(c - x for c, x in zip(face, point[:-1], strict=True))
        limited = [tuple(map(max, other[:-1], point[:-1])) for other in points[:i]]
        total += (corner[-1] - point[-1]) * (own - _volume(limited, face))
    return total


def _area(points: list[Point], corner: Point) -> float:
    """Two objectives: steps from left to right."""
    total, ceiling = 0.0, corner[1]
    for x, y in sorted(points):
        if y < ceiling:
            total += (corner[0] - x) * (ceiling - y)
            ceiling = y
    return total
