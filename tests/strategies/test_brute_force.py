"""Brute force proposes every configuration once, nested or in an order drawn by the seed."""

import time
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from paretobit.spaces.knobs import Knob, Tree
from paretobit.strategies.brute_force import BruteForce, BruteForceSettings, permutation


def strategy(problem, seed=0, **settings):
    return BruteForce(problem, seed, BruteForceSettings(**settings))


def everything(made, step=7):
    found = []
    while batch := made.ask(step):
        found += batch
    return found


@pytest.mark.parametrize("order", ["nested", "shuffled"])
def test_every_configuration_comes_once_and_then_no_more(problem_of, mixed_tree, order):
    made = strategy(problem_of(mixed_tree), order=order)
    found = everything(made)
    assert len(found) == 60
    assert set(found) == {mixed_tree.at(i) for i in range(60)}
    assert made.ask(1) == []


def test_nested_order_is_the_trees(problem_of, mixed_tree):
    assert everything(strategy(problem_of(mixed_tree))) == [mixed_tree.at(i) for i in range(60)]


def test_the_shuffled_order_depends_on_the_seed_alone(problem_of, mixed_tree):
    problem = problem_of(mixed_tree)
    first = everything(strategy(problem, 1, order="shuffled"))
    assert first == everything(strategy(problem, 1, order="shuffled"), step=1)
    assert first != everything(strategy(problem, 2, order="shuffled"))
    assert first != everything(strategy(problem, 1))


@pytest.mark.parametrize("order", ["nested", "shuffled"])
def test_a_space_of_10_to_the_25_is_begun_at_once(problem_of, order):
    tree = Tree(tuple(Knob.of(f"k{i}", list(range(10))) for i in range(25)))
    start = time.perf_counter()
    proposals = strategy(problem_of(tree), order=order).ask(100)
    assert time.perf_counter() - start < 0.5
    assert len(set(proposals)) == 100


@given(st.integers(1, 700), st.integers(0, 2**31))
def test_a_permutation_is_one(size, seed):
    assert sorted(permutation(size, seed)) == list(range(size))


def test_every_number_comes_first_and_last_about_equally_often():
    size, seeds = 10, 3000
    orders = [list(permutation(size, seed)) for seed in range(seeds)]
    for place in (0, 1, size - 1):
        counts = Counter(order[place] for order in orders)
        chi_squared = sum((counts[i] - seeds / size) ** 2 / (seeds / size) for i in range(size))
        assert chi_squared < 27.9  # 9 degrees of freedom, one in a thousand


def test_a_search_cut_short_has_seen_the_whole_range():
    size = 10_000
    seen = [next_index for next_index, _ in zip(permutation(size, 5), range(400), strict=False)]
    quarters = Counter(index * 4 // size for index in seen)
    assert all(70 <= quarters[q] <= 130 for q in range(4))
    steps = Counter((b - a) % size for a, b in pairwise(seen))
    assert max(steps.values()) <= 3  # not an arithmetic progression


def test_an_unknown_order_or_key_is_refused():
    with pytest.raises(ValidationError, match="order"):
        BruteForceSettings(order="sorted")
    with pytest.raises(ValidationError, match="extra"):
        BruteForceSettings(extra=1)
