"""Answers about finished trials: the knee bends farthest, and forgiving trades as its formula says."""

import itertools
import math
import random

import pytest

from paretobit.errors import BadInput
from paretobit.spaces.knobs import Config
from paretobit.studies.answers import answer, knee_of, rejected_unrun
from paretobit.studies.trial import Trial
from paretobit.wanted.objectives import Objective

LOSS, COST = Objective.of("loss", "minimize"), Objective.of("cost", "minimize")
QUALITY = Objective.of("quality", "maximize")


def trials(*metrics, state="complete"):
    return [Trial(i, Config({"k": i}), state, m) for i, m in enumerate(metrics)]


def asked(found, objectives, baseline, question=None):
    return answer([(t.number, t.metrics) for t in found], objectives, baseline, question)


def points(*pairs, names=("loss", "cost")):
    return [dict(zip(names, pair, strict=True)) for pair in pairs]


def farthest(pairs):
    """The index of the point farthest below the chord, by the textbook distance of a point to a line."""
    (x0, y0), (x1, y1) = pairs[0], pairs[-1]
    unit = [((x - x0) / (x1 - x0), (y - y1) / (y0 - y1)) for x, y in pairs]

    def distance(x, y):  # from the line through (0, 1) and (1, 0); towards the origin counts
        return (1 - x - y) / math.hypot(1, 1)

    return max(range(len(unit)), key=lambda i: round(distance(*unit[i]), 9))


@pytest.mark.parametrize("seed", range(20))
def test_the_knee_is_the_point_farthest_from_the_chord(seed):
    draw = random.Random(seed)
    xs, ys = (sorted({draw.uniform(1, 9) for _ in range(12)}) for _ in range(2))
    pairs = list(zip(xs, reversed(ys), strict=True))
    assert knee_of(points(*pairs), [LOSS, COST]) == farthest(pairs)


def test_the_knee_does_not_depend_on_units_or_directions():
    pairs = [(1.0, 9.0), (2.0, 4.0), (4.0, 3.0), (8.0, 2.5)]
    front = points(*pairs)
    expected = knee_of(front, [LOSS, COST])
    assert expected == farthest(pairs) == 1
    scaled = points(*((1e6 * x - 3, y / 7) for x, y in pairs))
    assert knee_of(scaled, [LOSS, COST]) == expected
    turned = points(*((-x, y) for x, y in pairs), names=("quality", "cost"))
    assert knee_of(turned, [QUALITY, COST]) == expected


def test_what_spans_more_than_a_decade_is_seen_by_its_logarithm():
    pairs = [(1.0, 1e6), (2.0, 1e4), (3.0, 9e3), (9.0, 1e3)]
    assert knee_of(points(*pairs), [LOSS, COST]) == farthest([(x, math.log10(y)) for x, y in pairs]) == 1
    linear = [(1.0, 10.0), (2.0, 6.0), (3.0, 2.0), (9.0, 1.0)]  # a factor of 10, not more
    assert knee_of(points(*linear), [LOSS, COST]) == farthest(linear) == 2
    negative = [(1.0, 100.0), (2.0, 40.0), (3.0, 30.0), (9.0, -1.0)]  # has no logarithm
    assert knee_of(points(*negative), [LOSS, COST]) == farthest(negative)


@pytest.mark.parametrize(
    "pairs", [[(1, 5)], [(1, 5), (3, 2)], [(1, 5), (2, 4), (3, 3)], [(1, 9), (5, 8), (6, 1)], [(2, 2), (2, 2)]]
)
def test_where_nothing_bends_the_best_in_the_first_objective_is_the_knee(pairs):
    assert knee_of(points(*pairs), [LOSS, COST]) == 0


def test_with_three_objectives_the_plane_goes_through_the_worst_corners():
    names = ("a", "b", "c")
    objectives = [Objective.of(name, "minimize") for name in names]
    front = points((0, 1, 1), (0.2, 0.3, 0.4), (0.5, 0, 0.6), (1, 1, 0), names=names)
    offsets = [(2 - sum(p.values())) / math.sqrt(3) for p in front]
    assert knee_of(front, objectives) == offsets.index(max(offsets)) == 1
    constant = [{**p, "d": 7.0} for p in front]
    assert knee_of(constant, [*objectives, Objective.of("d", "minimize")]) == 1


def test_the_knee_is_asked_for_like_any_other_question():
    found = trials(*points((9, 1), (1, 9), (2, 3), (2, 9), (8, 2)))
    assert asked(found, [LOSS, COST], {}, "knee") == 2
    assert asked(found, [LOSS, COST], {}, " Knee s.t. cost <= 2") == 4
    with pytest.raises(BadInput, match=r"no trial satisfies it \(5 feasible trials\)"):
        asked(found, [LOSS, COST], {}, "knee s.t. cost < 1")
    with pytest.raises(BadInput, match="two objectives or more"):
        asked(found, [LOSS], {}, "knee")
    with pytest.raises(BadInput, match="no knee"):
        asked(trials(*points((1, math.inf), (2, 3))), [LOSS, COST], {}, "knee")


def test_the_best_breaks_ties_by_the_other_objectives_and_then_by_number():
    found = trials(*points((1, 5), (1, 4), (1, 4), (0, 9)))
    assert asked(found, [LOSS, COST], {}, None) == 3
    assert asked(found[:3], [LOSS, COST], {}, None) == 1
    assert asked(found, [LOSS, COST], {"loss": 1.0}, "min cost s.t. loss <= baseline") == 1


def test_forgiving_as_a_question_uses_the_cost_of_the_baseline():
    costs = [1000.0, 500.0, 250.0, 125.0]
    found = trials(*({"quality": q, "cost": c} for q, c in zip([0.9, 0.86, 0.80, 0.5], costs, strict=True)))
    baseline = {"quality": 0.91, "cost": 1000.0}
    scores = [t.metrics["quality"] * (1 + 0.08 * math.log2(1000 / t.metrics["cost"])) for t in found]
    question = "max quality forgiving 8% per halved cost"
    assert asked(found, [QUALITY, COST], baseline, question) == scores.index(max(scores))
    strict = asked(found, [QUALITY, COST], baseline, "max quality forgiving 0.01 per 1/10 cost")
    assert strict == 0


def test_trials_that_a_cheap_constraint_stopped_are_counted():
    about = {"cost": {"cheap": True}, "loss": {"cheap": False}}
    ran = trials({"cost": 3.0, "loss": 1.0}, {"cost": 3.0}, {"cost": 4.0}, state="infeasible")
    assert rejected_unrun([*ran, *trials({"cost": 1.0, "loss": 1.0})], about) == 2
    assert rejected_unrun(ran, {"cost": {"cheap": True}}) == 0  # nothing else was to be measured


def test_every_point_of_a_front_is_compared():
    pairs = [(x, 1 / x) for x in (1, 1.5, 2, 3, 5, 8)]
    for chosen in itertools.combinations(pairs, 4):
        assert knee_of(points(*chosen), [LOSS, COST]) == farthest(chosen)
