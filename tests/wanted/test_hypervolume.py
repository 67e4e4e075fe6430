"""The hypervolume equals what inclusion and exclusion, chance and hand say."""

import itertools
import math
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretobit.errors import BadInput
from paretobit.wanted.hypervolume import hypervolume


def by_inclusion_and_exclusion(points, corner):
    """Boxes [point, corner]: sum over all subsets of plus or minus the volume of their intersection."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for subset in itertools.combinations(points, size):
            sides = [max(0.0, c - max(xs)) for c, xs in zip(corner, zip(*subset, strict=True), strict=True)]
            total += (-1) ** (size + 1) * math.prod(sides)
    return total


coordinates = st.integers(0, 6).map(float)
clouds = st.integers(1, 5).flatmap(lambda n: st.lists(st.tuples(*[coordinates] * n), max_size=8))


@settings(max_examples=200, deadline=None)
@given(clouds)
def test_it_equals_inclusion_and_exclusion_also_for_points_beyond_the_reference(points):
    corner = (5.0,) * (len(points[0]) if points else 3)
    assert hypervolume(points, corner) == pytest.approx(by_inclusion_and_exclusion(points, corner), abs=1e-9)


@pytest.mark.parametrize("objectives", [2, 3, 4, 5])
def test_it_is_the_share_of_random_darts_that_some_point_dominates(objectives):
    draw = random.Random(objectives)
    points = [tuple(draw.random() ** 0.5 for _ in range(objectives)) for _ in range(12)]
    darts = [tuple(draw.random() for _ in range(objectives)) for _ in range(20_000)]
    hits = sum(any(all(p <= d for p, d in zip(point, dart, strict=True)) for point in points) for dart in darts)
    share = hits / len(darts)
    error = math.sqrt(share * (1 - share) / len(darts))
    assert abs(hypervolume(points, (1.0,) * objectives) - share) < 5 * error


def test_hand_cases():
    assert hypervolume([], (1, 1)) == 0
    assert hypervolume([(0.25,)], (1,)) == 0.75
    assert hypervolume([(1, 2, 3)], (2, 4, 6)) == 1 * 2 * 3
    assert hypervolume([(1, 1), (1, 1)], (2, 2)) == 1  # repeated
    assert hypervolume([(1, 1), (1.5, 1.5)], (2, 2)) == 1  # dominated
    assert hypervolume([(2, 0), (0, 2), (3, -9), (math.inf, 0)], (2, 2)) == 0  # on and beyond the reference
    assert hypervolume([(0, 0, 1), (0, 1, 0), (1, 0, 0)], (2, 2, 2)) == 7  # all but one unit cube


@given(clouds.filter(bool), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_a_further_point_never_takes_anything_away(points, shuffled):
    corner = (5.0,) * len(points[0])
    mixed = list(points)
    shuffled.shuffle(mixed)
    assert hypervolume(mixed, corner) == pytest.approx(hypervolume(points, corner), abs=1e-9)
    assert hypervolume(points, corner) >= hypervolume(points[:-1], corner) - 1e-9


@pytest.mark.parametrize(
    ("points", "reference", "told"),
    [
        ([(1, 2, 3)], (4, 4), "another length"),
        ([(math.nan, 2)], (4, 4), "no volume"),
        ([(-math.inf, 2)], (4, 4), "no volume"),
        ([(1, 2)], (4, math.inf), "finite"),
        ([], (), "finite"),
    ],
)
def test_what_has_no_volume_is_refused(points, reference, told):
    with pytest.raises(BadInput, match=told):
        hypervolume(points, reference)


def test_a_front_of_thousands_takes_no_time_in_two_objectives():
    points = [(math.cos(i / 2000 * math.pi / 2), math.sin(i / 2000 * math.pi / 2)) for i in range(2001)]
    inverted = [(1 - x, 1 - y) for x, y in points]
    started = time.perf_counter()
    assert hypervolume(inverted, (1, 1)) == pytest.approx(math.pi / 4, abs=1e-3)
    assert time.perf_counter() - started < 1
