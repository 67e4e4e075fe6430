"""What a source hands over, before labels are encoded and rows are split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from paretobit.errors import BadInput

Array = npt.NDArray[Any]
ALLOWED_KEYS = "X and y, or X_train and y_train; further X_val and y_val, X_test and y_test, classes (any case)"


@dataclass(frozen=True)
class RawData:
    """Arrays as a source has them, rows first.

    Args:
        x: Inputs, N×…; of any numeric type. Or sentences: N objects, each a string or a pair of them.
        y: Labels: N whole numbers or strings, or N×C one-hot.
        x_val, y_val: A validation set that came with the source.
        x_test, y_test: A test set that came with the source.
        classes: Class names in order of their index, where the source has them.
        source: File the arrays came from.
        notes: What the source did or knows, JSON-able; becomes part of `Data.preprocessing`.
    """

    x: Array
    y: Array
    x_val: Array | None = None
    y_val: Array | None = None
    x_test: Array | None = None
    y_test: Array | None = None
    classes: Sequence[Any] | None = None
    source: str | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_text(self) -> bool:
        """Whether the inputs are sentences, for a tokenizer."""
        return self.x.dtype.kind == "O"

    def parts(self) -> dict[str, tuple[Array, Array]]:
        """The sets the source gave: `train`, and `val` and `test` where present."""
        found = {"train": (self.x, self.y)}
        if self.x_val is not None and self.y_val is not None:
            found["val"] = (self.x_val, self.y_val)
        if self.x_test is not None and self.y_test is not None:
            found["test"] = (self.x_test, self.y_test)
        return found

    def checked(self) -> RawData:
        """Itself, once rows, shapes and values make sense.

        Raises:
            BadInput: Empty or mismatched arrays, inputs that are not numbers, NaN or infinity.
        """
        for part, (x, y) in self.parts().items():
            self._check_shape(part, x, y)
            _check_finite(x, f"x of {part}", self.source)
        return self

    def _check_shape(self, part: str, x: Array, y: Array) -> None:
        if x.dtype.kind not in "biuf" and not self.is_text:
            raise BadInput("inputs are not numbers", source=self.source, key=f"x of {part}", found=str(x.dtype))
        if x.ndim not in ((1,) if self.is_text else (2, 3, 4)):
            allowed = "N×features, N×height×width, N×channels×height×width or N×height×width×channels"
            raise BadInput("shape of the inputs", source=self.source, found=x.shape, allowed=allowed)
        if y.ndim == 0 or len(x) != len(y):
            found = f"{len(x)} and {len(y) if y.ndim else 'a single'}"
            raise BadInput(f"rows of x and y differ in the {part} set", source=self.source, found=found)
        if x.size == 0:
            raise BadInput(f"the {part} set is empty", source=self.source, found=x.shape)
        if x.shape[1:] != self.x.shape[1:] or x.dtype != self.x.dtype:
            found, allowed = f"{x.shape[1:]} {x.dtype}", f"{self.x.shape[1:]} {self.x.dtype}, as in training"
            raise BadInput(f"samples of the {part} set differ", source=self.source, found=found, allowed=allowed)


def from_arrays(
    read: Callable[[str], Any], keys: Sequence[str], source: str, notes: Mapping[str, Any] | None = None
) -> RawData:
    """Arrays under the keys of `ALLOWED_KEYS`; keys of other names are left unread.

    Args:
        read: Gives the array or tensor under one of `keys`.
        keys: What there is.
        source: File named in errors.
        notes: Becomes `RawData.notes`.

    Raises:
        BadInput: A key is missing, doubled, or an input or label under an unknown name.
    """
    spelled: dict[str, str] = {}
    for key in keys:
        plain = {"x_train": "x", "y_train": "y"}.get(key.lower(), key.lower())
        if plain in spelled:
            raise BadInput("two keys for the same array", source=source, found=[spelled[plain], key])
        spelled[plain] = key
    known = ("x", "y", "x_val", "y_val", "x_test", "y_test")
    strays = [key for plain, key in spelled.items() if plain.startswith(("x_", "y_")) and plain not in known]
    given = [part for part in ("val", "test") if {f"x_{part}", f"y_{part}"} & spelled.keys()]
    needed = ["x", "y", *(f"{p}_{part}" for part in given for p in "xy")]
    missing = [name for name in needed if name not in spelled]
    if missing or strays:
        problem = f"missing {', '.join(missing)}" if missing else f"unknown key {', '.join(strays)}"
        raise BadInput(problem, source=source, found=list(keys), allowed=ALLOWED_KEYS)
    arrays = {name: to_array(read(spelled[name]), spelled[name], source) for name in needed}
    classes = to_array(read(spelled["classes"]), "classes", source) if "classes" in spelled else None
    if classes is not None and classes.ndim != 1:
        raise BadInput("not a list of class names", source=source, key="classes", found=classes.shape)
    return RawData(**arrays, classes=None if classes is None else classes.tolist(), source=source, notes=notes or {})


def to_array(value: Any, key: str, source: str) -> Array:
    """An array or tensor as an array.

    Raises:
        BadInput: It is neither, nor a list of equal rows.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().float() if value.dtype == torch.bfloat16 else value.detach().cpu()
        return np.asarray(value.numpy())
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind == "O":
        raise BadInput("not an array", source=source, key=key, found=type(value).__name__, allowed="array or tensor")
    return array


def _check_finite(x: Array, key: str, source: str | None) -> None:
    if x.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(x.astype(np.float32, copy=False))
    if bad.any():
        row, *column = np.argwhere(bad)[0].tolist()
        place = f"the first at row {row}, column {', '.join(map(str, column))} (counted from 0)"
        raise BadInput(f"NaN or infinity in {int(bad.sum())} places, {place}", source=source, key=key)
