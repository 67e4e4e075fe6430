"""`kill -9` of a 2-worker TPE search again and again, against the same search left alone.

    python benchmarks/kills.py [--json] [--no-record] [--kills 20] [--trials 200] [--seed 0]

The moments are drawn over the whole run: some while a resumed search starts or replays, most while
trials run. After every kill: no worker is left, no finished trial is lost or was run again. Nothing is timed:
the clock only ends what is waited for.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from output import parser_of, show
from sklearn.datasets import load_digits

import paretobit as pb

MODEL = """
import time
import torch
from torch import nn

class Slow(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.second = nn.Linear(16, classes)

    def forward(self, x):
        time.sleep(0.02)
        return self.second(torch.relu(self.first(x)))

def make(num_classes):
    return nn.Sequential(nn.Flatten(), Slow(num_classes))
"""
SEARCH = """
model = "slow.py:make"
data = "npz:digits.npz"
[train]
max_epochs = 1
batch_size = 1024
[search]
maximize = "accuracy"
minimize = "bitops"
n_trials = {trials}
strategy = "tpe"
workers = 2
[search.space.seed.linear]
data_in_width = [3, 4, 6, 8]
weight_width = [3, 4, 6, 8]
"""
COMMAND = ["search", "-q"]
LONGEST = 60.0  # seconds until a worker has noticed that its parent is gone, its start included


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = kill_again_and_again(Path(folder), asked.kills, asked.trials, asked.seed)
    show(found, asked)
    bad = found["lost"] or found["run_again"] or found["orphans"] or found["different"]
    raise SystemExit(1 if bad or found["trials"] != asked.trials else 0)


class Process(Protocol):
    """What is killed: `subprocess.Popen`, or what is used as such."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...


def start(here: Path, arguments: Sequence[str]) -> Process:
    """A command line in the folder."""
    code = "from paretobit.cli.main import main; main()"
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=here)


def kill_again_and_again(
    here: Path, kills: int, trials: int, seed: int, start: Callable[[Path, Sequence[str]], Process] = start
) -> dict[str, object]:
    """Count what is lost, run again, left behind or different.

    Args:
        here: An empty folder.
        kills: How many.
        trials: Of the search.
        seed: Of the moments.
        start: Starts the search.
    """
    (here / "slow.py").write_text(MODEL)
    (here / "search.toml").write_text(SEARCH.format(trials=trials))
    digits = load_digits()  # once: scikit-learn takes a second of each start
    np.savez(here / "digits.npz", X=digits.data.astype(np.float32) / 16, y=digits.target)
    assert start(here, [*COMMAND, "-c", "search.toml", "-o", "whole"]).wait() == 0
    draw = random.Random(seed)
    part = trials * 0.95 / kills
    moments = [int(part * (kill + draw.random())) for kill in range(kills)]
    seen: dict[int, float] = {}
    at: list[int] = []
    lost = run_again = orphans = 0
    for kill, moment in enumerate(moments):
        resume = ["--resume"] if (here / "killed/config.toml").exists() else ["-c", "search.toml"]
        process = start(here, [*COMMAND, "-o", "killed", *resume])
        # a quarter of them while it starts or replays, or its workers start
        late = time.monotonic() + (draw.uniform(0, 5) if kill % 4 == 2 else LONGEST)
        while count(here) < moment and process.poll() is None and time.monotonic() < late:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.03))
        workers = workers_of(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the search ended before it was killed"
        orphans += len(left_of(workers))
        now = {t.number: t.seconds for t in pb.Study.open(here / "killed")} if count(here) else {}
        at.append(len(now))
        lost += len(seen.keys() - now.keys())
        run_again += sum(now.get(number, seconds) != seconds for number, seconds in seen.items())
        seen = now
    resume = ["--resume"] if (here / "killed/config.toml").exists() else ["-c", "search.toml"]
    assert start(here, [*COMMAND, "-o", "killed", *resume]).wait() == 0
    whole, killed = (plain(pb.Study.open(here / name)) for name in ("whole", "killed"))
    final = {t.number: t.seconds for t in pb.Study.open(here / "killed")}
    lost += len(seen.keys() - final.keys())
    run_again += sum(final.get(number, seconds) != seconds for number, seconds in seen.items())
    different = sum(one != other for one, other in zip(whole, killed, strict=False))
    different += abs(len(whole) - len(killed))
    return {
        "kills": kills,
        "at": at,
        "trials": len(killed),
        "lost": lost,
        "run_again": run_again,
        "orphans": orphans,
        "different": different,
    }


def plain(study: pb.Study) -> list[tuple[object, ...]]:
    """Everything of the trials but times."""
    return [(t.number, t.config, t.state, t.metrics, t.error, t.seed, t.duplicate_of, t.asked_after) for t in study]


def count(here: Path) -> int:
    try:
        return len(pb.Study.open(here / "killed"))
    except pb.ParetoBitError:  # not there yet, or not whole for this moment
        return 0


def workers_of(coordinator: int) -> list[int]:
    """Its children that were started as workers."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    fields = [line.split(None, 2) for line in listed.stdout.splitlines()]
    return [int(pid) for pid, parent, args in fields if int(parent) == coordinator and "engines.worker" in args]


def left_of(workers: list[int]) -> list[int]:
    """The workers that do not go."""
    late = time.monotonic() + LONGEST
    left = workers
    while left and time.monotonic() < late:
        states = {pid: state_of(pid) for pid in left}
        left = [pid for pid, state in states.items() if state and not state.startswith("Z")]
        time.sleep(0.05)
    return left


def state_of(pid: int) -> str:
    return subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
