"""`paretobit doctor`: a line a check, an exit code, and nothing on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from paretobit.cli.main import app
from paretobit.doctor import CHECKS

SEARCH = """
[model]
name = "jsc-tiny"
[data]
name = "digits"
[search]
maximize = "accuracy"
minimize = "bitops"
[search.space.seed.linear]
name = "integer"
data_in = [{ width = 8, frac_width = 4 }, { width = 4, frac_width = 3 }]
weight = [{ width = 8, frac_width = 6 }, { width = 4, frac_width = 2 }]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search.toml").write_text(SEARCH)
    return tmp_path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["doctor", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_sound_search_ends_well_and_leaves_nothing_behind(here: Path) -> None:
    result = run("search.toml")
    assert result.exit_code == 0, result.output
    for name in CHECKS.names():
        assert f"{name}: " in result.stdout
    assert f"{len(CHECKS.names())} checks, 0 failed" in result.stdout
    assert "weights before training" in result.stderr
    assert [path.name for path in here.iterdir()] == ["search.toml"]


def test_a_check_that_fails_is_an_exit_code_and_json_has_the_evidence(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(CHECKS._entries, "a worker process agrees")
    result = run("search.toml", "--json", "--trials", "12", "--set", 'search.minimize="flops"')
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert answer["ok"] is False
    assert 0 < answer["evaluations"] <= 14
    failed = [check for check in answer["checks"] if check["state"] == "failed"]
    assert [check["name"] for check in failed] == ["every metric moves"]
    assert failed[0]["evidence"]["different_values"]["total_flops"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("search.toml", "--trials", "3"), "12 or more"),
        (("gone.toml",), "gone.toml"),
        (("search.toml", "--set", "search.spice=1"), "did you mean 'space'?"),
    ],
)
def test_bad_input_is_refused_before_any_work(here: Path, arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
