"""Two models on the same rows: what differs, and how much of it may be chance.

Rows that both models get right, or both wrong, say nothing about which is better: only the rows on which
they disagree count. A comparison of two accuracies that forgets the pairing is several times too wide.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from torch import Tensor

from paretobit.errors import BadInput

CONFIDENCE = 0.95
DRAWS = 10_000
_Z = 1.959963984540054  # two-sided, for CONFIDENCE
_GROUPS = 8192
_DRAWS_AT_ONCE = 64
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AccuracyChange:
    """Accuracy of a model minus that of another on the same rows.

    Attributes:
        difference: In [-1, 1]; negative where the model is worse.
        error: Paired standard error of the difference.
        low: Lower end of Tango's 95 % score interval.
        high: Upper end.
        p: Two-sided exact McNemar test: how likely it is that two equally good models differ so much.
        worse: Rows that only the other model gets right.
        better: Rows that only this one gets right.
    """

    difference: float
    error: float
    low: float
    high: float
    p: float
    worse: int
    better: int

    def to_json(self) -> dict[str, float]:
        """As a study keeps it."""
        return asdict(self)


@dataclass(frozen=True)
class LossChange:
    """Mean loss of a model minus that of another on the same rows, in nats.

    Attributes:
        difference: Positive where the model is worse.
        error: Standard error of the mean of the rows' differences.
        low: Lower end of the 95 % percentile interval of the bootstrap over rows.
        high: Upper end.
    """

    difference: float
    error: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """As a study keeps it."""
        return asdict(self)


def accuracy_change(correct: Tensor, reference: Tensor) -> AccuracyChange:
    """Compare which rows two models get right (McNemar 1947).

    The test is exact: under the hypothesis that both are equally good, each row on which they
    disagree favours either with probability 1/2. The standard error is
    `sqrt(b + c - (b - c)^2 / n) / n`, b and c the rows that only one of them gets right.

    Args:
        correct: Of the model, bool `(rows,)`.
        reference: Of the other one, bool, the same rows.

    Raises:
        BadInput: No rows, or not the same number of them.

    >>> import torch
    >>> change = accuracy_change(torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([1, 0, 1, 1]).bool())
    >>> change.worse, change.better, change.difference, change.p
    (2, 1, -0.25, 1.0)
    """
    rows = _rows(correct, reference)
    worse, better = int((reference & ~correct).sum()), int((correct & ~reference).sum())
    from scipy.special import bdtr  # late, as everything of scipy: most searches and workers need none

    p = min(1.0, 2 * float(bdtr(min(worse, better), worse + better, 0.5)))
    error = math.sqrt(max(0.0, worse + better - (worse - better) ** 2 / rows)) / rows
    low, high = tango_interval(worse, better, rows)
    return AccuracyChange((better - worse) / rows, error, low, high, p, worse, better)


def tango_interval(worse: int, better: int, rows: int) -> tuple[float, float]:
    """The 95 % score interval of a paired difference of proportions (Tango 1998, Statistics in Medicine 17).

    All differences that a score test at 5 % does not refuse. Unlike Wald's interval it has a width where
    no rows disagree, and it never leaves [-1, 1].

    Args:
        worse: Rows that only the other model gets right.
        better: Rows that only this one gets right.
        rows: All rows.

    >>> tuple(round(end, 3) for end in tango_interval(7, 1, 21))
    (-0.517, -0.026)
    """
    estimate = (better - worse) / rows
    score = partial(_score, worse, better, rows)
    from scipy.optimize import brentq

    low = -1.0 if score(-1.0) <= _Z else brentq(lambda d: score(d) - _Z, -1.0, estimate, xtol=1e-12)
    high = 1.0 if score(1.0) >= -_Z else brentq(lambda d: score(d) + _Z, estimate, 1.0, xtol=1e-12)
    return float(low), float(high)


def _score(worse: int, better: int, rows: int, difference: float) -> float:
    """Tango's statistic: how many standard errors the data are above a supposed difference.

    The chance of a row that only the other model gets right is its maximum-likelihood estimate under
    that difference, the larger root of a quadratic.
    """
    a = 2.0 * rows
    b = -better - worse + (2 * rows - better + worse) * difference
    c = -worse * difference * (1 - difference)
    only_other = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = rows * (2 * only_other + difference * (1 - difference))
    excess = better - worse - rows * difference
    if variance <= 0:
        return math.copysign(math.inf, excess) if abs(excess) > 1e-9 else 0.0
    return excess / math.sqrt(variance)


def loss_changes(losses: Sequence[Tensor], reference: Tensor, seed: int) -> list[LossChange]:
    """Compare the losses of several models with those of another, row by row.

    Every model is resampled with the same draws of rows.

    Args:
        losses: Of each model, finite, float64 `(rows,)`.
        reference: Of the other one, the same rows.
        seed: Of the draws.

    Raises:
        BadInput: No rows, not the same number of them, or losses that are not finite.
    """
    if not losses:
        return []
    rows = max(_rows(loss, reference) for loss in losses)
    differences = np.stack([(loss - reference).double().cpu().numpy() for loss in losses], axis=1)
    if not np.isfinite(differences).all():
        raise BadInput("losses that are not finite cannot be compared", key="loss")
    errors = differences.std(axis=0, ddof=1) / math.sqrt(rows) if rows > 1 else np.full(len(losses), math.inf)
    low, high = bootstrap_interval(differences, seed)
    ends = zip(differences.mean(axis=0), errors, low, high, strict=True)
    return [LossChange(*map(float, end)) for end in ends]


def bootstrap_interval(values: Floats, seed: int, draws: int = DRAWS) -> tuple[Floats, Floats]:
    """The 95 % percentile interval of the mean over rows (Efron 1979), for each column.

    Beyond 8,192 rows, rows are first put at random into so many groups, and groups are drawn: the mean
    varies as much, and the time does not grow.

    Args:
        values: `(rows, columns)`.
        seed: Of groups and draws.
        draws: How many resamples.

    Returns:
        Lower and upper ends, `(columns,)` each.
    """
    draw = np.random.default_rng(seed)
    groups = min(len(values), _GROUPS)
    starts = np.arange(groups) * len(values) // groups
    sums = np.add.reduceat(values[draw.permutation(len(values))], starts, axis=0)
    sizes = np.diff(starts, append=len(values))
    means = []
    for first in range(0, draws, _DRAWS_AT_ONCE):
        number = min(_DRAWS_AT_ONCE, draws - first)
        drawn = draw.integers(groups, size=(number, groups)) + groups * np.arange(number)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=number * groups).reshape(number, groups)
        means.append(counts @ sums / (counts @ sizes)[:, None])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return low, high


def _rows(first: Tensor, second: Tensor) -> int:
    """How many rows both have."""
    if first.shape != second.shape or first.dim() != 1 or not len(first):
        found = [tuple(first.shape), tuple(second.shape)]
        raise BadInput("not results on the same rows", key="rows", found=found, allowed="two of one length")
    return len(first)
