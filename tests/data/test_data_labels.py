"""Labels: whatever they were, they end as indexes with names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paretobit.data.labels import encode
from paretobit.errors import BadInput


@pytest.mark.parametrize(
    ("labels", "classes", "indexes", "names"),
    [
        ([5, 3, 5, 9], None, [1, 0, 1, 2], ("3", "5", "9")),
        (["b", "a", "b"], None, [1, 0, 1], ("a", "b")),
        (["10", "9", "-1"], None, [2, 1, 0], ("-1", "9", "10")),
        ([b"b", b"a"], None, [1, 0], ("a", "b")),
        ([True, False], None, [1, 0], ("0", "1")),
        ([1.0, 0.0], None, [1, 0], ("0", "1")),
        ([[1], [0]], None, [1, 0], ("0", "1")),
        ([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], None, [1, 0], ("0", "1", "2")),
        ([[0, 1, 0], [1, 0, 0]], ["x", "y", "z"], [1, 0], ("x", "y", "z")),
        ([1, 0], ["cat", "dog", "eel"], [1, 0], ("cat", "dog", "eel")),
        ([7, 5], [5, 7], [1, 0], ("5", "7")),
        (["7", "5"], ["7", "5"], [0, 1], ("7", "5")),
        (["w", "g"], ["w", "g", "z"], [0, 1], ("w", "g", "z")),
    ],
)
def test_labels_become_indexes(labels: Any, classes: Any, indexes: list[int], names: tuple[str, ...]) -> None:
    found, found_names = encode({"train": np.asarray(labels)}, classes, None)
    assert found["train"].tolist() == indexes
    assert found["train"].dtype == np.int64
    assert found_names == names


def test_all_sets_share_one_encoding() -> None:
    found, _ = encode({"train": np.array([4, 8, 6]), "test": np.array([8, 4])}, None, None)
    assert found["test"].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ({"train": [0.5, 1.0]}, None, "not whole numbers.*0.5"),
        ({"train": [np.nan, 1.0]}, None, "not whole numbers"),
        ({"train": [[0.2, 0.8], [1, 0]]}, None, "not one-hot.*row 0"),
        ({"train": [[1, 1], [1, 0]]}, None, "not one-hot"),
        ({"train": [1, 1]}, None, "single class"),
        ({"train": [0, 1], "test": [1, 2]}, None, "training lacks"),
        ({"train": [0, 1], "test": ["a", "b"]}, None, "differ in kind"),
        ({"train": [0, 5]}, ["a", "b"], "do not match"),
        ({"train": ["a", "q"]}, ["a", "b"], "do not match"),
        ({"train": [1j, 2]}, None, "no known kind"),
        ({"train": np.zeros((2, 3, 4))}, None, "shape of the labels"),
    ],
)
def test_labels_that_make_no_sense_are_refused(labels: dict[str, Any], classes: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        encode({part: np.asarray(y) for part, y in labels.items()}, classes, "file")
