"""Forgiving objectives, the knee and functions of files, from the file of a search to the command line."""

import json
import math

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import paretobit as pb
from paretobit.cli.main import app
from paretobit.errors import BadInput
from paretobit.studies.answers import knee_of
from paretobit.studies.study import Study

SEARCH = """
seed = 3
model = "jsc-tiny"
data = "digits"
[train]
max_epochs = 1
[search]
minimize = ["bitops"]
best = "knee"
n_trials = 12
strategy = "random"
[search.forgiving]
metric = "accuracy"
cost = "bitops"
delta = 0.05
[search.space.seed.linear]
data_in_width = [4, 8]
weight_width = [2, 4, 8]
"""
MEASURES = """
import torch

def share(model, splits, *, split="val"):
    x, y = splits[split]
    with torch.no_grad():
        return {"share": (model(x).argmax(1) == y).double().mean().item()}

def broken(model):
    raise ValueError("boom")
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "measures.py").write_text(MEASURES)

    def command(*arguments, ok=True):
        result = CliRunner().invoke(app, list(arguments))
        assert (result.exit_code == 0) is ok, result.output
        return result.output if ok else " ".join(result.output.split())

    def write(text):
        (tmp_path / "s.toml").write_text(text)

    command.write, command.path = write, tmp_path
    return command


def test_a_forgiving_objective_is_searched_stored_resumed_and_shown(place):
    place.write(SEARCH)
    place("search", "-c", "s.toml", "-o", "run", "--quiet")
    with Study.open("run") as study:
        first, second = study.objectives
        reference = study.baseline["total_bitops"]
        assert first.label == "accuracy forgiving 5% per halved total_bitops"
        assert first.forgiving.reference == reference
        for trial in study:
            saved = math.log2(reference / trial.metrics["total_bitops"])
            assert first.value(trial.metrics) == pytest.approx(trial.metrics["accuracy"] * (1 + 0.05 * saved))
        front = study.front()
        knee = front[knee_of([t.metrics for t in front], [first, second])]
        assert study.knee() == study.best("knee") == knee
        winner = json.loads((place.path / "run/best/model.json").read_text())
        assert winner["trial"] == knee.number
        asked = "max accuracy forgiving 5% per halved bitops"
        assert study.best(asked).number == study.best().number
        assert json.loads(place("show", "run", "--best", "knee", "--json"))["number"] == knee.number
        assert json.loads(place("show", "run", "--best", asked, "--json"))["number"] == study.best().number
    before = len(front)
    place("search", "-c", "s.toml", "-o", "run", "--quiet", "--resume", "--trials", "16")
    with Study.open("run") as study:
        assert len(study) == 16
        assert len(study.front()) >= min(before, 1)


def test_a_knee_of_one_objective_is_refused(place):
    place.write(SEARCH.replace('minimize = ["bitops"]', ""))
    assert "two objectives or more" in place("search", "-c", "s.toml", "-o", "run", ok=False)
    assert not (place.path / "run").exists()


@pytest.mark.parametrize("as_runner", [False, True])
def test_a_function_of_a_file_measures_a_search_from_a_file(place, as_runner):
    text = SEARCH.partition("[search.forgiving]")[0].replace('best = "knee"', "")
    text = text.replace("[search]", '[search]\nmaximize = "share"')
    if as_runner:
        space = '[search.runners.basic_computation]\n[search.runners."measures.py:share"]\nsplit = "train"\n'
    else:
        text, space = text.replace("[search]", '[search]\nevaluate = "measures.py:share"'), ""
    place.write(text + space + SEARCH[SEARCH.index("[search.space") :])
    place("search", "-c", "s.toml", "-o", "run", "--quiet")
    with Study.open("run") as study:
        assert study.counts()["complete"] + study.counts()["duplicate"] == 12
        assert [o.label for o in study.objectives] == ["share", "total_bitops"]
        assert all(0 <= trial.metrics["share"] <= 1 for trial in study)


def test_a_function_that_cannot_work_is_refused_before_the_model_is_trained(place):
    place.write(SEARCH.replace("[search]", '[search]\nevaluate = "measures.py:broken"'))
    assert "ValueError: boom" in place("search", "-c", "s.toml", "-o", "run", ok=False)
    assert not (place.path / "run").exists()


def test_a_forgiving_search_from_python_is_resumed(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    rows = torch.randn(60, 4), torch.randint(0, 3, (60,))
    arguments = {
        "space": pb.Quantize(seed={"linear": {"weight_width": [2, 4, 8], "data_in_width": [4, 8]}}),
        "val": rows,
        "minimize": "model_size",
        "forgiving": {"metric": "accuracy", "cost": "bitops", "delta": 0.08, "reference": 1e6},
        "strategy": "tpe",
        "out": tmp_path / "run",
    }
    first = pb.search(model, **arguments, n_trials=6)
    again = pb.search(model, **arguments, n_trials=9, resume=True)
    assert [t.config for t in again][:6] == [t.config for t in first]
    assert again.objectives[0].forgiving.reference == 1e6
    assert again.knee() in again.front()
    with pytest.raises(BadInput, match=r"unknown key \(forgiving\.costs\).*did you mean 'cost'"):
        pb.search(model, **{**arguments, "forgiving": {"metric": "accuracy", "costs": "bitops"}})
