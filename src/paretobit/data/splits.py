"""Which row goes where: stratified, disjoint, fixed by the seed."""

from collections.abc import Collection

import numpy as np

from paretobit.data.raw import Array
from paretobit.data.settings import DataSettings
from paretobit.errors import BadInput


def draw(y: Array, classes: tuple[str, ...], settings: DataSettings, given: Collection[str] = ()) -> dict[str, Array]:
    """Row numbers of each set, stratified by label; every class is in every set.

    Args:
        y: Labels (N,), values in 0..C-1.
        classes: The C class names, for errors.
        settings: Fractions (of the rows left by `limit`), limit, seed.
        given: Sets that came with the source and are not drawn: of `val`, `test`.

    Returns:
        `train` and the drawn ones of `val` and `test`, in random order; where nothing is drawn,
        `train` is every row in its order.

    Raises:
        BadInput: A set would be too small to hold every class, or a class has too few rows.
    """
    rng = np.random.default_rng(settings.seed)
    fractions = {"test": settings.test_fraction, "val": settings.val_fraction}
    drawn = [part for part, fraction in fractions.items() if fraction and part not in given]
    rows = np.arange(len(y))
    if settings.limit is not None and settings.limit < len(y):
        rows = take(y, settings.limit, classes, rng, key="data.limit", least=len(drawn) + 1)
    total = len(rows)
    found: dict[str, Array] = {}
    for place, part in enumerate(drawn):
        count, leave = round(fractions[part] * total), len(drawn) - place
        picked = rows[take(y[rows], count, classes, rng, key=f"data.{part}_fraction", leave=leave)]
        rows = np.setdiff1d(rows, picked)
        found[part] = picked
    return {"train": rng.permutation(rows) if found else rows, **found}


def take(
    y: Array,
    count: int,
    classes: tuple[str, ...],
    rng: np.random.Generator,
    *,
    key: str,
    least: int = 1,
    leave: int = 0,
) -> Array:
    """`count` positions in `y`, in random order, classes in proportion.

    Args:
        y: Labels (N,).
        count: How many positions.
        classes: Class names, for errors.
        rng: Source of all randomness.
        key: Setting to blame.
        least: Rows of each class to take, where it has as many.
        leave: Rows of each class to leave behind.

    Raises:
        BadInput: There are fewer rows than that takes; names `key` or the class.
    """
    present, sizes = np.unique(y, return_counts=True)
    most = sizes - leave
    if most.min() < 1:
        smallest = classes[present[most.argmin()]]
        found, allowed = int(sizes.min()), f"{leave + 1} or more, one for each set"
        raise BadInput(f"class '{smallest}' has too few rows to be split", key=key, found=found, allowed=allowed)
    fewest = np.minimum(least, most)
    if not fewest.sum() <= count <= most.sum():
        problem = "too few rows for every class to be in every set"
        allowed = f"{fewest.sum()} to {most.sum()} rows"
        raise BadInput(problem, key=key, found=f"{count} of {len(y)} rows", allowed=allowed)
    quota = sizes * (count / len(y))
    share = np.clip(np.floor(quota).astype(np.int64), fewest, most)
    while share.sum() < count:
        share[np.where(share < most, quota - share, -np.inf).argmax()] += 1
    while share.sum() > count:
        share[np.where(share > fewest, share - quota, -np.inf).argmax()] -= 1
    # One shuffle, then a stable sort by class: the first `share` rows of each class are a random draw.
    shuffled = rng.permutation(len(y))
    groups = np.split(shuffled[np.argsort(y[shuffled], kind="stable")], np.cumsum(sizes)[:-1])
    picked = np.concatenate([group[:n] for group, n in zip(groups, share, strict=True)])
    return rng.permutation(picked)
