"""Searches whose trials train, from a file: killed and resumed, taken up by another search, refused."""

import json
import signal

import pytest
import torch
from command_line import ok

import paretobit as pb
from paretobit.data import DataSettings, load
from paretobit.models.saved import read_manifest

TRAINING = """
model = "slow.py:make"
data = "digits"
[search]
maximize = "accuracy"
minimize = "bitops"
n_trials = 8
strategy = "random"
[search.pipeline]
steps = ["train", "quantize", "finetune", "evaluate"]
[search.pipeline.train]
max_epochs = 2
batch_size = 256
learning_rate = 1e-2
[search.pipeline.finetune]
max_epochs = 1
batch_size = 256
[search.space.seed.linear]
data_in_width = [3, 4, 6, 8]
weight_width = [3, 4, 6, 8]
"""


@pytest.fixture
def training(here):
    here.write(TRAINING)
    return here


def accuracy(model, split):
    data = load(DataSettings()).split(split)
    with torch.no_grad():
        return (model(data.x).argmax(1) == data.y).double().mean().item()


def test_trials_that_train_need_no_training_before_them(training):
    training.finish("-c", "search.toml", "-o", "run")
    study = pb.Study.open(training / "run")
    assert not (training / "run/float").exists()
    assert study.counts()["complete"] == 8
    assert study.baseline["epochs"] == 3


def test_the_winner_and_every_point_of_the_front_load_with_the_weights_that_were_measured(training, monkeypatch):
    monkeypatch.chdir(training.path)
    training.finish("-c", "search.toml", "-o", "run")
    study = pb.Study.open(training / "run")
    for trial in study.front():
        assert accuracy(pb.load(training / f"run/trials/{trial.number}"), "val") == trial.metrics["accuracy"]
        judged = study.facts["test"][str(trial.number)]["accuracy"]
        assert accuracy(pb.load(training / f"run/trials/{trial.number}"), "test") == judged
    assert accuracy(pb.load(training / "run"), "val") == study.best().metrics["accuracy"]


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_training_loses_at_most_the_trials_in_flight(training):
    training.change("n_trials = 8", "n_trials = 8\nworkers = 2")
    training.finish("-c", "search.toml", "-o", "whole")
    process = training.start("-c", "search.toml", "-o", "killed")
    training.wait_for("killed", 3, process)
    started = training.workers_of(process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert training.await_the_end_of(started) == []
    before = training.seconds("killed")
    assert len(before) >= 3
    training.finish("-o", "killed", "--resume")
    assert training.rows("killed") == training.rows("whole")
    after = training.seconds("killed")
    assert all(after[number] == seconds for number, seconds in before.items()), "a trial was trained again"
    kept = {path.name for path in (training / "killed/trials").iterdir()}
    front = pb.Study.open(training / "killed").front()
    assert {str(trial.number) for trial in front} | {"baseline"} == kept


def test_the_doctor_finds_nothing_wrong_with_trials_that_train(training, monkeypatch):
    monkeypatch.chdir(training.path)
    checks = json.loads(ok("doctor", "search.toml", "--json"))["checks"]
    passed = {check["name"] for check in checks if check["state"] == "ok"}
    assert {"trials do not leak", "a fresh copy agrees", "a worker process agrees", "seeds reproduce"} <= passed
    assert not [check for check in checks if check["state"] == "failed"]


def test_another_search_goes_on_from_the_winner(training, monkeypatch):
    monkeypatch.chdir(training.path)
    training.finish("-c", "search.toml", "-o", "first")
    winner = pb.Study.open("first").best()
    (training / "next.toml").write_text("""
data = "digits"
[model]
from_run = "first:best"
[search]
maximize = "accuracy"
minimize = "bitops"
[search.space.seed.linear]
weight_width = [2, 8]
""")
    training.finish("-c", "next.toml", "-o", "second")
    study = pb.Study.open("second")
    trained = pb.load("first", formats=False)
    assert study.baseline["accuracy"] == accuracy(trained, "val")
    assert not (training / "second/float").exists(), "a model with weights is not trained again"
    assert accuracy(pb.load("second"), "val") == study.best().metrics["accuracy"]
    code, said = training.run("-c", "next.toml", "-o", "third", "--set", "model.from_run='first:99'")
    assert code == 2
    assert "keeps no such model" in said
    assert str(winner.number) in said


def test_the_reports_runner_trains_and_then_measures(here):
    here.write("""
model = "slow.py:make"
data = "digits"
[search]
maximize = "accuracy"
[search.runners.basic_train]
max_epochs = 1
batch_size = 256
[search.space]
name = "training"
[search.space.seed]
learning_rate = [1e-5, 1e-2]
""")
    here.finish("-c", "search.toml", "-o", "run")
    slow, fast = pb.Study.open(here / "run")
    assert slow.metrics["epochs"] == fast.metrics["epochs"] == 1
    assert fast.metrics["accuracy"] > slow.metrics["accuracy"] + 0.1
    assert read_manifest(here / "run")["config"] == {"train.learning_rate": 1e-2}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"train", "quantize"', '"trian", "quantize"', "did you mean 'train'"),
        ("max_epochs = 2", "max_epochs = -2", "search.pipeline.train.max_epochs"),
        ("max_epochs = 2", "epochs = 2", "did you mean 'max_epochs'"),
        ("max_epochs = 2", 'max_epochs = 2\noptimizer = "adamm"', "did you mean"),
        ('n_trials = 8', 'n_trials = 8\nrunners = {basic_train = {}, basic_computation = {}}', "given twice"),
        ("[search.pipeline]", "[search.pipeline]\nstop = {reduction = 1}", "reduction"),
        ("[search.pipeline]", '[search.pipeline]\nweights = "scrach"', "scrach"),
        ('["train", "quantize", "finetune", "evaluate"]', '["quantize", "evaluate"]', "not there"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_its_key_and_nothing_is_written(training, old, new, said):
    training.change(old, new)
    code, message = training.run("-c", "search.toml", "-o", "run")
    assert code == 2, message
    assert said in message
    assert not (training / "run").exists()


def test_a_space_over_training_without_such_a_step_is_refused(here):
    here.write("""
model = "slow.py:make"
data = "digits"
[search]
maximize = "accuracy"
[search.pipeline]
steps = ["train", "evaluate"]
[search.space]
name = "training"
[search.space.seed.finetune]
learning_rate = [1e-3, 1e-2]
""")
    code, said = here.run("-c", "search.toml", "-o", "run")
    assert code == 2
    assert "finetune" in said
