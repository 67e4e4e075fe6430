"""What the benchmarks share: how they print, and where their results are kept.

Every run adds one line of JSON to `benchmarks/results.jsonl`, unless it is told `--no-record`.

    python benchmarks/output.py                      which benchmarks were run, and how often
    python benchmarks/output.py evaluation --last 4  the figures of one, a column a run
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from paretobit import __version__

RESULTS = Path(__file__).with_name("results.jsonl")
PACKAGES = ("torch", "numpy", "optuna")
NOT_FIGURES = ("json", "no_record")  # arguments that change nothing that is measured
_LOAD = round(os.getloadavg()[0], 2)  # when it starts: later the benchmark is part of it


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """The arguments that every benchmark has; it adds its own."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--no-record", action="store_true", help=f"leave {RESULTS.name} as it is")
    return parser


def show(result: Mapping[str, Any], arguments: argparse.Namespace, text: str | None = None) -> None:
    """Print figures by name, or this text in their place, and keep them."""
    if arguments.json:
        print(json.dumps(result))
    else:
        print(text if text is not None else "\n".join(f"{name:30} {value}" for name, value in result.items()))
    if not arguments.no_record:
        record(Path(sys.argv[0]).stem, result, arguments)


def record(benchmark: str, figures: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    """Append one run: when, of which commit, on what, asked what, measured what."""
    line = {
        "benchmark": benchmark,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": {"paretobit": __version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in PACKAGES},
        "machine": {"processor": processor(), "cpus": os.cpu_count(), "load": _LOAD},
        "arguments": {k: _portable(v) for k, v in vars(arguments).items() if k not in NOT_FIGURES},
        "figures": figures,
    }
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def commit() -> str | None:
    """The commit that is checked out, with a `+` where files differ from it; None outside of git."""
    folder = Path(__file__).parent
    head = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=folder, capture_output=True, text=True)
    if head.returncode:
        return None
    others = ["git", "diff", "--quiet", "HEAD", "--", ":/", f":!{RESULTS.name}"]
    changed = subprocess.run(others, cwd=folder, capture_output=True).returncode
    return head.stdout.strip() + ("+" if changed else "")


def processor() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _portable(value: Any) -> Any:
    """An argument without where on this machine its file lies."""
    if isinstance(value, str | Path):
        return Path(value).name if Path(value).is_absolute() else str(value)
    return value


def history() -> list[dict[str, Any]]:
    """Every run that was kept, oldest first."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    return [json.loads(line) for line in lines]


def flat(figures: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Figures within figures by dotted names."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{place}{name}.")
        else:
            yield f"{place}{name}", value


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """A row a figure, a column a run."""
    columns = [
        {
            "date": run["date"][:16].replace("T", " "),
            "commit": run["commit"] or "-",
            "load": run["machine"]["load"],
            **dict(flat(run["figures"])),
        }
        for run in runs
    ]
    names = list(dict.fromkeys(name for column in columns for name in column))
    width = max(map(len, names), default=0)
    cells = [[str(column.get(name, "-")) for name in names] for column in columns]
    widths = [max(map(len, column)) for column in cells]
    rows = zip(names, *cells, strict=True)
    return "\n".join(
        f"{name:{width}}" + "".join(f"  {cell:>{size}}" for cell, size in zip(row, widths, strict=True))
        for name, *row in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What the benchmarks measured, run by run.")
    parser.add_argument("benchmark", nargs="?", help="unset: how often each was run")
    parser.add_argument("--last", type=int, default=5, help="how many runs")
    arguments = parser.parse_args()
    runs = history()
    counts = Counter(run["benchmark"] for run in runs)
    if arguments.benchmark is None:
        print("\n".join(f"{name:30} {count}" for name, count in sorted(counts.items())))
    elif arguments.benchmark not in counts:
        parser.error(f"no run of '{arguments.benchmark}' was kept; there are: {', '.join(sorted(counts)) or 'none'}")
    else:
        print(table([run for run in runs if run["benchmark"] == arguments.benchmark][-arguments.last :]))


if __name__ == "__main__":
    main()
