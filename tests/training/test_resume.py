"""A training that is killed goes on as if nothing had happened, from files that run no code."""

import csv
import json

import pytest
import torch
from torch import nn

from paretobit import storage
from paretobit.errors import BadInput
from paretobit.storage import read_tensors
from paretobit.training import TrainSettings, fit
from paretobit.training.optimizers import OPTIMIZERS, REFUSED_OPTIMIZERS

SETTINGS = {"max_epochs": 6, "batch_size": 20, "learning_rate": 0.01}
USABLE = [name for name in OPTIMIZERS if name not in REFUSED_OPTIMIZERS]


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def rows(seed=0, count=95):
    draws = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (count,), generator=draws)
    return torch.randn(count, 4, generator=draws) + torch.eye(3, 4)[y], y


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


def matrices_only(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3, bias=False))


def jitter(x, draws):
    return x + 0.1 * torch.randn(x.shape, generator=draws)


def stop_after(number):
    def on_epoch(epoch):
        if epoch.number == number:
            raise Killed

    return on_epoch


def train(folder, settings, *, make=net, **keywords):
    model = make()
    history = fit(model, rows(), rows(1), settings, folder=folder, augment=jitter, **keywords)
    return model.state_dict(), history


def assert_same_run(left, right):
    assert all(torch.equal(left[0][name], right[0][name]) for name in left[0])
    times_aside = [[{**vars(epoch), "seconds": 0} for epoch in run[1].epochs] for run in (left, right)]
    assert times_aside[0] == times_aside[1]
    assert left[1].stopped_early == right[1].stopped_early


def interrupted_and_resumed(folder, settings, number, **keywords):
    with pytest.raises(Killed):
        train(folder, settings, on_epoch=stop_after(number), **keywords)
    torch.manual_seed(99)
    return train(folder, settings, resume=True, **keywords)


@pytest.mark.parametrize("optimizer", USABLE)
def test_every_optimiser_resumes_bit_for_bit(tmp_path, optimizer):
    settings = TrainSettings(**SETTINGS, optimizer=optimizer, scheduler="cosine")
    make = matrices_only if optimizer == "muon" else net
    whole = train(None, settings, make=make)
    assert_same_run(whole, interrupted_and_resumed(tmp_path, settings, 3, make=make))


@pytest.mark.parametrize(
    ("scheduler", "given"),
    [
        ("onecycle", {}),
        ("cyclic", {}),
        ("plateau", {"patience": 0}),
        ("multistep", {"milestones": [2, 4]}),
        ("warmrestarts", {}),
        ("polynomial", {}),
        ("exponential", {}),
        ("linear", {}),
        (None, {}),
    ],
)
def test_every_schedule_resumes_bit_for_bit(tmp_path, scheduler, given):
    momentum = {"momentum": 0.9, "nesterov": True}
    settings = TrainSettings(
        **SETTINGS, optimizer="sgd", optimizer_settings=momentum, scheduler=scheduler, scheduler_settings=given
    )
    whole = train(None, settings)
    assert_same_run(whole, interrupted_and_resumed(tmp_path, settings, 3))


def test_a_kill_at_any_write_costs_at_most_an_epoch(tmp_path, monkeypatch):
    settings = TrainSettings(**{**SETTINGS, "max_epochs": 4}, scheduler="onecycle")
    whole, writes, real = train(tmp_path / "whole", settings), 0, storage.os.replace

    def counting(source, target):
        nonlocal writes
        writes += 1
        if writes == limit:
            raise Killed
        real(source, target)

    limit = -1
    monkeypatch.setattr(storage.os, "replace", counting)
    train(tmp_path / "counted", settings)
    total, monitored = writes, whole[1].best_epoch
    assert total >= 4 * 4
    for limit in range(1, total + 1):
        folder, writes = tmp_path / str(limit), 0
        with pytest.raises(Killed):
            train(folder, settings)
        resumed = train(folder, settings, resume=True)
        assert_same_run(whole, resumed)
        best = read_tensors(folder / "best" / "weights.safetensors")
        assert all(torch.equal(best[name], whole[0][name]) for name in whole[0])
        assert json.loads((folder / "best" / "metrics.json").read_text())["number"] == monitored
        assert len(list((folder / "last").iterdir())) == 3


