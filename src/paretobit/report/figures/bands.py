"""Values that come one a trial or an epoch: a line for one run, median and quartiles for several seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from paretobit.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Sequence[float]
"""One value a step, the first step's first; NaN where there is none yet."""


def draw_curves(axes: Axes, curves: Mapping[str, Sequence[Curve]], *, first: int, steps: bool, offset: int = 0) -> None:
    """Draw each group of curves.

    Args:
        axes: Where.
        curves: Label to the curves of its runs.
        first: Number of the first step on the axis.
        steps: Whether a value holds until the next step, rather than being joined to it.
        offset: How many lines are drawn already.
    """
    for i, (label, group) in enumerate(curves.items(), offset):
        low, middle, high = quartiles(group)
        xs = range(first, first + len(middle))
        look = style.line(i)
        drawstyle = "steps-post" if steps else "default"
        every = max(1, len(middle) // 8)
        named = label if len(group) == 1 else f"{label}: median and quartiles of {len(group)} runs"
        axes.plot(
            xs, middle, **look, drawstyle=drawstyle, label=named,
            marker=style.marker(i), markersize=4.5, markevery=(i % every, every),
        )  # fmt: skip
        if len(group) > 1:
            axes.fill_between(
                xs, low, high, step="post" if steps else None, color=look["color"], alpha=0.2, linewidth=0
            )


def quartiles(group: Sequence[Curve]) -> tuple[list[float], list[float], list[float]]:
    """Lower quartile, median and upper quartile at every step that all curves reach.

    NaN where one of them has no value yet: leaving it out would show the others as better than they are.

    >>> quartiles([[1, 2], [3, 4, 9], [5, 6]])
    ([2.0, 3.0], [3.0, 4.0], [4.0, 5.0])
    """
    import numpy as np

    shortest = min(map(len, group))
    stacked = np.array([list(curve[:shortest]) for curve in group], dtype=float)
    if not shortest:
        return [], [], []
    low, middle, high = np.quantile(stacked, [0.25, 0.5, 0.75], axis=0)
    return low.tolist(), middle.tolist(), high.tolist()


def last(curve: Curve) -> float:
    """The last value; NaN for an empty curve."""
    return curve[-1] if len(curve) else math.nan
