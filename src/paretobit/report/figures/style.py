"""What all pictures share: size, fonts, and lines that differ in colour, lightness, pattern and marker.

The colours are those of Okabe and Ito ("Color Universal Design", 2008), which people with any common colour
blindness tell apart; no two of the first lines share a pattern, so a print in grey tells them apart too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paretobit.errors import BadInput
from paretobit.report.tables import cell
from paretobit.storage import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY, BLACK, BLUE, ORANGE = "#b0b0b0", "#000000", "#0072b2", "#d55e00"
COLOURS = (BLUE, ORANGE, BLACK, "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#707070")
PATTERNS: tuple[Any, ...] = (
    "-", "--", ":", "-.", (0, (8, 2)), (0, (5, 1, 1, 1, 1, 1)), (0, (2, 1)), (0, (8, 2, 2, 2)),
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SHADES = "cividis"
"""From dark to light without turning back, alike for all eyes."""
FORMATS = ("png", "svg")
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "paretobit",
    "legend.frameon": False,
}
_LOG_RANGE, _NEAR = 10.0, 3.0
_MANY_POINTS = 2000
_LETTERS, _KEY, _LIGHT = 11.5, 7, 0.55


@dataclass(frozen=True)
class Picture:
    """A picture that can be drawn, and what it shows in words.

    Attributes:
        reading: One or two sentences computed from what is drawn.
        paint: Draws into an empty matplotlib `Figure`.
        size: Width and height in inches.
    """

    reading: str
    paint: Callable[[Figure], None]
    size: tuple[float, float] = (7.2, 4.6)


def save(picture: Picture, path: str | Path) -> None:
    """Draw a picture into a file, PNG or SVG by its suffix; equal pictures make equal files.

    Raises:
        BadInput: Another suffix.
    """
    import matplotlib as mpl

    suffix = Path(path).suffix.removeprefix(".").lower()
    if suffix not in FORMATS:
        raise BadInput("no such kind of picture", key="format", found=suffix, allowed=FORMATS)
    with mpl.rc_context(_STYLE), replacing(path) as temporary:
        metadata = {"Date": None} if suffix == "svg" else None
        drawn(picture).savefig(temporary, format=suffix, dpi=150, metadata=metadata)


def drawn(picture: Picture) -> Figure:
    """A picture as a matplotlib figure."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=picture.size, layout="constrained")
        picture.paint(figure)
    return figure


def line(index: int) -> dict[str, Any]:
    """Colour and pattern of the line number `index`; 64 differ."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": PATTERNS[(index + index // len(COLOURS)) % len(PATTERNS)],
        "linewidth": 1.6,
    }


def marker(index: int) -> str:
    """Marker of the line number `index`."""
    return MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]


def finish(figure: Figure, *, grid: bool = True) -> None:
    """Grid behind the data, and one legend below all axes, where it covers nothing."""
    labelled: dict[str, Any] = {}
    for axes in figure.axes:
        if grid:
            axes.grid(True, color="#e8e8e8", linewidth=0.8)
            axes.set_axisbelow(True)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            labelled.setdefault(label, handle)
    if labelled:
        columns = _columns(list(labelled), figure.get_figwidth() * _LETTERS)
        figure.legend(list(labelled.values()), list(labelled), loc="outside lower center", ncols=columns)


def _columns(labels: Sequence[str], room: float) -> int:
    """The most columns of a legend that fit into so many letters; labels go down each column first."""
    for columns in range(len(labels), 1, -1):
        rows, longer = divmod(len(labels), columns)
        sizes = [rows + (i < longer) for i in range(columns)]
        starts = [sum(sizes[:i]) for i in range(columns)]
        widths = [max(map(len, labels[s : s + n])) + _KEY for s, n in zip(starts, sizes, strict=True)]
        if sum(widths) <= room:
            return columns
    return 1


def points(axes: Axes, xs: Sequence[float], ys: Sequence[float], form: str, **more: Any) -> None:
    """Marks without a line; a great many become one image inside an SVG."""
    axes.plot(xs, ys, form, linestyle="none", rasterized=len(xs) > _MANY_POINTS, **more)


def wants_log(values: Iterable[float]) -> bool:
    """Whether values are all positive and span more than a factor of ten.

    >>> wants_log([1, 2, 50]), wants_log([0, 2, 50]), wants_log([1, 5])
    (True, False, False)
    """
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) > _LOG_RANGE


def brief(value: float) -> str:
    """Three digits and the multiple, for where there is little room.

    >>> brief(0.8148), brief(92160), brief(1_474_560)
    ('0.815', '92.2k', '1.47M')
    """
    for power, sign in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power * (10 if sign == "k" else 1):
            return f"{value / 10**power:.3g}{sign}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def ink(norm: Callable[[Any], Any], value: float) -> str:
    """Black or white, whichever can be read on the shade of a value."""
    return "black" if float(norm(value)) > _LIGHT else "white"


def reference(
    axes: Axes, value: float, values: Sequence[float], label: str, *, of: str = "", upright: bool = False
) -> None:
    """A dashed line at a value; where it would squeeze the data into a corner, only a note in the legend.

    Args:
        axes: Where.
        value: The value.
        values: The data on the same axis.
        label: What the line is.
        of: What the note says that the value is of.
        upright: Whether the value is on the horizontal axis.
    """
    low, high = min(values, default=value), max(values, default=value)
    span = max(high - low, abs(high), abs(low)) * _NEAR
    draw = axes.axvline if upright else axes.axhline
    style: Any = {"color": ORANGE, "linestyle": "--", "linewidth": 1.3}
    if not values or low - span <= value <= high + span:
        draw(value, label=label, **style)
    else:
        axes.plot([], [], " ", label=f"{label}{of}: {cell(value)}, outside the picture")
