"""The benchmark of the formats runs and says what it promises; how fast they are is measured, not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from paretobit.runtime import cpp_compiler

BENCHMARK = Path(__file__).parents[2] / "benchmarks/formats.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARK), "--no-record", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_it_reports_every_format_asked_for_with_limits_and_equal_bits() -> None:
    done = run("--json", "--only", "integer", "--shape", "64x64", "--warm-up", "0")
    assert done.returncode in (0, 1), done.stderr  # on tensors this small the limits mean nothing
    rows = json.loads(done.stdout)
    assert list(rows) == [
        "integer(width=8)",
        "integer(width=8, rounding=floor)",
        "integer(width=8, rounding=stochastic)",
    ]
    nearest, _, stochastic = rows.values()
    assert nearest["limits"] == {"eager": 4, "compiled": 2, "small": 4, "scales": None}
    assert min(nearest["eager"], nearest["small"]) > 0
    if cpp_compiler() is None:
        assert nearest["compiled"] is nearest["equal"] is None
    else:
        assert nearest["compiled"] > 0
        assert nearest["equal"] is True
    assert set(stochastic["limits"].values()) == {None}
    assert stochastic["within"] is True
    assert done.returncode == int(not all(row["within"] for row in rows.values()))


def test_a_format_that_is_not_measured_is_refused() -> None:
    done = run("--only", "float", "--shape", "64x64", "--warm-up", "0")
    assert done.returncode == 2
    assert "float" in done.stderr
