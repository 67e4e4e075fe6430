"""Successive halving: who goes on after a rung."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretobit.trials.halving import Bar, HalvingSettings, Rungs

SETTINGS = HalvingSettings(reduction=2, min_epochs=1)


def test_the_first_trial_goes_on_everywhere():
    bar = Rungs(SETTINGS).bar()
    assert not any(bar.ends(epochs, (9.0,)) for epochs in range(1, 20))


@pytest.mark.parametrize(("loss", "ends"), [(0.5, False), (1.5, False), (2.5, True), (9.0, True)])
def test_the_better_half_goes_on(loss, ends):
    bar = Bar(SETTINGS, {1: [(1.0,), (2.0,), (3.0,)]})
    assert bar.ends(1, (loss,)) is ends


def test_between_rungs_nobody_is_ended():
    bar = Bar(HalvingSettings(reduction=3, min_epochs=2), {e: [(0.0,)] * 20 for e in range(1, 20)})
    assert [e for e in range(1, 20) if bar.ends(e, (1.0,))] == [2, 6, 18]


def test_with_two_objectives_the_front_before_it_counts():
    others = [(1.0, 3.0), (3.0, 1.0), (2.0, 2.0), (4.0, 4.0)]
    bar = Bar(SETTINGS, {1: others})
    assert not bar.ends(1, (0.5, 5.0))  # on the first front with three others
    assert bar.ends(1, (3.5, 3.5))  # behind three of four


def test_equal_trials_do_not_end_each_other():
    bar = Bar(HalvingSettings(reduction=10), {1: [(1.0,)] * 50})
    assert not bar.ends(1, (1.0,))


def test_a_bar_is_not_moved_by_later_trials():
    rungs = Rungs(SETTINGS)
    rungs.add([(1.0,), (1.0,)])
    before = rungs.bar()
    rungs.add([(0.0,), (0.0,)])
    assert before.seen == {1: ((1.0,),), 2: ((1.0,),)}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(2, 5))
def test_of_trials_in_descending_quality_about_one_in_reduction_goes_on(losses, reduction):
    settings, seen, went_on = HalvingSettings(reduction=reduction), [], 0
    for loss in sorted(losses):
        went_on += not Bar(settings, {1: seen}).ends(1, (float(loss),))
        seen.append((float(loss),))
    different = len(set(losses))
    if different == len(losses):
        assert went_on <= len(losses) // reduction + 1
    assert went_on >= 1
