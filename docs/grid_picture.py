"""A picture of the values of a format: SVG text, the same bytes on every machine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

WIDTH, MARGIN = 720, 36
AXIS_HEIGHT = 64
TOP, BASE = 8, 24  # of the ticks, within an axis
SPARSE, CROWDED = 100, 400  # ticks
COLOR = "#1f5fa8"
LABELS = 7  # on the logarithmic axis, about
WIDE_RATIO = 8.0  # of largest to smallest positive value, from which a logarithmic axis tells something


def grid_picture(values: Sequence[float], caption: str) -> str:
    """Ticks at the values: on a symmetric linear axis, and the positive ones on a logarithmic one."""
    reach = max(abs(value) for value in values)
    positive = [value for value in values if value > 0]
    axes = [_linear(values, reach)]
    if positive and len(positive) > 1 and max(positive) / min(positive) >= WIDE_RATIO:
        axes.append(_logarithmic(positive))
    height = 28 + AXIS_HEIGHT * len(axes)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape(caption)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(MARGIN, 18, caption, anchor="start"),
    ]
    for number, axis in enumerate(axes):
        parts.append(f'<g transform="translate(0 {28 + AXIS_HEIGHT * number})">\n{axis}\n</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _linear(values: Iterable[float], reach: float) -> str:
    def place(value: float) -> float:
        return WIDTH / 2 + value / reach * (WIDTH / 2 - MARGIN)

    labels = [-reach, -reach / 2, 0.0, reach / 2, reach]
    return _axis([place(value) for value in values], [(place(value), _plain(value)) for value in labels])


def _logarithmic(positive: Sequence[float]) -> str:
    low, high = math.log2(min(positive)), math.log2(max(positive))

    def place(exponent: float) -> float:
        return MARGIN + (exponent - low) / (high - low) * (WIDTH - 2 * MARGIN)

    first, last = math.ceil(low), math.floor(high)
    every = max(math.ceil((last - first) / LABELS), 1)
    labels = [(place(exponent), _power(exponent)) for exponent in range(first, last + 1, every)]
    return _axis([place(math.log2(value)) for value in positive], labels)


def _axis(places: Iterable[float], labels: Iterable[tuple[float, str]]) -> str:
    """One line with ticks and labels."""
    drawn = sorted({round(place, 1) for place in places})
    marks = _ticks(drawn) if len(drawn) <= CROWDED else _runs(sorted({round(place) for place in drawn}))
    lines = [f'<path d="M{MARGIN} {BASE}H{WIDTH - MARGIN}" stroke="#999"/>', marks]
    for place, text in labels:
        lines.append(f'<path d="M{place:.1f} {BASE}v5" stroke="#999"/>')
        lines.append(_text(place, BASE + 18, text))
    return "\n".join(lines)


def _ticks(places: Sequence[float]) -> str:
    path = "".join(f"M{place:g} {TOP}v{BASE - TOP}" for place in places)
    width = 1.5 if len(places) < SPARSE else 0.7
    return f'<path d="{path}" stroke="{COLOR}" stroke-width="{width}" fill="none"/>'


def _runs(places: Sequence[int]) -> str:
    """Ticks at neighbouring pixels as one box: no more can be seen, and the file stays small."""
    starts = [place for place in places if place - 1 not in places]
    ends = [place for place in places if place + 1 not in places]
    boxes = "".join(
        f"M{start - 0.5:g} {TOP}H{end + 0.5:g}V{BASE}H{start - 0.5:g}z" for start, end in zip(starts, ends, strict=True)
    )
    return f'<path d="{boxes}" fill="{COLOR}"/>'


def _plain(value: float) -> str:
    text = f"{value:.6g}"
    return f"{value:.3g}" if "e" in text else text


def _power(exponent: int) -> str:
    """A power of two, as a number while that is short."""
    if 0 <= exponent <= 10:
        return str(2**exponent)
    return f"1/{2**-exponent}" if -10 <= exponent < 0 else f"2^{exponent}"


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" fill="#222">{escape(text)}</text>'
