"""What passes share to look at data batch by batch: running a model, moments, histograms, noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from paretobit.errors import BadInput
from paretobit.formats.base import computed
from paretobit.formats.wrapped import Wrapped
from paretobit.graph import Example

Decibels = float | Literal["exact", "no signal", "not finite"]
"""Signal over noise in dB; in words where that is no number: no noise, only noise, NaN or infinity."""

_MANTISSA = 23  # bits of a float32
_BIASED_ONE = 127


def call(model: nn.Module, batch: Example) -> Any:
    """`model` on a batch: a tensor, positional arguments, or named ones; on copies, as it may work in place."""
    if isinstance(batch, Tensor):
        return model(batch.clone())
    if isinstance(batch, Mapping):
        return model(**{key: copied(value) for key, value in batch.items()})
    return model(*(copied(value) for value in batch))


def copied(value: Any) -> Any:
    """A tensor as a copy; anything else as it is."""
    return value.clone() if isinstance(value, Tensor) else value


def first_tensor(value: Any) -> Tensor:
    """The first tensor in what a model or a layer takes or returns.

    Raises:
        BadInput: There is none.
    """
    leaves = tree_leaves(dict(value) if isinstance(value, Mapping) else value)
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            return leaf
    raise BadInput("no tensor here", found=type(value).__name__, allowed="a tensor, or tensors in a container")


def rows_of(batch: Example) -> int:
    """Rows of a batch: the extent of its first tensor's first dimension."""
    tensor = first_tensor(batch)
    return len(tensor) if tensor.ndim else 1


def decibels(signal: float, noise: float) -> Decibels:
    """`10 log10(signal / noise)` of two sums of squares.

    >>> decibels(100.0, 1.0), decibels(1.0, 0.0), decibels(0.0, 1.0), decibels(1.0, math.nan)
    (20.0, 'exact', 'no signal', 'not finite')
    """
    if not (math.isfinite(signal) and math.isfinite(noise)):
        return "not finite"
    if noise == 0:
        return "exact"
    return 10 * math.log10(signal / noise) if signal else "no signal"


class Noise:
    """Squared signal and squared error, summed in float64 over everything added."""

    def __init__(self) -> None:
        self._signal = self._noise = 0.0

    def add(self, reference: Tensor, approximate: Tensor) -> None:
        """Two tensors of one shape."""
        exact = reference.double()
        self._signal += float(exact.square().sum())
        self._noise += float((approximate.double() - exact).square_().sum())

    @property
    def ratio(self) -> Decibels:
        """Signal over noise."""
        return decibels(self._signal, self._noise)


