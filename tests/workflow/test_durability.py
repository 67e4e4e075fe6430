"""A search that is killed or interrupted loses nothing and goes on to the same end."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import paretobit as pb

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
data = "digits"
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


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from paretobit.cli.main import main; main()", "search", "-q", *arguments]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def finish(folder: Path, *arguments: str) -> None:
    process = start(folder, *arguments)
    _, said = process.communicate()
    assert process.returncode == 0, said


def committed(study: Path) -> int:
    if not study.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{study}?mode=ro", uri=True) as db:
            return int(db.execute("SELECT COUNT(*) FROM trials").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def wait_for(study: Path, trials: int, process: subprocess.Popen[str]) -> None:
    while committed(study) < trials and process.poll() is None:
        time.sleep(0.005)


def rows(run: Path) -> list[tuple[object, ...]]:
    """Everything of the trials but times."""
    trials = pb.Study.open(run).trials
    return [(t.number, t.config, t.state, t.metrics, t.seed, t.duplicate_of, t.asked_after) for t in trials]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(MODEL)
    (tmp_path / "search.toml").write_text(SEARCH)
    return tmp_path


@pytest.mark.slow
def test_a_search_killed_again_and_again_ends_like_one_that_was_not(here: Path) -> None:
    finish(here, "-c", "search.toml", "-o", "whole")
    moments = random.Random(0)
    seen: dict[int, float] = {}
    for kill in range(4):
        resume = ["--resume"] if kill else ["-c", "search.toml"]
        process = start(here, "-o", "killed", *resume)
        wait_for(here / "killed/study.db", 8 * kill + moments.randrange(1, 8), process)
        time.sleep(moments.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        now = {t.number: t.seconds for t in pb.Study.open(here / "killed").trials}
        assert {number: now[number] for number in seen} == seen, "a finished trial was lost or run again"
        seen = now
    finish(here, "-o", "killed", "--resume")
    assert rows(here / "killed") == rows(here / "whole")
    for name in ("front.csv", "best/model.json"):
        assert (here / "killed" / name).exists()


@pytest.mark.slow
def test_a_kill_while_training_costs_at_most_an_epoch(here: Path) -> None:
    (here / "search.toml").write_text(SEARCH.replace("max_epochs = 1", "max_epochs = 12"))
    finish(here, "-c", "search.toml", "-o", "whole")
    process = start(here, "-c", "search.toml", "-o", "killed")
    curves = here / "killed/float/learning_curves.csv"
    while process.poll() is None and not (curves.exists() and len(curves.read_text().splitlines()) > 4):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finish(here, "-o", "killed", "--resume")
    assert rows(here / "killed") == rows(here / "whole")


@pytest.mark.slow
def test_an_interrupt_ends_with_130_and_the_results_so_far(here: Path) -> None:
    process = start(here, "-c", "search.toml", "-o", "run")
    wait_for(here / "run/study.db", 5, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in said
    done = len(pb.Study.open(here / "run"))
    assert 5 <= done < 40
    for name in ("trials.csv", "front.csv", "front.png", "best/weights.safetensors"):
        assert (here / "run" / name).exists()
    finish(here, "-o", "run", "--resume")
    assert len(pb.Study.open(here / "run")) == 40


def test_a_folder_that_cannot_be_made_is_refused_before_any_work(here: Path) -> None:
    (here / "file").write_text("not a folder")
    process = start(here, "-c", "search.toml", "-o", "file/run")
    _, said = process.communicate()
    assert process.returncode == 1
    assert "cannot write to the run folder" in said
    assert "Traceback" not in said
