"""Two models on the same rows: against hand counts, scipy, the likelihood itself, and chance."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import binom
from torch import nn

from paretobit.errors import BadInput
from paretobit.training.evaluate import evaluate
from paretobit.training.per_row import per_row
from paretobit.wanted.paired import accuracy_change, bootstrap_interval, loss_changes, tango_interval


def disagreeing(worse, better, rows):
    """What two models get right that disagree so often."""
    both = rows - worse - better
    correct = torch.tensor([False] * worse + [True] * better + [True] * both)
    reference = torch.tensor([True] * worse + [False] * better + [True] * both)
    return correct, reference


def test_the_counts_and_the_exact_test_are_those_done_by_hand():
    """7 and 1 of 21: McNemar's exact p is 2 (1 + 8) / 2^8, as published for these counts."""
    change = accuracy_change(*disagreeing(7, 1, 21))
    assert (change.worse, change.better) == (7, 1)
    assert change.difference == -6 / 21
    assert change.p == pytest.approx(2 * (1 + 8) / 256, rel=1e-12)
    assert change.error == pytest.approx(math.sqrt(8 - 36 / 21) / 21, rel=1e-12)
    assert (change.low, change.high) == pytest.approx((-0.517, -0.026), abs=5e-4)  # Fagerland et al. 2014


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (1, 0), (0, 6), (3, 3), (12, 5), (40, 61)])
def test_the_test_is_twice_the_smaller_tail_of_fair_coins(worse, better):
    n = worse + better
    tail = binom.cdf(min(worse, better), n, 0.5)
    assert accuracy_change(*disagreeing(worse, better, 120)).p == pytest.approx(min(1.0, 2 * tail))


def test_the_error_is_the_standard_error_of_the_rows_differences():
    """`sqrt(b + c - (b - c)^2 / n) / n` is the standard deviation of -1, 0 and 1, over sqrt(n)."""
    for worse, better, rows in ((5, 2, 50), (0, 0, 9), (9, 0, 9), (13, 40, 200)):
        correct, reference = disagreeing(worse, better, rows)
        differences = correct.double() - reference.double()
        change = accuracy_change(correct, reference)
        assert change.error == pytest.approx(differences.std(correction=0).item() / math.sqrt(rows), abs=1e-15)
        assert change.difference == pytest.approx(differences.mean().item())


def score(worse, better, rows, difference):
    """The score statistic, with the likelihood maximised by search and not by formula."""

    def lost(only_other):
        only_this, same = only_other + difference, 1 - 2 * only_other - difference
        parts = ((better, only_this), (worse, only_other), (rows - worse - better, same))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in parts if count)

    least, most = max(0.0, -difference), (1 - difference) / 2
    only_other = minimize_scalar(lost, (least, most), (least, most), method="bounded", options={"xatol": 1e-12}).x
    variance = 2 * only_other + difference - difference**2
    return (better - worse - rows * difference) / math.sqrt(rows * variance)


@pytest.mark.parametrize(("worse", "better", "rows"), [(7, 1, 21), (2, 12, 50), (0, 3, 40), (20, 40, 160)])
def test_both_ends_of_the_interval_are_the_differences_that_the_score_test_just_keeps(worse, better, rows):
    low, high = tango_interval(worse, better, rows)
    assert low < (better - worse) / rows < high
    assert score(worse, better, rows, low) == pytest.approx(1.959964, abs=1e-4)
    assert score(worse, better, rows, high) == pytest.approx(-1.959964, abs=1e-4)


def test_the_interval_turns_round_with_the_models_and_keeps_a_width_without_disagreement():
    for worse, better, rows in itertools.product((0, 1, 4), (0, 2, 5), (9, 30)):
        low, high = tango_interval(worse, better, rows)
        assert -1 <= low < high <= 1
        assert tango_interval(better, worse, rows) == pytest.approx((-high, -low), abs=1e-9)
    low, high = tango_interval(0, 0, 100)
    assert high == pytest.approx(1.959964**2 / (100 + 1.959964**2), abs=1e-9)  # as Wilson's interval of 0 of n