def test_what_a_kill_left_half_written_goes_away(tmp_path):
    settings = TrainSettings(**SETTINGS)
    with pytest.raises(Killed):
        train(tmp_path, settings, on_epoch=stop_after(2))
    halves = [".learning_curves.csv.ab.tmp", "best/.weights.safetensors.ab.tmp", "last/weights-000009.safetensors"]
    for name in halves:
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    train(tmp_path, settings, resume=True)
    assert not any((tmp_path / name).exists() for name in halves)
    assert (tmp_path / "notes.txt").exists()


def test_the_folder_tells_the_whole_story(tmp_path):
    state, history = train(tmp_path, TrainSettings(**SETTINGS))
    with (tmp_path / "learning_curves.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [int(line["number"]) for line in table] == [1, 2, 3, 4, 5, 6]
    assert [float(line["val_accuracy"]) for line in table] == [epoch.val_accuracy for epoch in history.epochs]
    metrics = json.loads((tmp_path / "best" / "metrics.json").read_text())
    assert metrics == vars(history.best)
    best = read_tensors(tmp_path / "best" / "weights.safetensors")
    assert all(torch.equal(best[name], state[name]) for name in state)
    assert {path.suffix for path in (tmp_path / "last").iterdir()} == {".json", ".safetensors"}


def test_the_curves_are_there_after_every_epoch(tmp_path):
    def check(epoch):
        assert len((tmp_path / "learning_curves.csv").read_text().splitlines()) == epoch.number + 1

    train(tmp_path, TrainSettings(**SETTINGS), on_epoch=check)


def test_a_finished_training_is_only_loaded(tmp_path):
    settings = TrainSettings(**SETTINGS)
    whole = train(tmp_path, settings)
    assert_same_run(whole, train(tmp_path, settings, resume=True, on_epoch=stop_after(1)))


def test_patience_counts_across_an_interruption(tmp_path):
    settings = TrainSettings(**{**SETTINGS, "max_epochs": 40, "learning_rate": 0.05}, early_stopping=3)
    whole = train(None, settings)
    assert whole[1].stopped_early
    assert_same_run(whole, interrupted_and_resumed(tmp_path, settings, len(whole[1].epochs) - 1))
    assert_same_run(whole, train(tmp_path, settings, resume=True, on_epoch=stop_after(1)))


def test_more_epochs_may_be_added(tmp_path):
    train(tmp_path, TrainSettings(**SETTINGS))
    longer = TrainSettings(**{**SETTINGS, "max_epochs": 9})
    assert_same_run(train(None, longer), train(tmp_path, longer, resume=True))


def test_resuming_nothing_starts_from_scratch(tmp_path):
    settings = TrainSettings(**SETTINGS)
    assert_same_run(train(None, settings), train(tmp_path / "new", settings, resume=True))


def test_a_new_training_replaces_what_the_folder_held(tmp_path):
    train(tmp_path, TrainSettings(**SETTINGS))
    settings = TrainSettings(**SETTINGS, seed=3)
    assert_same_run(train(None, settings), interrupted_and_resumed(tmp_path, settings, 1))


@pytest.mark.parametrize("change", [{"seed": 4}, {"batch_size": 21}, {"optimizer": "sgd"}, {"scheduler": "cosine"}])
def test_other_settings_are_refused_by_name(tmp_path, change):
    train(tmp_path, TrainSettings(**SETTINGS))
    (key,) = change
    with pytest.raises(BadInput, match=rf"another setting \(.*state\.json, {key}\)"):
        train(tmp_path, TrainSettings(**{**SETTINGS, **change}), resume=True)


def test_another_model_and_a_damaged_state_are_refused(tmp_path):
    settings = TrainSettings(**SETTINGS)
    train(tmp_path, settings)
    with pytest.raises(BadInput, match="another model"):
        train(tmp_path, settings, make=matrices_only, resume=True)
    (tmp_path / "last" / "state.json").write_text('{"files": 3')
    with pytest.raises(BadInput, match=r"not the state of a training.*state\.json"):
        train(tmp_path, settings, resume=True)
