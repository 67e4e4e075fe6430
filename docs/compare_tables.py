"""Measure what `comparison.md` says: all samplers, 20 seeds, on the committed tables.

    python docs/compare_tables.py                  # everything; about an hour, most of it the sampler gp
    python docs/compare_tables.py --again guided   # replay one strategy anew, take the others as they were

Replaces the parts of the page between its markers, and draws its pictures. What was replayed is kept in
`runs/comparison`, for tables, versions and budgets that are still the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections import UserDict
from dataclasses import dataclass
from pathlib import Path

import optuna

import paretobit
from paretobit.comparing.replay import Play
from paretobit.report.comparison import comparison_page, comparison_picture
from paretobit.report.figures import save
from paretobit.storage import write_text_atomic
from paretobit.workflow.compare import asked_of, compare_on_table
from paretobit.workflow.contestants import Asking

DOCS = Path(__file__).parent
TABLES = DOCS.parent / "examples/tables"
KEPT = DOCS.parent / "runs/comparison"
PAGE = DOCS / "comparison.md"
SEEDS, BUDGET = 20, 100


@dataclass(frozen=True)
class Question:
    """One comparison of the page.

    Attributes:
        table: Name of a committed table.
        kind: `front`, as the table asks; `budget`: the best accuracy under a bound.
        bound: On BitOPs, for `budget`.
    """

    table: str
    kind: str
    bound: int | None = None

    @property
    def name(self) -> str:
        """Of its marker and its picture."""
        return f"{self.table}-{self.kind}"

    @property
    def command(self) -> str:
        """The same from the command line."""
        asked = "" if self.bound is None else f' --maximize accuracy --subject-to "bitops <= {self.bound}"'
        return f"paretobit compare examples/tables/{self.table}.npz --trials {BUDGET} --seeds {SEEDS}{asked}"


QUESTIONS = (
    Question("digits_widths", "front"),
    Question("digits_widths", "budget", 25_000),
    Question("digits_families", "front"),
    Question("digits_families", "budget", 26_000),
    Question("pendigits_widths", "front"),
    Question("pendigits_widths", "budget", 65_000),
)


def part(question: Question, again: set[str]) -> str:
    """Replay a question, draw its picture, and give its part of the page."""
    file = TABLES / f"{question.table}.npz"
    asked: dict[str, list[str]] = {}
    if question.bound is not None:
        asked = {"maximize": ["accuracy"], "subject_to": [f"bitops <= {question.bound}"]}
    table, name, wanted = asked_of(file, **asked)
    same = [file.read_bytes(), repr((question, BUDGET, paretobit.__version__, optuna.__version__)).encode()]
    comparison = compare_on_table(
        table,
        Asking(None, SEEDS, BUDGET),
        name=name,
        wanted=wanted,
        on_play=lambda label, done, total: print(f"{question.name}: {label} {done}/{total}", flush=True),
        known=Kept(KEPT / f"{question.name}-{hashlib.sha256(b''.join(same)).hexdigest()[:16]}.jsonl", again),
    )
    picture = f"images/comparison-{question.name}.png"
    save(comparison_picture(comparison), DOCS / picture)
    return f"```\n{question.command}\n```\n\n" + comparison_page(comparison, picture).partition("\n\n")[2]


class Kept(UserDict[tuple[str, int], Play]):
    """Plays by strategy and seed, one line each in a file that grows with them; the last of a key counts."""

    def __init__(self, file: Path, again: set[str]) -> None:
        super().__init__()
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
            label, seed, plain = json.loads(line)
            if label not in again:
                self.data[label, seed] = Play.from_json(plain)

    def __setitem__(self, key: tuple[str, int], play: Play) -> None:
        super().__setitem__(key, play)
        with self._file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps([*key, play.to_json()]) + "\n")


def placed(page: str, name: str, text: str) -> str:
    """The page with the text between the markers of this name."""
    markers = rf"(<!-- begin {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)"
    replaced, found = re.subn(markers, lambda match: match[1] + text + match[2], page, flags=re.DOTALL)
    if found != 1:
        raise SystemExit(f"{PAGE} has {found} places for {name}")
    return replaced


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--again", action="append", default=[], help="a strategy to replay anew; repeatable")
    parser.add_argument("--only", action="append", default=[], help="a part of the page; repeatable")
    arguments = parser.parse_args()
    for question in QUESTIONS:
        if not arguments.only or question.name in arguments.only:
            text = part(question, set(arguments.again))
            write_text_atomic(PAGE, placed(PAGE.read_text(encoding="utf-8"), question.name, text))
