"""What is kept stays within its budget, and is what saves most."""

import torch

from paretobit.trials.evaluation.reuse import Kept, Sightings


def tensors(count, megabytes=1):
    return [torch.zeros(megabytes * 2**18) for _ in range(count)]


def test_equal_keys_have_the_same_number_and_others_another():
    kept = Kept(1)
    assert kept.number(("a", 1)) == kept.number(("a", 1)) != kept.number(("a", 2))


def test_room_is_made_by_what_saves_least_and_never_by_what_is_in_use():
    kept = Kept(4 * 2**20)
    for key, seconds in ((1, 5.0), (2, 1.0), (3, 3.0), (4, 2.0)):
        assert kept.reserve(key, 2**20, seconds, ())
        kept.add(key, tensors(1))
    assert kept.used == kept.budget
    assert not kept.reserve(5, 2**20, 0.5, ()), "it would save less than any"
    assert kept.reserve(5, 2**20, 4.0, {2})
    kept.add(5, tensors(1))
    assert [kept.holds(key) for key in (1, 2, 3, 4, 5)] == [True, True, True, False, True]
    assert kept.used == kept.budget


def test_what_takes_longer_to_hold_than_to_compute_is_not_kept():
    kept = Kept(2**30)
    assert not kept.reserve(1, 2**28, 0.001, ())
    assert kept.reserve(1, 2**28, 10.0, ())


def test_a_run_that_did_not_finish_gives_its_room_back():
    kept = Kept(4 * 2**20)
    assert kept.reserve(1, 3 * 2**20, 1.0, ())
    assert kept.used == 3 * 2**20
    kept.tidy()
    assert kept.used == 0
    assert kept.reserve(1, 3 * 2**20, 1.0, ())


def test_what_was_not_asked_for_lately_falls_behind():
    kept = Kept(2 * 2**20)
    for key in (1, 2):
        kept.reserve(key, 2**20, 1.0, ())
        kept.add(key, tensors(1))
    entered = 0
    for key in range(3, 60):
        if kept.holds(1):
            kept.values(1)
        if kept.reserve(key, 2**20, 1.0, ()):
            kept.add(key, tensors(1))
            entered += 1
    assert kept.holds(1), "it was asked for all the time"
    assert not kept.holds(2)
    assert entered > 2
    for key in range(60, 120):
        if kept.reserve(key, 2**20, 1.0, ()):
            kept.add(key, tensors(1))
    assert not kept.holds(1)


def test_more_than_was_reserved_is_not_kept_beyond_the_budget():
    kept = Kept(2 * 2**20)
    kept.reserve(1, 2**20, 1.0, ())
    kept.add(1, tensors(3))
    assert not kept.holds(1)
    assert kept.used == 0


def test_nothing_is_kept_without_a_budget():
    assert not Kept(0).reserve(1, 1, 1e9, ())


def test_sightings_count_how_often_a_key_comes_again():
    never, often = Sightings(), Sightings()
    for i in range(200):
        never.see(i)
        often.see(i % 4)
    assert never.uses < 0.05
    assert often.uses > 20


def test_keys_that_come_no_more_are_past_and_those_that_still_come_are_not():
    sightings, gone = Sightings(), []
    for key in (1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6):
        sightings.see(key)
        gone += sightings.past()
    assert gone == [1, 2]
    circle, gone = Sightings(), []
    for i in range(100):
        circle.see(i % 5)
        gone += circle.past()
    assert gone == []
