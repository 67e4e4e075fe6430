"""Labels of any kind to indexes 0..C-1."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paretobit.data.raw import Array
from paretobit.errors import BadInput


def encode(
    labels: Mapping[str, Array], classes: Sequence[Any] | None, source: str | None
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Labels as indexes into class names.

    Classes are the given ones in their order, or else the labels of `train`, sorted (as numbers where
    they are numbers).

    Args:
        labels: Per set, `train` among them: N whole numbers or strings, or N×C one-hot.
        classes: Names by index, or the label values themselves.
        source: File named in errors.

    Returns:
        Per set an int64 array (N,) of values in 0..C-1; and the C class names.

    Raises:
        BadInput: Labels of another kind, a single class, or labels that training or `classes` lack.
    """
    width = labels["train"].shape[1] if labels["train"].ndim == 2 else 1
    plain = _numbers_if_whole({part: _plain(y, part, source) for part, y in labels.items()})
    seen = np.unique(plain["train"])
    for part, values in plain.items():
        if values.dtype.kind != seen.dtype.kind:
            raise BadInput(f"labels of {part} and train differ in kind", source=source, found=str(values.dtype))
        extra = np.setdiff1d(values, seen).tolist()
        if extra:
            raise BadInput(f"labels of {part} that training lacks", source=source, found=extra, allowed=seen.tolist())
    if len(seen) < 2:
        raise BadInput("a single class", source=source, key="labels", found=seen.tolist(), allowed="two or more")
    if classes is None and width > 1:
        classes = range(width)
    names = tuple(str(name) for name in (seen.tolist() if classes is None else classes))
    values_in_order = seen if classes is None else _values_of(classes, seen, source)
    order = np.argsort(values_in_order)
    places = {part: order[np.searchsorted(values_in_order, y, sorter=order)] for part, y in plain.items()}
    return {part: place.astype(np.int64) for part, place in places.items()}, names


def _plain(y: Array, part: str, source: str | None) -> Array:
    """One label per row: int64 or text."""
    key = f"labels of {part}"
    if y.ndim == 2 and y.shape[1] > 1:
        return _from_one_hot(y, key, source)
    if y.ndim > 1 and y.size != len(y):
        raise BadInput("shape of the labels", source=source, key=key, found=y.shape, allowed="N, or N×C one-hot")
    y = y.reshape(len(y))
    if y.dtype.kind == "S":
        return np.asarray(np.char.decode(y, "utf-8", "replace"))
    if y.dtype.kind == "f" and not np.all(y == np.round(y)):
        first = y[y != np.round(y)][0].item()
        raise BadInput("labels are not whole numbers", source=source, key=key, found=first)
    if y.dtype.kind not in "biufU":
        raise BadInput("labels are of no known kind", source=source, key=key, found=str(y.dtype))
    return y if y.dtype.kind == "U" else y.astype(np.int64)


def _from_one_hot(y: Array, key: str, source: str | None) -> Array:
    if y.dtype.kind not in "biuf":
        raise BadInput("one-hot labels are not numbers", source=source, key=key, found=str(y.dtype))
    wrong = np.flatnonzero(~(((y == 0) | (y == 1)).all(axis=1) & (y.sum(axis=1) == 1)))
    if len(wrong):
        found = f"row {wrong[0]} (counted from 0): {y[wrong[0]].tolist()}"
        raise BadInput("labels are not one-hot", source=source, key=key, found=found, allowed="one 1, else 0")
    return np.asarray(y.argmax(axis=1), dtype=np.int64)


def _numbers_if_whole(labels: dict[str, Array]) -> dict[str, Array]:
    """Text as int64 where all of it is whole numbers, so that 10 sorts behind 9."""
    try:
        return {part: y.astype(np.int64) for part, y in labels.items()}
    except ValueError:
        return labels


def _values_of(classes: Sequence[Any], seen: Array, source: str | None) -> Array:
    """The label value of each class: the class itself, or its position."""
    given = _numbers_if_whole({"classes": np.asarray(classes)})["classes"]
    for values in (given, np.arange(len(classes))):
        same_kind = (values.dtype.kind == "U") == (seen.dtype.kind == "U")
        if same_kind and len(np.unique(values)) == len(values) and np.isin(seen, values).all():
            return values
    raise BadInput(
        "labels and classes do not match", source=source, key="classes", found=seen.tolist(), allowed=classes
    )
