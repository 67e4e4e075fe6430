"""The benchmark of sample efficiency takes any model and data, and counts as it says."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[2] / "benchmarks/sample_efficiency.py"
CASE = """
import torch
from sklearn.datasets import load_digits
import paretobit as pb

def digits(seed):
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    train = order[:1000]
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[train]), y[train]).backward()
        optimizer.step()
    layer = {"name": "scaled_integer", "data_in_width": [2, 4, 8], "weight_width": [2, 4, 8]}
    parts = {"calibration": train[:200], "val": order[1000:1400], "test": order[1400:]}
    return {
        "model": model.eval(),
        **{name: (x[rows], y[rows]) for name, rows in parts.items()},
        "space": pb.Quantize(by="type", seed={"linear": layer}),
        "low": 4.0,
        "high": 64.0,
        "guided_trials": 12,
    }
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    (folder / "mine.py").write_text(CASE)
    command = [sys.executable, str(SCRIPT), "--case", f"{folder / 'mine.py'}:digits", "--seeds", "0", "--json"]
    more = ["--no-record", "--trials", "15", "--samplers", "random", "--cache", str(folder / "cache")]
    runs = [subprocess.run([*command, *more], capture_output=True, text=True, check=False) for _ in range(2)]
    for run in runs:
        assert run.stdout.startswith("{"), run.stderr
    return [json.loads(run.stdout) for run in runs], list((folder / "cache").iterdir())


def test_every_method_is_there_with_its_trials(found):
    means = found[0][0]["means"]
    assert {name: figures["trials"] for name, figures in means.items()} == {
        "guided": 12,
        "uniform grid": 9,
        "random": 15,
        "random, uniform first": 15,
    }


def test_hypervolumes_are_shares_and_no_front_beats_the_true_one(found):
    for figures in found[0][0]["means"].values():
        for metric in ("accuracy", "loss"):
            assert 0 < figures[metric] < 1
            assert 0 < figures[f"{metric} of true front"] <= 1 + 1e-9


def test_what_guided_costs_is_told_in_evaluations(found):
    guided = found[0][0]["means"]["guided"]
    assert math.isclose(guided["equivalents"], guided["seconds"] / guided["evaluation_seconds"])


def test_a_second_run_takes_the_baselines_from_disk(found):
    (first, second), files = found
    for name in ("uniform grid", "random"):
        assert first["means"][name] == second["means"][name]
    assert len(files) == 1
    lines = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert len(lines) == len({(line["split"], json.dumps(line["config"])) for line in lines})
