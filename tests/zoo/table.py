"""The whole zoo, checked: `make zoo` prints one table, by family and check, and what stands behind it.

python tests/zoo/table.py [NAME ...] [--json FILE] [--before FILE] [--page FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from architectures import ZOO
from checks import BY_NAME, CHECKS, Checked, check, verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="architectures; all unless given")
    parser.add_argument("--json", type=Path, help="write what was found here")
    parser.add_argument("--before", type=Path, help="what was found before, to stand beside it")
    parser.add_argument("--page", type=Path, help="write the table here, with what the tool says of each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for name in arguments.names or ZOO:
        results.append(check(ZOO[name]))
        for line in troubles(results[-1]):
            print(line, file=sys.stderr, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    before = None
    if arguments.before:
        before = [Checked(**page) for page in json.loads(arguments.before.read_text(encoding="utf-8"))]
    print("\n".join(table(results, before)))
    if arguments.page:
        arguments.page.write_text("\n".join(page(results, before)) + "\n", encoding="utf-8")
    if any(verdict(text) == "wrong" for result in results for text in result.found.values()):
        raise SystemExit(1)


def troubles(result: Checked) -> list[str]:
    """A line for each check that is not simply ok."""
    return [f"{result.name}: {name}: {text}" for name, text in result.found.items() if text != "ok"]


def table(results: Sequence[Checked], before: Sequence[Checked] | None = None) -> list[str]:
    """By family and check: how many are ok, of how many the tool names what it left out, how many are wrong."""
    lines = ["| family | models | " + " | ".join(CHECKS) + " |", "|---|---|" + "---|" * len(CHECKS)]
    families = [*dict.fromkeys(result.family for result in results), "all"]
    for family in families:
        own = [r for r in results if family in (r.family, "all")]
        cells = [_cell(own, name) for name in CHECKS]
        if before is not None:
            names = {result.name for result in own}
            then = [result for result in before if result.name in names]
            cells = [f"{_cell(then, name)} → {cell}" for name, cell in zip(CHECKS, cells, strict=True)]
        lines.append(f"| {family} | {len(own)} | " + " | ".join(cells) + " |")
    return lines


def page(results: Sequence[Checked], before: Sequence[Checked] | None = None) -> list[str]:
    """The table as a page, with what each check is and everything that is not simply ok."""
    lines = [
        "# Architectures nobody designed for here",
        "",
        f"{len(results)} architectures of transformers from tiny configurations. `make zoo` checks them and writes",
        "this page; the tests take a sample. A cell counts those that are ok / of which the tool names what it",
        "left out, and why / that are wrong" + (", in version 0.2.0 → now." if before is not None else "."),
        "",
        *(f"- *{name}*: {BY_NAME[name].__doc__}" for name in CHECKS),
        "",
        *table(results, before),
        "",
        "## What is said",
        "",
    ]
    return lines + [f"- {line}" for result in results for line in troubles(result)]


def _cell(results: Sequence[Checked], name: str) -> str:
    """`ok / said / wrong`."""
    count = Counter(verdict(result.found[name]) for result in results)
    return f"{count['ok']} / {count['said']} / {count['wrong']}"


if __name__ == "__main__":
    main()
