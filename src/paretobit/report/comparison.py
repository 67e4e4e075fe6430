"""A comparison of strategies: its picture, its tables, and its reading in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from paretobit.comparing.comparison import RANDOM, Comparison, Quartiles, Standing
from paretobit.report.figures import Picture, style
from paretobit.report.tables import Row, cell, to_markdown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS, _TOGETHER = 4, 4
_SIGNIFICANT = 0.05


def comparison_picture(comparison: Comparison) -> Picture:
    """Median and quartile band of every strategy against unique expensive evaluations, noise shaded.

    Up to four strategies share one pair of axes; more of them get axes of their own, each with random's
    median beside it.
    """
    entries = comparison.entries
    if len(entries) <= _TOGETHER:
        return Picture(reading(comparison), lambda canvas: _together(canvas, comparison))
    rows = -(-(len(entries) - 1) // _COLUMNS)
    size = (2.4 * min(_COLUMNS, len(entries) - 1) + 0.6, 2.1 * rows + 1.1)
    return Picture(reading(comparison), lambda canvas: _apart(canvas, comparison, rows), size)


def comparison_table(comparison: Comparison) -> list[Row]:
    """One row a strategy: median (lower to upper quartile) over the seeds, and the difference to random."""
    random = comparison.entry(RANDOM)
    rows = []
    for entry in _ordered(comparison):
        row: Row = {"strategy": entry.label}
        for x in comparison.checkpoints:
            row[f"{comparison.measure} at {x}"] = _spread(entry.at(x))
        within = f"evaluations to within {cell(_short(comparison.within))}"
        row[within] = _whole(comparison.evaluations_to_best(entry))
        row["seeds that came so close"] = f"{comparison.reached(entry)} of {len(entry.plays)}"
        row["duplicates"] = f"{entry.duplicates[1]:.0%}"
        row["ms per proposal"] = f"{_short(1000 * entry.seconds):g}"
        row["evidence, in evaluations"] = f"{entry.evidence:.0f}" if entry.evidence else "-"
        for x in (comparison.checkpoints[0], comparison.checkpoints[-1]):
            row[f"against random at {x}"] = "-" if entry is random else _against(comparison, entry, random, x)
        rows.append(row)
    return rows


def reading(comparison: Comparison) -> str:
    """What the curves say, in words computed from them."""
    random, end = comparison.entry(RANDOM), comparison.budget
    others = [entry for entry in _ordered(comparison) if entry is not random]
    found = {entry.label: comparison.paired(entry, random, end) for entry in others}
    sure = {label: pair for label, pair in found.items() if pair.p < _SIGNIFICANT / len(found)}
    better = [label for label, pair in sure.items() if pair.better > pair.worse]
    worse = [label for label, pair in sure.items() if pair.better < pair.worse]
    alike = [label for label in found if label not in sure]
    first = _ordered(comparison)[0]
    parts = [
        f"After {end} evaluations {first.label} has the best median {comparison.measure}: "
        f"{_number(first.at(end)[1])}; random has {_number(random.at(end)[1])}."
    ]
    if better:
        parts.append(f"Better than random, seed by seed: {', '.join(better)}.")
    if worse:
        parts.append(f"Worse than random: {', '.join(worse)}.")
    if alike:
        parts.append(f"Not to be told from random with {len(comparison.seeds)} seeds: {', '.join(alike)}.")
    noise = comparison.yardstick.noise
    if noise is not None:
        beyond = [label for label in sure if _beyond_noise(comparison, comparison.entry(label), random)]
        parts.append(
            f"By more than the noise of the validation rows ({_number(noise)}): {', '.join(beyond) or 'none'}."
        )
    return " ".join(parts)


def comparison_page(comparison: Comparison, picture: str) -> str:
    """The comparison as Markdown.

    Args:
        comparison: What was compared.
        picture: Path of its picture, from the page.
    """
    best = "the best there is" if comparison.exact else "the best that any of them found"
    charged = " Evidence is counted as evaluations, before a strategy's first one."
    asked = ", ".join(comparison.objectives)
    if comparison.constraints:
        asked += f" subject to {' and '.join(comparison.constraints)}"
    lines = [
        f"## {comparison.name}: {asked}",
        "",
        f"{comparison.size:,} configurations; {len(comparison.seeds)} seeds; {comparison.budget} unique "
        f"expensive evaluations; {comparison.measure}, relative to {best}. "
        f"{_scales(comparison)}{_noise(comparison)}{charged if comparison.charged else ''}",
        "",
        f"![{comparison.measure} of each strategy]({picture})",
        "",
        reading(comparison),
        "",
        to_markdown(comparison_table(comparison)),
    ]
    alike = [entry.label for entry in comparison.entries if len(set(entry.curves)) == 1 < len(entry.curves)]
    lines += [f"- {label} does the same in every seed: read its row as one run." for label in alike]
    lines += [f"- {e.label} ended early in {e.ended}." for e in comparison.entries if e.ended]
    lines += [f"- Left out: {label}: {reason}." for label, reason in comparison.left_out.items()]
    return "\n".join(lines).rstrip() + "\n"


def _together(canvas: Figure, comparison: Comparison) -> None:
    axes = canvas.subplots()
    for i, entry in enumerate(comparison.entries):
        _draw(axes, entry, i, comparison)
    _dress(axes, comparison)
    axes.set_xlabel("unique expensive evaluations")
    axes.set_ylabel(_label(comparison))
    style.finish(canvas)


def _apart(canvas: Figure, comparison: Comparison, rows: int) -> None:
    random = comparison.entry(RANDOM)
    others = [entry for entry in comparison.entries if entry is not random]
    columns = min(_COLUMNS, len(others))
    grid = canvas.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for axes, entry in zip(grid, others, strict=False):
        _draw(axes, random, 1, comparison, band=False)
        _draw(axes, entry, 0, comparison, label="the strategy: median and quartiles")
        _dress(axes, comparison)
        axes.set_title(entry.label, fontsize=9)
    for i, axes in enumerate(grid):
        axes.set_visible(i < len(others))
        if i + columns >= len(others):  # nothing below it
            axes.set_xlabel("unique evaluations", fontsize=9)
            axes.tick_params(labelbottom=True)
    canvas.supylabel(_label(comparison), fontsize=10)
    style.finish(canvas)


def _draw(
    axes: Axes, entry: Standing, number: int, comparison: Comparison, *, band: bool = True, label: str | None = None
) -> None:
    low, middle, high = zip(*entry.bands[: entry.last], strict=True)
    xs = range(1, len(middle) + 1)
    look = style.line(number)
    named = label or (f"{entry.label}: median" + (" and quartiles" if band else ""))
    axes.step(xs, _shown(middle), where="post", **look, label=named)
    if band:
        axes.fill_between(
            xs, _shown(low), _shown(high, top=True), step="post", color=look["color"], alpha=0.22, linewidth=0
        )


def _shown(values: Sequence[float], *, top: bool = False) -> list[float]:
    """Infinite values as gaps; as the top of a band, beyond the picture."""
    beyond = 1e9 if top else math.nan
    return [value if math.isfinite(value) else beyond for value in values]


def _dress(axes: Axes, comparison: Comparison) -> None:
    noise = comparison.yardstick.noise
    values = [v for e in comparison.entries for b in e.bands for v in b if math.isfinite(v)]
    if comparison.measure == "regret":
        positive = [value for value in values if value > 0]
        # Linear below the smallest regret that occurs, so that a regret of 0 is in the picture.
        threshold = min(positive, default=1.0)
        axes.set_yscale("symlog", linthresh=threshold, linscale=0.4)
        axes.set_ylim(-threshold * 0.15, max(positive, default=1.0) * 1.3)
        decades = range(math.ceil(math.log10(threshold)), math.ceil(math.log10(max(positive, default=1.0))) + 1)
        axes.set_yticks([0.0, *(10.0**decade for decade in decades)])
        limits = (-threshold, noise or 0.0)
    else:
        axes.set_ylim(max(0.0, min(_late(comparison)) - 0.02), 1.005)
        limits = (1 - (noise or 0.0), 1.01)
    if noise is not None:
        axes.axhspan(*limits, color="#ececec", zorder=0, label="closer to the best than the noise of the rows")


def _late(comparison: Comparison) -> list[float]:
    """Values after the first tenth: before it the curves rise from nothing."""
    start = comparison.budget // 10
    return [band[0] for entry in comparison.entries for band in entry.bands[start:]] or [0.0]


def _label(comparison: Comparison) -> str:
    if comparison.measure == "regret":
        return f"regret [{comparison.objectives[0].partition(' ')[2].replace('_', ' ')}]"
    return "share of the best hypervolume"


def _ordered(comparison: Comparison) -> list[Standing]:
    """Best median first; where medians are alike, the sooner one within reach."""
    sign = 1 if comparison.measure == "regret" else -1
    keys = {
        e.label: (sign * e.at(comparison.budget)[1], comparison.evaluations_to_best(e)[1]) for e in comparison.entries
    }
    return sorted(comparison.entries, key=lambda entry: keys[entry.label])


def _beyond_noise(comparison: Comparison, entry: Standing, other: Standing) -> bool:
    ours, theirs = (e.at(comparison.budget)[1] for e in (entry, other))
    return ours != theirs and not abs(ours - theirs) <= (comparison.yardstick.noise or 0)


def _against(comparison: Comparison, entry: Standing, random: Standing, evaluations: int) -> str:
    pair = comparison.paired(entry, random, evaluations)
    p = "< .001" if pair.p < 0.001 else f"{pair.p:.3f}".removeprefix("0")
    return f"{pair.better} better, {pair.equal} equal, {pair.worse} worse; p {p}"


def _spread(values: Quartiles) -> str:
    low, middle, high = map(_number, values)
    return low if low == middle == high else f"{middle} ({low} to {high})"


def _whole(values: Quartiles) -> str:
    low, middle, high = ("never" if math.isinf(value) else f"{value:.0f}" for value in values)
    return low if low == middle == high else f"{middle} ({low} to {high})"


def _number(value: float) -> str:
    return "none feasible" if math.isinf(value) else f"{value:.3f}" if value >= 1e-3 or value == 0 else f"{value:.1e}"


def _short(value: float) -> float:
    return float(f"{value:.2g}")


def _noise(comparison: Comparison) -> str:
    noise = comparison.yardstick.noise
    if noise is None:
        return "The noise of the measurement is not known."
    return f"Differences below {_number(noise)} are noise of the validation rows."


def _scales(comparison: Comparison) -> str:
    logs = [name for name, scale in zip(comparison.objectives, comparison.yardstick.scales, strict=False) if scale.log]
    return f"On a logarithmic scale: {', '.join(logs)}. " if logs else ""
