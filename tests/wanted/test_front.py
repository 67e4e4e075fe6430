"""The front is what comparing every pair says it is."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretobit.wanted.front import Front, dominates, non_dominated


def by_comparing_every_pair(points):
    def beaten(p, q):
        return all(b <= a for a, b in zip(p, q, strict=True)) and p != q

    return [p for p in points if not any(beaten(p, q) for q in points)]


coordinates = st.integers(0, 5).map(float)
clouds = st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[coordinates] * n), max_size=40))


@settings(max_examples=200, deadline=None)
@given(clouds)
def test_the_front_equals_the_one_of_all_pairs_duplicates_included(points):
    expected = sorted(by_comparing_every_pair(points))
    assert non_dominated(points, lambda p: p) == expected
    front = Front()
    for point in points:
        front.add(point)
    assert sorted(front.points) == expected


@given(clouds)
def test_add_says_whether_the_point_stayed(points):
    front = Front()
    for i, point in enumerate(points):
        assert front.add(point) is (point in by_comparing_every_pair(points[: i + 1]))
        assert len(front) == len(by_comparing_every_pair(points[: i + 1]))


@given(clouds.filter(bool))
def test_dominance_is_strict_and_one_sided(points):
    p, q = points[0], points[-1]
    assert not dominates(p, p)
    assert not (dominates(p, q) and dominates(q, p))


def test_a_large_cloud_agrees_too():
    draw = random.Random(1)
    points = [(draw.randrange(60), draw.randrange(60)) for _ in range(800)]
    assert non_dominated(points, lambda p: p) == sorted(by_comparing_every_pair(points))


def test_equal_items_stay_in_the_order_in_which_they_came():
    items = [("late", (2, 1)), ("first", (1, 2)), ("second", (1, 2)), ("beaten", (2, 2))]
    assert [name for name, _ in non_dominated(items, lambda item: item[1])] == ["first", "second", "late"]


def test_points_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        dominates((1, 2), (1, 2, 3))
