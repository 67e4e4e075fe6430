"""The README is true: its commands and snippets run, its links exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ok

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An empty folder that sees the examples."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@pytest.mark.slow
def test_every_command_of_the_tour_works(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first as a shell runs it, the others in this process: each start of Python takes seconds."""
    first, *others = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(others) >= 8
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(first, shell=True, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{first}\n{done.stdout}\n{done.stderr}"
    monkeypatch.chdir(elsewhere)
    for command in others:
        program, *arguments = shlex.split(command)
        assert program == "paretobit"
        ok(*arguments)
    assert (elsewhere / "runs/tour/front.png").stat().st_size > 10_000


@pytest.mark.slow
def test_every_snippet_runs_in_the_order_of_the_page(elsewhere: Path) -> None:
    snippets = blocks("python")
    assert len(snippets) >= 3
    script = elsewhere / "snippets.py"
    script.write_text("\n".join(snippets))
    done = subprocess.run([sys.executable, str(script)], cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "integer(width=4, frac_width=2)" in done.stdout


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


PAGES = sorted(str(page.relative_to(ROOT)) for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))


@pytest.mark.parametrize("page", PAGES)
def test_links_point_at_files_that_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert ((ROOT / page).parent / target).exists(), target