def test_the_interval_of_accuracies_covers_the_truth_in_95_of_100_cases():
    draw = np.random.default_rng(0)
    for p_worse, p_better, rows in ((0.06, 0.02, 60), (0.02, 0.02, 200)):
        counts = draw.multinomial(rows, [p_worse, p_better, 1 - p_worse - p_better], size=800)
        ends = [tango_interval(worse, better, rows) for worse, better, _ in counts.tolist()]
        covered = np.mean([low <= p_better - p_worse <= high for low, high in ends])
        assert 0.93 <= covered <= 0.98


def test_the_bootstrap_of_the_loss_covers_the_truth_in_95_of_100_cases():
    draw = np.random.default_rng(1)
    skewed = draw.exponential(size=(80, 400)) - 1.0  # 400 experiments of 80 rows, true mean 0
    low, high = bootstrap_interval(skewed, seed=3, draws=2000)
    covered = np.mean((low <= 0) & (high >= 0))
    assert 0.90 <= covered <= 0.965


def test_many_rows_are_drawn_in_groups_with_the_same_spread():
    values = np.random.default_rng(2).normal(size=(30_011, 2))
    low, high = bootstrap_interval(values, seed=0, draws=2000)
    expected = 2 * 1.959964 * values.std(axis=0) / math.sqrt(len(values))
    assert high - low == pytest.approx(expected, rel=0.08)
    assert (low + high) / 2 == pytest.approx(values.mean(axis=0), abs=0.1 * expected[0])


def test_losses_are_compared_row_by_row():
    generator = torch.Generator().manual_seed(5)
    reference = torch.rand(300, generator=generator).double() * 5
    loss = reference + 0.1 + 0.05 * torch.randn(300, generator=generator).double()
    change, same = loss_changes([loss, reference], reference, seed=0)
    differences = loss - reference
    assert change.difference == pytest.approx(differences.mean().item())
    assert change.error == pytest.approx(differences.std().item() / math.sqrt(300))
    assert change.low < change.difference < change.high
    assert change.high - change.low == pytest.approx(2 * 1.96 * change.error, rel=0.1)
    assert (same.difference, same.error, same.low, same.high) == (0, 0, 0, 0)


def test_the_draws_depend_on_the_seed_alone_and_not_on_the_company():
    reference = torch.zeros(50).double()
    first, second = (torch.rand(50, generator=torch.Generator().manual_seed(k)).double() for k in (1, 2))
    alone, together = loss_changes([first], reference, 7), loss_changes([second, first], reference, 7)
    assert alone[0].low == pytest.approx(together[1].low, rel=1e-12)
    assert loss_changes([first], reference, 7) == alone
    assert loss_changes([first], reference, 8) != alone
    assert loss_changes([], reference, 7) == []


@pytest.mark.parametrize(
    "pair", [(torch.ones(3), torch.ones(4)), (torch.ones(0), torch.ones(0)), (torch.ones(2, 2), torch.ones(2, 2))]
)
def test_what_is_not_the_same_rows_is_refused(pair):
    with pytest.raises(BadInput, match="same rows"):
        accuracy_change(*(part.bool() for part in pair))
    with pytest.raises(BadInput, match="same rows"):
        loss_changes([pair[0].double()], pair[1].double(), 0)


def test_a_loss_that_is_not_finite_is_refused():
    with pytest.raises(BadInput, match="not finite"):
        loss_changes([torch.tensor([1.0, math.inf]).double()], torch.zeros(2).double(), 0)


def test_rows_add_up_to_the_evaluation_of_the_search():
    torch.manual_seed(0)
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 4)).eval()
    x, y = torch.randn(101, 6), torch.randint(0, 4, (101,))
    before = x.clone()
    rows, whole = per_row(model, x, y, 16), evaluate(model, x, y, 16)
    assert rows.metrics["accuracy"] == whole.accuracy
    assert rows.metrics["loss"] == pytest.approx(whole.loss, rel=1e-6)
    assert rows.correct.shape == rows.loss.shape == (101,)
    assert torch.equal(x, before)
