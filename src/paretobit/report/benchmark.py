"""What a benchmark of a model's forward pass measured: as a table, as CSV, as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paretobit.report.figures import style
from paretobit.report.tables import Row, cell, to_csv
from paretobit.storage import write_text_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TABLE, _PICTURE = "benchmark.csv", "benchmark.png"
_FILL, _PALE = "#9fc3e0", "#f0f0f0"


@dataclass(frozen=True)
class Timing:
    """One variant of a model at one number of threads and one batch size.

    Attributes:
        variant: What was run.
        threads: Threads of torch.
        batch_size: Rows of a pass.
        samples: Seconds of one pass, one value a repeat: the mean of `passes` passes in a row.
        passes: Passes of one repeat.
        ratio: Median over the median of `eager` in the same setting; above 1 is slower.
        first_seconds: The first pass, which is when `compile` compiles; not among the samples.
        kept_bytes: Parameters and buffers, each memory once, and the cache of quantised parameters: those, and
            copies of what they were computed from.
        peak_bytes: Most memory of torch's allocator that a pass held at once, beyond what was there before it:
            activations, the result, unpacked weights.
        difference: Largest absolute difference of the result from that of `eager`.
        note: What else there is to know of the variant.
    """

    variant: str
    threads: int
    batch_size: int
    samples: tuple[float, ...]
    passes: int
    ratio: float
    first_seconds: float
    kept_bytes: int
    peak_bytes: int
    difference: float
    note: str = ""

    @property
    def median(self) -> float:
        """Seconds of a pass."""
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Seconds that a quarter of the samples lie below, and a quarter above."""
        if len(self.samples) == 1:
            return self.samples[0], self.samples[0]
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return low, high

    @property
    def rows_per_second(self) -> float:
        """At the median."""
        return self.batch_size / self.median

    def figures(self) -> dict[str, Any]:
        """Everything but the samples, with names and units of a file."""
        low, high = self.quartiles
        return {
            "variant": self.variant,
            "threads": self.threads,
            "batch_size": self.batch_size,
            "median_seconds": self.median,
            "quartile_1_seconds": low,
            "quartile_3_seconds": high,
            "rows_per_second": self.rows_per_second,
            "ratio_to_eager": self.ratio,
            "first_pass_seconds": self.first_seconds,
            "kept_bytes": self.kept_bytes,
            "peak_bytes": self.peak_bytes,
            "largest_difference": self.difference,
            "repeats": len(self.samples),
            "passes_per_repeat": self.passes,
            "note": self.note,
        }


@dataclass(frozen=True)
class Benchmark:
    """What was measured of a model on a machine.

    Attributes:
        model: Its name.
        machine: Device, number of processors, version of torch.
        timings: In the order of threads, batch sizes, variants.
        skipped: What was not measured: variant, or variant and setting, to the reason.
    """

    model: str
    machine: Mapping[str, Any]
    timings: tuple[Timing, ...]
    skipped: Mapping[str, str]

    def page(self) -> dict[str, Any]:
        """As JSON."""
        rows = [{**t.figures(), "samples_seconds": list(t.samples)} for t in self.timings]
        machine = dict(self.machine)
        return {"model": self.model, "machine": machine, "timings": rows, "skipped": dict(self.skipped)}


def benchmark_rows(found: Benchmark) -> list[Row]:
    """A row a timing, in units one can read."""
    rows = []
    for timing in found.timings:
        low, high = timing.quartiles
        rows.append(
            {
                "Variant": timing.variant,
                "Threads": timing.threads,
                "Batch": timing.batch_size,
                "Median (ms)": 1e3 * timing.median,
                "Quartiles (ms)": f"{cell(1e3 * low)} to {cell(1e3 * high)}",
                "Rows/s": round(timing.rows_per_second),
                "Time/eager": timing.ratio,
                "First pass (s)": timing.first_seconds,
                "Kept (kB)": timing.kept_bytes / 1e3,
                "Peak (kB)": timing.peak_bytes / 1e3,
                "Largest difference": timing.difference,
                "Note": timing.note,
            }
        )
    return rows


def write_benchmark(found: Benchmark, folder: Path) -> tuple[Path, Path]:
    """Write `benchmark.csv` and `benchmark.png` into a folder, in place of older ones."""
    table, picture = folder / _TABLE, folder / _PICTURE
    write_text_atomic(table, to_csv([timing.figures() for timing in found.timings]))
    style.save(draw_benchmark(found), picture)
    return table, picture


def draw_benchmark(found: Benchmark) -> style.Picture:
    """Bars: time of a row with its quartiles, and memory, a line for each timing."""
    timings = found.timings
    labels = [_label(timing, timings) for timing in timings]

    def paint(canvas: Figure) -> None:
        left, right = canvas.subplots(1, 2, sharey=True)
        _times(left, timings)
        _memory(right, timings)
        left.set_yticks(range(len(timings)), labels)
        left.set_ylabel("variant and setting")
        left.invert_yaxis()
        canvas.suptitle(f"{found.model} on {found.machine['device']}", fontsize=11)
        style.finish(canvas)

    fastest = min(timings, key=lambda t: t.median / t.batch_size)
    reading = f"The least time a row, {cell(1e6 * fastest.median / fastest.batch_size)} µs, takes "
    reading += f"{labels[timings.index(fastest)]}."
    size = (6.6 + 0.08 * max(map(len, labels)), 2.0 + 0.3 * len(timings))
    return style.Picture(reading, paint, size)


def _times(axes: Axes, timings: tuple[Timing, ...]) -> None:
    values = [1e6 * t.median / t.batch_size for t in timings]
    edges = [tuple(1e6 * q / t.batch_size for q in t.quartiles) for t in timings]
    below = [value - low for value, (low, _) in zip(values, edges, strict=True)]
    above = [high - value for value, (_, high) in zip(values, edges, strict=True)]
    axes.barh(
        range(len(values)), values, height=0.7, color=_FILL, edgecolor=style.BLUE, linewidth=0.8,
        xerr=[below, above], error_kw={"ecolor": style.BLACK, "capsize": 3, "linewidth": 1.0},
    )  # fmt: skip
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: style.brief(value))
    axes.set_xlabel("time of a row, median and quartiles [µs]")


def _memory(axes: Axes, timings: tuple[Timing, ...]) -> None:
    kept = [t.kept_bytes / 1e6 for t in timings]
    peak = [t.peak_bytes / 1e6 for t in timings]
    rows = range(len(timings))
    drawn: dict[str, Any] = {"height": 0.7, "edgecolor": style.BLUE, "linewidth": 0.8}
    axes.barh(rows, kept, color=style.BLUE, label="kept: weights and statistics", **drawn)
    axes.barh(rows, peak, left=kept, color=_PALE, hatch="///", label="most at once during a pass", **drawn)
    axes.xaxis.set_major_formatter(lambda value, _: style.brief(value))
    axes.set_xlabel("memory [MB]")


def _label(timing: Timing, among: tuple[Timing, ...]) -> str:
    """The variant, and what of its setting varies."""
    parts = [timing.variant]
    if len({t.threads for t in among}) > 1:
        parts.append(f"{timing.threads} thread{'s' if timing.threads > 1 else ''}")
    if len({t.batch_size for t in among}) > 1:
        parts.append(f"batch {timing.batch_size}")
    return ", ".join(parts)
