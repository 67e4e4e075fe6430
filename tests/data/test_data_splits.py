"""Splits: stratified, disjoint, of the sizes asked for, fixed by the seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretobit.data import DataSettings
from paretobit.data.splits import draw
from paretobit.errors import BadInput

NAMES = tuple("abcdefgh")


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(3, 60), min_size=2, max_size=6),
    val=st.floats(0.15, 0.4),
    test=st.floats(0.15, 0.4),
    seed=st.integers(0, 100),
)
def test_every_row_is_in_one_set_and_every_class_in_every_set(
    sizes: list[int], val: float, test: float, seed: int
) -> None:
    y = np.repeat(np.arange(len(sizes)), sizes)
    asked = DataSettings(val_fraction=val, test_fraction=test, seed=seed)
    try:
        rows = draw(y, NAMES, asked)
    except BadInput as error:
        assert "too few rows" in str(error)  # noqa: PT017
        return
    assert sorted(np.concatenate(list(rows.values()))) == list(range(len(y)))
    assert (len(rows["val"]), len(rows["test"])) == (round(val * len(y)), round(test * len(y)))
    for index in rows.values():
        assert set(y[index]) == set(y)


def test_classes_keep_their_proportions() -> None:
    y = np.repeat([0, 1, 2], [700, 200, 100])
    rows = draw(y, NAMES, DataSettings(val_fraction=0.2, test_fraction=0.1))
    assert np.bincount(y[rows["val"]]).tolist() == [140, 40, 20]
    assert np.bincount(y[rows["test"]]).tolist() == [70, 20, 10]


def test_the_seed_alone_decides() -> None:
    y = np.arange(300) % 3
    first, again, other = (draw(y, NAMES, DataSettings(seed=seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(first[part], again[part]) for part in first)
    assert not np.array_equal(first["val"], other["val"])


def test_a_limit_is_stratified_and_fractions_are_of_what_it_leaves() -> None:
    y = np.repeat([0, 1], [900, 100])
    rows = draw(y, NAMES, DataSettings(limit=200, val_fraction=0.1, test_fraction=0.2))
    assert {part: len(index) for part, index in rows.items()} == {"train": 140, "test": 40, "val": 20}
    assert np.bincount(y[np.concatenate(list(rows.values()))]).tolist() == [180, 20]


def test_given_sets_are_not_drawn() -> None:
    y = np.arange(50) % 2
    assert set(draw(y, NAMES, DataSettings(), given={"test"})) == {"train", "val"}
    rows = draw(y, NAMES, DataSettings(), given={"test", "val"})
    assert rows["train"].tolist() == list(range(50))


def test_a_class_with_too_few_rows_is_named() -> None:
    y = np.array([0] * 50 + [1] * 50 + [2] * 2)
    with pytest.raises(BadInput, match=r"class 'c' has too few rows.*found 2; allowed: 3 or more"):
        draw(y, NAMES, DataSettings())


def test_a_fraction_too_small_for_every_class_is_refused() -> None:
    with pytest.raises(BadInput, match=r"data.test_fraction.*1 of 100 rows"):
        draw(np.arange(100) % 4, NAMES, DataSettings(test_fraction=0.01))
