"""What a benchmark's ratios are made of: seconds of the processor, two things in turns, the median of the ratios.

Seconds of the processor go on only while the process runs, so that what else the machine does counts
little; what was interrupted is measured again, since it went on with cold caches; timed in turns, both
sides see the machine at the same pace; and of all pairs the median counts.
Wall time is for what is waited for: several workers at once, processes that are to start or to go.
"""

from __future__ import annotations

import itertools
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """The median of the ratios of pairs, and between which values half of them lie."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> list[float]:
        """The quartiles, as they are printed and kept."""
        return [round(self.low, 3), round(self.high, 3)]


def cpu() -> float:
    """Seconds of the processor that this process took, and those of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Median seconds of the processor of a call, after one that does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def interruptions() -> int:
    """How often this process had to make way for another one: its caches are cold after it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def calm(measure: Callable[[], float], tries: int = 6) -> float:
    """What is measured without an interruption, or with as few as there were in so many tries."""
    best = (sys.maxsize, 0.0)
    for _ in range(tries):
        before = interruptions()
        value = measure()
        best = min(best, (interruptions() - before, value), key=lambda found: found[0])
        if not best[0]:
            break
    return best[1]


def per_call(function: Callable[[], object], calls: int) -> float:
    """Mean seconds of the processor of a call, those that were interrupted included."""
    start = time.process_time()
    for _ in range(calls):
        function()
    return (time.process_time() - start) / calls


def ratio(ratios: Iterable[float]) -> Ratio:
    """Of the ratios of pairs.

    >>> ratio([2.0, 1.0, 4.0, 3.0, 100.0])
    Ratio(median=3.0, low=2.0, high=4.0)
    """
    known = sorted(ratios)
    if len(known) < 2:
        return Ratio(known[0], known[0], known[0])
    low, median, high = statistics.quantiles(known, n=4, method="inclusive")
    return Ratio(median, low, high)


def in_units(taken: Sequence[float], units: Sequence[float]) -> list[float]:
    """What was taken, each in the mean of the units before and after it: machines change their pace.

    >>> in_units([6.0, 8.0], [1.0, 3.0, 5.0])
    [3.0, 2.0]
    """
    return [2 * own / (a + b) for own, (a, b) in zip(taken, itertools.pairwise(units), strict=True)]


def multiple(function: Callable[[], object], unit: Callable[[], object], calls: int, pairs: int) -> Ratio:
    """Seconds of the processor of a call in those of another one, after one of each that does not count.

    Args:
        function: Is called so often in a row, the unit as often before and after it.
        unit: What stands for one.
        calls: In a row: one where it takes milliseconds, so that both sides of a pair lie close together.
        pairs: How many.
    """
    function()
    unit()
    taken, units = [], [calm(lambda: per_call(unit, calls))]
    for _ in range(pairs):
        taken.append(calm(lambda: per_call(function, calls)))
        units.append(calm(lambda: per_call(unit, calls)))
    return ratio(in_units(taken, units))