class Moments:
    """Mean and variance over everything added, in float64, without the sums that cancel.

    Merged as in Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for
    computing sample variances".
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros((), dtype=torch.float64)
        self._squares = torch.zeros((), dtype=torch.float64)

    def add(self, values: Tensor, dims: Sequence[int] | None = None) -> None:
        """Values, reduced over `dims` (all where None); those left are channels."""
        reduced = tuple(range(values.ndim) if dims is None else dims)
        count = math.prod(values.shape[dim] for dim in reduced)
        if count == 0:
            return
        exact = values.to(torch.float64, copy=True)
        mean = exact.mean(reduced, keepdim=True)
        squares = exact.sub_(mean).square_().sum(reduced)  # in two passes: faster than var_mean
        mean = mean.squeeze(reduced)
        total, before = self.count + count, self.mean.to(mean.device)
        distance = mean - before
        self._squares = self._squares.to(mean.device) + squares
        self._squares += distance.square() * (self.count * count / total)
        self.mean = before + distance * (count / total)
        self.count = total

    def variance(self, correction: int = 0) -> Tensor:
        """Over `count - correction`; 1 gives the unbiased estimate."""
        return self._squares / (self.count - correction)


class Magnitudes:
    """How often each magnitude came, in bins that are `2^-bits` of their octave wide.

    A bin is the exponent of a float32 and the first `bits` bits of its mantissa. What is read back is
    the middle of a bin: at most `2^-(bits + 1)` of the value away from it (below the smallest normal
    float32, at most `2^-(127 + bits)`). Memory is at most `255 · 2^bits` counts a part, and in fact the
    octaves seen, whatever the number of values.

    Args:
        parts: Rows that are counted apart.
        bits: 1 to 23.

    Attributes:
        counts: Of each part, of each bin from the smallest seen to the largest; without zeros.
        zeros: Of each part, values that are exactly zero.
    """

    def __init__(self, parts: int = 1, bits: int = 8) -> None:
        self._shift = _MANTISSA - bits
        self._all = 255 << bits  # bins of the finite numbers
        self._first = 0  # number of the bin that the first column counts
        self.counts = torch.zeros(parts, 0, dtype=torch.int64)
        self.zeros = torch.zeros(parts, dtype=torch.int64)

    def add(self, rows: Tensor) -> None:
        """Values `(parts, n)`: NaN is left out, what is beyond float32 counts as its largest number."""
        limit = torch.finfo(torch.float32).max
        magnitude = computed(rows.detach()).abs()  # a half type does not hold the limit
        bits = magnitude.clamp_(max=limit).float().contiguous().view(torch.int32)
        bins = (bits >> self._shift).cpu()
        for part, own in enumerate(bins):
            counted = torch.bincount(own, minlength=self._all)[: self._all]  # NaN is above
            if counted[0]:
                zeros = rows.shape[1] - int(torch.count_nonzero(rows[part]))
                self.zeros[part] += zeros
                counted[0] -= zeros
            filled = counted.nonzero()
            if len(filled):
                first, last = int(filled[0]), int(filled[-1])
                self._reach(first, last)
                own_counts = self.counts[part, first - self._first : last + 1 - self._first]
                own_counts += counted[first : last + 1]

    def _reach(self, first: int, last: int) -> None:
        parts, width = self.counts.shape
        if width:
            first, last = min(first, self._first), max(last, self._first + width - 1)
        wider = torch.zeros(parts, last - first + 1, dtype=torch.int64)
        start = self._first - first if width else 0
        wider[:, start : start + width] = self.counts
        self._first, self.counts = first, wider

    @staticmethod
    def merged(one: Magnitudes, other: Magnitudes) -> Magnitudes:
        """The counts of two histograms of the same parts and bits, together; zeros are left at none."""
        both = Magnitudes(len(one.counts), _MANTISSA - one._shift)
        for part in (one, other):
            width = part.counts.shape[1]
            if width:
                both._reach(part._first, part._first + width - 1)
                start = part._first - both._first
                both.counts[:, start : start + width] += part.counts
        return both

    @property
    def values(self) -> Tensor:
        """The middle of every bin counted, ascending, float64."""
        edges = torch.arange(self._first, self._first + self.counts.shape[1] + 1)
        at = (edges << self._shift).to(torch.int32).view(torch.float32).double()
        at.clamp_(max=torch.finfo(torch.float32).max)
        return (at[:-1] + at[1:]) / 2

    @property
    def total(self) -> Tensor:
        """Values counted, of each part, zeros aside."""
        return self.counts.sum(1)

    def ranked(self, rank: Tensor) -> Tensor:
        """Of each part the magnitude of this rank, the smallest has rank 1; 0 where the rank is below 1."""
        if self.counts.shape[1] == 0:
            return torch.zeros(len(self.counts), dtype=torch.float64)
        place = torch.searchsorted(self.counts.cumsum(1), rank[:, None]).squeeze(1)
        found = self.values[place.clamp_(max=self.counts.shape[1] - 1)]
        return found.where(rank >= 1, torch.zeros_like(found))

    def octaves(self) -> dict[int, int]:
        """Exponent `e` to how many values have `2^e ≤ |x| < 2^(e+1)`; subnormal numbers count at -127."""
        step = _MANTISSA - self._shift
        counted: dict[int, int] = {}
        for column, count in enumerate(self.counts.sum(0).tolist()):
            if count:
                exponent = ((self._first + column) >> step) - _BIASED_ONE
                counted[exponent] = counted.get(exponent, 0) + count
        return counted


@dataclass(frozen=True, eq=False)
class Watched(Wrapped):
    """A format that shows what it is given, laid out as it is given, to others; in no registry."""

    watchers: tuple[Callable[[Tensor], object], ...] = ()

    def quantize(self, x: Tensor) -> Tensor:
        """What the format makes of `x`; never `x` itself, which a layer in place would overwrite."""
        for watcher in self.watchers:
            watcher(x.detach())
        result = self.inner.quantize(x)
        return result.clone() if result is x else result
