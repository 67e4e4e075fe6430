"""What the tests of a search's durability share: a cheap model, a search of it, and the command line."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Forked
from torch import Tensor, nn
from typer.testing import CliRunner
from users import someone_else

import paretobit as pb
from paretobit.cli.main import app

MODEL = """
import time
import torch
from torch import nn

class Slow(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.first = nn.Linear(features, 16)
        self.second = nn.Linear(16, classes)

    def forward(self, x):
        time.sleep(0.01)
        return self.second(torch.relu(self.first(x)))

def make(in_features, num_classes):
    return nn.Sequential(nn.Flatten(), Slow(64, num_classes))
"""
SEARCH = """
model = "slow.py:make"
data = "npz:blobs.npz"
[train]
max_epochs = 1
batch_size = 1024
[search]
maximize = "accuracy"
minimize = "bitops"
n_trials = 40
strategy = "tpe"
[search.space.seed.linear]
data_in_width = [3, 4, 6, 8]
weight_width = [3, 4, 6, 8]
"""


def blobs(path: Path) -> None:
    """Ten classes in 64 dimensions: each start of Python is quicker by what scikit-learn takes to import."""
    random, y = np.random.default_rng(0), np.arange(600) % 10
    x = random.normal(size=(10, 64))[y] + 1.5 * random.normal(size=(600, 64))
    np.savez(path, X=x.astype(np.float32), y=y)


class Place:
    """A folder with a model and a search, and the command line in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "slow.py").write_text(MODEL)
        blobs(path / "blobs.npz")
        self.write(SEARCH)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def write(self, text: str) -> None:
        (self.path / "search.toml").write_text(text)

    def change(self, old: str, new: str) -> None:
        """Change the search."""
        text = (self.path / "search.toml").read_text()
        assert old in text
        self.write(text.replace(old, new))

    def start(self, *arguments: str, setup: str = "") -> Forked:
        """`paretobit search -q` with these arguments, after some lines of Python."""
        return Forked(self.path, ["search", "-q", *arguments], setup)

    def run(self, *arguments: str) -> tuple[int, str]:
        """The same in this process: exit code and what it said on one line."""
        result = CliRunner().invoke(app, ["search", "-q", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, " ".join(result.stderr.split())

    def finish(self, *arguments: str) -> None:
        """Run it to its end, which must be a good one."""
        assert self.run(*arguments) == (0, "")

    def end(self, process: Forked) -> tuple[int, str]:
        """Exit code and standard error on one line; a traceback is never an answer."""
        _, said = process.communicate(timeout=120)
        assert "Traceback" not in said, said
        return process.returncode, " ".join(said.split())

    def wait_for(self, run: str, trials: int, process: Forked) -> None:
        """Until the run folder has so many trials, or its search ended."""
        while committed(self.path / run / "study.db") < trials and process.poll() is None:
            time.sleep(0.01)

    def seconds(self, run: str) -> dict[int, float]:
        """The time of each trial: one that was run again has another."""
        return {trial.number: trial.seconds for trial in pb.Study.open(self.path / run)}

    def rows(self, run: str) -> list[tuple[object, ...]]:
        return everything_but_times(pb.Study.open(self.path / run))

    def workers_of(self, process: Forked) -> list[int]:
        """Process ids of a coordinator's workers: its children that were started as such."""
        listed = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
        fields = [line.split(None, 2) for line in listed.stdout.splitlines()]
        return [int(pid) for pid, parent, args in fields if int(parent) == process.pid and "engines.worker" in args]

    def await_the_end_of(self, processes: Sequence[int], seconds: float = 30.0) -> list[int]:
        """Those of the processes that are still there when the time is up."""
        late = time.monotonic() + seconds
        while (left := [pid for pid in processes if _is_there(pid)]) and time.monotonic() < late:
            time.sleep(0.05)
        return left


def everything_but_times(study: pb.Study) -> list[tuple[object, ...]]:
    """Everything of the trials but times."""
    return [(t.number, t.config, t.state, t.metrics, t.seed, t.duplicate_of, t.asked_after) for t in study]


def committed(study: Path) -> int:
    """Trials in a study, looked at from outside."""
    if not study.exists():
        return 0
    with closing(sqlite3.connect(f"file:{study}?mode=ro", uri=True)) as db:
        try:
            return int(db.execute("SELECT COUNT(*) FROM trials").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def _is_there(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.startswith("Z")


@pytest.fixture
def as_someone_else() -> Callable[[], AbstractContextManager[None]]:
    """Permissions do not bind the superuser: be another user inside the block."""
    return someone_else


@pytest.fixture
def rows() -> Callable[[pb.Study], list[tuple[object, ...]]]:
    """Everything of the trials but times."""
    return everything_but_times


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path)


@pytest.fixture
def net() -> nn.Module:
    """Three layers to quantise."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3, bias=False)).eval()


@pytest.fixture
def val() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    return torch.randn(200, 6, generator=generator), torch.randint(0, 3, (200,), generator=generator)


@pytest.fixture
def space() -> pb.Quantize:
    """6 × 6 × 6 configurations."""
    return pb.Quantize(seed={"linear": {"weight_width": [2, 3, 4, 5, 6, 8], "weight_frac_width": 2}})
