"""Regret and shares of a hypervolume, by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretobit.comparing.yardstick import GrowingVolume, Yardstick
from paretobit.errors import BadInput
from paretobit.wanted.hypervolume import hypervolume
from paretobit.wanted.metric import Metric
from paretobit.wanted.objectives import Objective

METRICS = {
    "accuracy": Metric("accuracy", "maximize", "share of rows"),
    "loss": Metric("loss", "minimize", "nats"),
    "bitops": Metric("bitops", "minimize", "bit operations", cheap=True),
}
ACCURACY, LOSS = Objective.of("accuracy", "maximize"), Objective.of("loss", "minimize")
BITOPS = Objective.of("bitops", "minimize")


def test_regret_is_the_distance_of_the_best_so_far_to_the_optimum():
    stick = Yardstick([ACCURACY], [(-0.9,), (-0.5,), (-0.7,)], METRICS)
    assert stick.curve([(-0.5,), None, (-0.7,), (-0.5,)]) == pytest.approx([0.4, 0.4, 0.2, 0.2])
    assert stick.curve([None, (-0.9,)]) == [math.inf, 0.0]
    assert (stick.measure, stick.optimum) == ("regret", -0.9)


def test_the_share_of_the_hypervolume_by_hand():
    """Losses 0 … 4 and 0 … 2: scaled, the front (0, 1), (.5, 0) dominates .5 × 1 of the unit square."""
    known = [(0.0, 2.0), (2.0, 0.0), (4.0, 2.0), (4.0, 1.0)]
    stick = Yardstick([LOSS, BITOPS], known, METRICS)
    assert stick.front == ((0.0, 2.0), (2.0, 0.0))
    # (4, 1) touches the reference; (3, 1) would dominate .25 × .5.
    assert stick.curve([None, (4.0, 1.0), (3.0, 1.0), (2.0, 0.0)]) == pytest.approx([0.0, 0.0, 0.25, 1.0])


def test_a_cost_over_more_than_a_decade_is_taken_as_its_logarithm():
    """1 … 100 in logarithms: 10 lies half way, so the point (.5, .5) dominates a quarter."""
    known = [(0.0, 100.0), (1.0, 1.0), (0.5, 10.0)]
    stick = Yardstick([LOSS, BITOPS], known, METRICS)
    assert [scale.log for scale in stick.scales] == [False, True]
    assert stick.curve([(0.5, 10.0)]) == pytest.approx([1.0])  # the others touch the reference
    narrow = Yardstick([LOSS, BITOPS], [(0.0, 10.0), (1.0, 1.0), (0.5, 5.5)], METRICS)
    assert [scale.log for scale in narrow.scales] == [False, False]


def test_an_expensive_metric_is_never_taken_as_its_logarithm():
    known = [(0.01, 3.0), (1.0, 1.0), (0.5, 2.0)]
    assert not any(scale.log for scale in Yardstick([LOSS, BITOPS], known, METRICS).scales)


def test_the_noise_of_a_regret_is_two_standard_errors_of_the_best_accuracy():
    stick = Yardstick([ACCURACY], [(-0.9,), (-0.5,)], METRICS, samples=400)
    assert stick.noise == pytest.approx(2 * math.sqrt(0.9 * 0.1 / 400)) == 0.03
    assert stick.near == stick.noise
    assert stick.is_within(0.03, stick.near)
    assert not stick.is_within(0.0301, stick.near)


def test_the_noise_of_a_front_is_what_it_loses_where_its_accuracies_are_lower_by_theirs():
    known = [(-0.9, 1.0), (-0.5, 0.0), (-0.1, 2.0)]
    stick = Yardstick([ACCURACY, BITOPS], known, METRICS, samples=400)
    lowered = [(-0.9 + 0.03, 1.0), (-0.5 + 2 * math.sqrt(0.25 / 400), 0.0)]
    scaled = [[((a + 0.9) / 0.8, b / 2) for a, b in points] for points in (known[:2], lowered)]
    whole, less = (hypervolume(points, (1, 1)) for points in scaled)
    assert stick.noise == pytest.approx(1 - less / whole)


def test_noise_is_not_known_of_what_is_no_accuracy_or_of_unknown_rows():
    assert Yardstick([LOSS], [(0.5,), (1.0,)], METRICS, samples=400).noise is None
    stick = Yardstick([ACCURACY], [(-0.9,), (-0.4,)], METRICS)
    assert stick.noise is None
    assert stick.near == pytest.approx(0.005)  # 1 % of the range


def test_nothing_to_compare_with_is_refused():
    with pytest.raises(BadInput, match="no configuration is feasible"):
        Yardstick([LOSS], [(math.inf,)], METRICS)
    with pytest.raises(BadInput, match="it is no objective"):
        Yardstick([LOSS, BITOPS], [(1.0, 1.0), (2.0, 1.0)], METRICS)
    with pytest.raises(BadInput, match="has no volume"):
        Yardstick([LOSS, BITOPS], [(1.0, 2.0), (2.0, 1.0)], METRICS)


COORDINATE = st.integers(0, 11).map(lambda i: i / 10)


@given(st.lists(st.tuples(COORDINATE, COORDINATE), max_size=25))
def test_a_growing_area_is_the_hypervolume_at_every_step(points):
    volume = GrowingVolume(2)
    for i, point in enumerate(points, 1):
        volume.add(point)
        assert volume.value == pytest.approx(hypervolume(points[:i], (1, 1)))


@given(st.lists(st.tuples(COORDINATE, COORDINATE, COORDINATE), max_size=12))
def test_a_growing_volume_of_three_objectives_is_the_hypervolume(points):
    volume = GrowingVolume(3)
    for point in points:
        volume.add(point)
    assert volume.value == pytest.approx(hypervolume(points, (1, 1, 1)))
