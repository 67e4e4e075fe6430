"""What a benchmark measured is kept, one line a run, and can be read back as a table."""

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import paretobit as pb

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def output(monkeypatch, tmp_path):
    """The module, with a file of its own for what is kept."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import output

    monkeypatch.setattr(output, "RESULTS", tmp_path / "results.jsonl")
    monkeypatch.setattr(sys, "argv", [str(FOLDER / "speed.py")])
    return output


def asked(output, *words):
    parser = output.parser_of("Speed.\n\nMore.")
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    return parser.parse_args(words)


def test_a_run_is_printed_and_appended(output, capsys):
    for value in (1.5, 2.5):
        output.show({"ratio": value}, asked(output, "--rows", "7"))
    assert capsys.readouterr().out.split() == ["ratio", "1.5", "ratio", "2.5"]
    lines = [json.loads(line) for line in output.RESULTS.read_text().splitlines()]
    assert [line["figures"] for line in lines] == [{"ratio": 1.5}, {"ratio": 2.5}]
    first = lines[0]
    assert first["benchmark"] == "speed"
    assert first["arguments"] == {"rows": 7, "cache": ".cache"}
    assert datetime.now(UTC) - datetime.fromisoformat(first["date"]) < timedelta(minutes=5)
    assert first["versions"]["paretobit"] == pb.__version__
    assert first["machine"]["cpus"] >= 1
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=FOLDER, capture_output=True, text=True)
    if head.returncode == 0:
        assert head.stdout.startswith(first["commit"].rstrip("+"))


def test_a_run_that_is_not_to_be_kept_is_only_printed(output, capsys):
    output.show({"ratio": 1.5}, asked(output, "--no-record", "--json"))
    assert json.loads(capsys.readouterr().out) == {"ratio": 1.5}
    assert not output.RESULTS.exists()


def test_no_path_of_this_machine_is_kept(output, tmp_path, capsys):
    output.show({}, asked(output, "--cache", str(tmp_path / "mine")))
    assert json.loads(output.RESULTS.read_text())["arguments"]["cache"] == "mine"
    assert str(tmp_path) not in output.RESULTS.read_text()


def test_the_history_is_a_table_with_a_column_for_every_run(output, capsys, monkeypatch):
    for figures in ({"ratio": 1.5, "by": {"cnn": 4}}, {"ratio": 22.5, "new": 1}):
        output.show(figures, asked(output))
    output.record("other", {"ratio": 9}, argparse.Namespace())
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["output.py", "speed"])
    output.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    figures = {name: values for name, *values in rows if name not in ("date", "commit", "load")}
    assert figures == {"ratio": ["1.5", "22.5"], "by.cnn": ["4", "-"], "new": ["-", "1"]}


def test_the_reader_says_what_there_is(output, capsys, monkeypatch):
    output.record("speed", {"ratio": 1.5}, argparse.Namespace())
    monkeypatch.setattr(sys, "argv", ["output.py"])
    output.main()
    assert capsys.readouterr().out.split() == ["speed", "1"]
    monkeypatch.setattr(sys, "argv", ["output.py", "sped"])
    with pytest.raises(SystemExit):
        output.main()
    assert "no run of 'sped' was kept; there are: speed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "script", sorted(p.name for p in FOLDER.glob("*.py") if p.name not in ("cases.py", "output.py", "timing.py"))
)
def test_every_benchmark_prints_and_keeps_through_the_one_place(script):
    source = (FOLDER / script).read_text(encoding="utf-8")
    assert "parser_of(__doc__)" in source
    assert " show(" in source
