"""A trial that fails costs itself: it is explained, the others are right, and the search goes on."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import zlib
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import paretobit as pb
from paretobit.cli.main import app
from paretobit.errors import ParetoBitError
from paretobit.passes.layers.assignment import assignment_of

LIMIT = 2**28
WAYS = ("hangs", "raises", "is NaN", "needs memory", "exits")
REASONS = {
    "hangs": "trial_timeout = 2 s",
    "raises": "ZeroDivisionError: float division by zero",
    "is NaN": "the metric 'right' is not a number",
    "needs memory": "MemoryError",
    "exits": "SystemExit: 3",
}


def show(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["show", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def widths_of(model):
    """Width of every layer's weight; nothing for the model in full precision."""
    formats = [slots["weight"] for slots in assignment_of(model).values()]
    return [f.width for f in formats if hasattr(f, "width")]


def fate(model):
    """How a configuration fails, drawn from its formats; a third of them do, the baseline does not."""
    widths = widths_of(model)
    if not widths:
        return None
    draw = zlib.crc32(str(widths).encode()) % 60
    return "hangs" if draw == 0 else WAYS[1 + draw % 4] if draw < 20 else None


def fail(way):
    if way == "hangs":
        time.sleep(600)
    if way == "raises":
        return 1.0 / 0.0
    if way == "needs memory":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT, before[1]))
        try:
            return float(len(bytearray(16 * LIMIT)))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
    if way == "exits":
        sys.exit(3)
    return float("nan")


@pytest.mark.slow
def test_of_200_trials_a_third_fails_in_five_ways_and_the_rest_is_right_and_all_is_explained(net, val, space, tmp_path):
    x, y = val

    def measure(model):
        with torch.no_grad():
            return {"right": (model(x).argmax(1) == y).double().mean().item()}

    def measure_or_fail(model):
        way = fate(model)
        return measure(model) if way is None else {"right": fail(way)}

    table = {"space": space, "example": x[:1], "maximize": "right", "strategy": "brute_force", "n_trials": 200}
    whole = pb.search(net, evaluate=measure, **table)
    run = tmp_path / "run"
    study = pb.search(net, evaluate=measure_or_fail, workers=2, trial_timeout=2.0, out=run, **table)
    fates = [fate(whole[i].model()) for i in range(200)]
    failed = [i for i in range(200) if fates[i]]
    assert {fates[i] for i in failed} == set(WAYS)
    assert 50 <= len(failed) <= 80
    assert [t.config for t in study] == [t.config for t in whole]
    for trial, good, way in zip(study, whole, fates, strict=True):
        if way is None:
            assert (trial.state, trial.metrics, trial.error) == ("complete", good.metrics, None)
        else:
            assert (trial.state, dict(trial.metrics)) == ("failed", {})
            assert REASONS[way] in trial.error
    told = show(run, "--failures")
    assert f"{len(failed)} of 200 trials failed" in told
    parts = told.split("\ntrial ")
    for part, number in zip(parts, failed, strict=True):
        assert part.removeprefix("trial ").startswith(f"{number}: ")
        assert REASONS[fates[number]] in part


@pytest.mark.slow
def test_a_worker_killed_once_is_forgotten_and_one_killed_again_and_again_is_a_failed_trial(net, val, tmp_path):
    x, _ = val
    once = tmp_path / "once"

    def measure(model):
        width = widths_of(model)[:1]
        if width == [6] or (width == [4] and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        with torch.no_grad():
            return {"sum": model(x).sum().item()}

    space = pb.Quantize(seed={"linear": {"weight_width": [3, 4, 6, 8]}}, share="type")
    study = pb.search(net, space=space, evaluate=measure, example=x[:1], maximize="sum", workers=2)
    once.touch()
    alive = pb.Quantize(seed={"linear": {"weight_width": [3, 4, 8]}}, share="type")
    reference = pb.search(net, space=alive, evaluate=measure, example=x[:1], maximize="sum")
    assert [t.state for t in study] == ["complete", "complete", "failed", "complete"]
    assert [t.metrics for t in study if t.state == "complete"] == [t.metrics for t in reference]
    assert "died in 2 attempts at this trial (signal 9)" in study[2].error


def test_more_failures_than_allowed_end_the_search_and_it_goes_on_when_more_are_allowed(net, val, tmp_path):
    x, _ = val

    def measure(model):
        widths = widths_of(model)
        if widths and widths[-1] == 3:
            raise RuntimeError(f"too narrow: {widths}")
        return {"width": sum(widths)}

    space = pb.Quantize(seed={"linear": {"weight_width": [2, 3, 4]}})
    table = {"space": space, "evaluate": measure, "example": x[:1], "minimize": "width", "out": tmp_path / "run"}
    with pytest.raises(
        ParetoBitError, match=r"3 trials failed, max_failures is 2; the last: .*too narrow: \[2, 4, 3\]"
    ):
        pb.search(net, max_failures=2, **table)
    assert (tmp_path / "run/trials.csv").read_text().count("\n") == 1 + 8
    assert (tmp_path / "run/front.csv").exists()
    assert show(tmp_path / "run", "--failures").count("RuntimeError: too narrow") == 3
    study = pb.search(net, resume=True, **table)
    assert study.counts()["failed"] == 9
    whole = pb.search(net, **{**table, "out": None})
    assert [(t.config, t.state, t.metrics) for t in study] == [(t.config, t.state, t.metrics) for t in whole]


NARROW = """
from torch import nn
from paretobit.passes.layers.assignment import assignment_of

class Broken(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Linear(64, classes)

    def forward(self, x):
        if any(getattr(slots["weight"], "width", None) == 3 for slots in assignment_of(self).values()):
            raise RuntimeError("too [bold]narrow")
        return self.layer(x.flatten(1))

def make(num_classes):
    return Broken(num_classes)
"""


def test_the_command_line_ends_with_1_after_too_many_failures_and_shows_each(here):
    (here / "slow.py").write_text(NARROW)
    here.change("n_trials = 40", "n_trials = 16\nmax_failures = 0")
    here.change('"tpe"', '"brute_force"')
    code, said = here.run("-c", "search.toml", "-o", "run")
    assert code == 1, said
    assert "1 trials failed, max_failures is 0; the last: RuntimeError: too [bold]narrow" in said
    assert (here / "run/trials.csv").exists()
    assert "RuntimeError: too [bold]narrow" in show(here / "run", "--failures")
    here.finish("-o", "run", "--resume", "--set", "search.max_failures=16")
    states = [state for _, _, state, *_ in here.rows("run")]
    assert (states.count("failed"), states.count("complete")) == (4, 12)
