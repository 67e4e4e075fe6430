"""Curves over seeds, evaluations to the best, paired differences: by hand."""

import math

import pytest
from scipy.stats import rankdata

from paretobit.comparing.comparison import RANDOM, Comparison, entry_of, paired, quartiles
from paretobit.comparing.replay import Play
from paretobit.comparing.yardstick import Yardstick
from paretobit.wanted.metric import Metric
from paretobit.wanted.objectives import Objective

METRICS = {"loss": Metric("loss", "minimize", "nats")}
LOSS = Objective.of("loss", "minimize")
STICK = Yardstick([LOSS], [(0.0,), (4.0,)], METRICS)


def played(*losses, ended=None, evidence=0.0, duplicates=0):
    points = tuple(None if loss is None else (float(loss),) for loss in losses)
    return Play(points, (), len(points) + duplicates, duplicates, 0, ended, 0.1 * len(points), evidence)


def comparison(*entries, budget=4, within=1.0):
    seeds = tuple(range(len(entries[0].plays)))
    return Comparison("t", ("minimize loss",), (), 9, True, STICK, seeds, budget, within, False, entries)


def test_curves_are_as_long_as_the_budget():
    entry = entry_of("a", [played(4, 2, 3), played(None, 1)], STICK, 5)
    assert entry.curves == ((4, 2, 2, 2, 2), (math.inf, 1, 1, 1, 1))
    assert entry.at(2) == (1.25, 1.5, 1.75)
    assert len(entry.bands) == 5
    assert entry.last == 3


def test_evidence_delays_a_curve_only_where_it_is_charged():
    plays = [played(2, 0, evidence=1.5)]
    assert entry_of("a", plays, STICK, 4).curves == ((2, 0, 0, 0),)
    assert entry_of("a", plays, STICK, 4, charged=True).curves == ((math.inf, math.inf, 2, 0),)
    assert entry_of("a", plays, STICK, 4).evidence == 1.5
    assert [entry_of("a", plays, STICK, 3, charged=charged).last for charged in (False, True)] == [2, 3]


def test_evaluations_to_the_best_count_from_one_and_are_infinite_where_it_was_missed():
    entry = entry_of("a", [played(4, 1), played(0), played(4, 4, 2), played(2, 2, 2, 0.5)], STICK, 4)
    one = comparison(entry)
    assert one.evaluations_to_best(entry) == (1.75, 3.0, math.inf)
    assert one.reached(entry) == 3


def test_quartiles_next_to_infinity():
    assert quartiles([math.inf] * 3) == (math.inf,) * 3
    assert quartiles([1, math.inf]) == (math.inf,) * 3
    assert quartiles([1, 2, math.inf]) == (1.5, 2.0, math.inf)


def test_duplicates_are_a_share_of_the_proposals():
    entry = entry_of("a", [played(1, 2, 3, duplicates=1)], STICK, 4)
    assert entry.duplicates == (0.25, 0.25, 0.25)


def test_early_ends_are_counted_with_their_reason():
    entry = entry_of("a", [played(1, ended="it had no more to propose"), played(1)], STICK, 2)
    assert entry.ended == "1 of 2 seeds: it had no more to propose"


def test_paired_differences_by_wilcoxons_statistic():
    ours, theirs = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2.0, 4.0, 6.0, 8.0, 10.0, 5.5]
    found = paired(ours, theirs)
    assert (found.better, found.equal, found.worse) == (5, 0, 1)
    gains = [b - a for a, b in zip(ours, theirs, strict=True)]
    ranks = rankdata([abs(gain) for gain in gains])
    smaller = sum(rank for rank, gain in zip(ranks, gains, strict=True) if gain < 0)
    # All 2^6 signs are equally likely: the exact two-sided p-value counts those at least as extreme.
    sums = [sum(r for i, r in enumerate(ranks) if mask >> i & 1) for mask in range(64)]
    assert found.p == pytest.approx(2 * sum(total <= smaller for total in sums) / 64)


def test_alike_is_alike():
    found = paired([math.inf, 1.0], [math.inf, 1.0])
    assert (found.better, found.equal, found.worse, found.p) == (0, 2, 0, 1.0)


def test_a_seed_without_a_feasible_point_is_worse_than_any():
    found = paired([math.inf, 1.0, 1.0], [1.0, 1.0, 2.0])
    assert (found.better, found.equal, found.worse) == (1, 1, 1)


def test_more_of_a_hypervolume_is_better():
    cheap = Metric("cost", "minimize", "bits", cheap=True)
    objectives = [LOSS, Objective.of("cost", "minimize")]
    stick = Yardstick(objectives, [(0.0, 0.0), (1.0, 1.0)], {**METRICS, "cost": cheap})
    plays = [Play(((0.5, 0.5),), (), 1, 0, 0, None, 0.1), Play(((0.0, 0.0),), (), 1, 0, 0, None, 0.1)]
    first, second = (entry_of(name, [one], stick, 1) for name, one in zip("ab", plays, strict=True))
    both = Comparison("t", ("a", "b"), (), 2, True, stick, (0,), 1, 0.1, False, (first, second))
    assert first.at(1)[1] == 0.25
    assert vars(both.paired(second, first, 1)) | {"p": None} == {"better": 1, "equal": 0, "worse": 0, "p": None}
    assert (both.reached(first), both.reached(second)) == (0, 1)


def test_numbers_for_scripts_are_json_without_infinities():
    random = entry_of(RANDOM, [played(None, 2)], STICK, 4)
    plain = comparison(random, entry_of("a", [played(0)], STICK, 4)).to_json()
    assert plain["strategies"]["random"]["curves"] == [[None, 2.0, 2.0, 2.0]]
    assert plain["strategies"]["random"]["against_random"] is None
    assert plain["strategies"]["a"]["against_random"]["4"]["better"] == 1
    assert list(plain["strategies"]["a"]["at"]) == ["1", "2", "4"]


def test_a_play_survives_as_json():
    one = played(1, None, evidence=2.0, ended="it had no more to propose")
    assert Play.from_json(one.to_json()) == one
