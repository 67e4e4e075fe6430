"""The page that compares strategies says what the committed tables give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paretobit.comparing.comparison import RANDOM, SHUFFLED
from paretobit.comparing.replay import Play
from paretobit.comparing.table import Table
from paretobit.document import Document
from paretobit.report.comparison import comparison_table
from paretobit.workflow.compare import asked_of, compare_on_table
from paretobit.workflow.contestants import Asking
from paretobit.workflow.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/comparison.md").read_text(encoding="utf-8")
PARTS = dict(re.findall(r"<!-- begin (\S+) -->\n(.*?)<!-- end \1 -->", PAGE, re.DOTALL))
COMMAND = re.compile(
    r"paretobit compare (\S+) --trials (\d+) --seeds (\d+)(?: --maximize (\S+) --subject-to \"(.*)\")?"
)


def test_every_part_of_the_page_is_filled_in_and_has_its_picture() -> None:
    assert len(PARTS) == 6
    for part in PARTS.values():
        (picture,) = re.findall(r"!\[.*\]\((.*)\)", part)
        assert (ROOT / "docs" / picture).stat().st_size > 10_000


@pytest.mark.parametrize("name", sorted(PARTS))
def test_the_numbers_of_the_page_come_from_the_table(name: str) -> None:
    """Shuffled brute force is drawn by this package alone; the others also depend on Optuna's version."""
    match = COMMAND.search(PARTS[name])
    assert match is not None
    path, trials, seeds, maximize, bound = match.groups()
    asked = {"maximize": [maximize], "subject_to": [bound]} if maximize else {}
    table, _, wanted = asked_of(ROOT / path, **asked)
    not_replayed = {(RANDOM, seed): Play((), (), 0, 0, 0, None, 0.0) for seed in range(int(seeds))}
    done = compare_on_table(table, Asking([], int(seeds), int(trials)), wanted=wanted, known=not_replayed)
    (row,) = (row for row in comparison_table(done) if row["strategy"] == SHUFFLED)
    cells = [value for key, value in row.items() if " at " in key and "random" not in key]
    cells += [value for key, value in row.items() if key.startswith("evaluations to")]
    shown = next(line for line in PARTS[name].splitlines() if line.startswith(f"| {SHUFFLED} |"))
    assert [cell.strip() for cell in shown.split("|")[2 : 2 + len(cells)]] == cells
    assert f"| {RANDOM} |" in PARTS[name]


def test_the_files_of_the_tables_describe_their_spaces() -> None:
    for path in sorted((ROOT / "examples/tables").glob("*.toml")):
        settings = Settings.from_document(Document.read(path))
        table = Table.open(path.with_suffix(".npz"))
        wanted = settings.search.wanted()
        assert [o.direction for o in wanted.objectives] == [o.direction for o in table.wanted.objectives]
        said = int(re.findall(r"([\d,]+)\s*(?:#\s*)?configurations", path.read_text())[0].replace(",", ""))
        assert len(table) == said
