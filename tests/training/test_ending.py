"""Who ends a training, and which weights it leaves."""

import json

import pytest
import torch
from torch import nn

from paretobit.errors import BadInput
from paretobit.storage import read_tensors
from paretobit.training import TrainSettings, fit


def blobs(rows=150, seed=0):
    draws = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (rows,), generator=draws)
    return torch.randn(rows, 4, generator=draws) + 1.5 * torch.eye(3, 4)[y], y


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


WILD = {"max_epochs": 8, "batch_size": 32, "learning_rate": 0.3}


def test_the_caller_ends_a_training_after_the_epoch_it_saw():
    seen = []

    def stop(epoch):
        seen.append(epoch.number)
        return epoch.number == 3

    history = fit(net(), blobs(), blobs(seed=1), TrainSettings(**WILD), on_epoch=stop)
    assert seen == [1, 2, 3]
    assert len(history.epochs) == 3
    assert history.stopped_by_caller
    assert not history.stopped_early


def test_a_stop_leaves_the_best_epoch_so_far():
    kept, model = {}, net()

    def stop(epoch):
        kept[epoch.number] = state(model)
        return epoch.number > 1 and not epoch.is_best

    history = fit(model, blobs(), blobs(60, 1), TrainSettings(**WILD), on_epoch=stop)
    assert history.stopped_by_caller
    assert history.best_epoch == len(history.epochs) - 1
    assert same(state(model), kept[history.best_epoch])


def test_a_stop_after_the_last_epoch_stops_nothing():
    settings = TrainSettings(**{**WILD, "max_epochs": 2})
    history = fit(net(), blobs(), None, settings, on_epoch=lambda epoch: epoch.number == 2)
    assert len(history.epochs) == 2
    assert not history.stopped_by_caller


def test_a_stopped_training_goes_on_as_if_it_had_not_been_stopped(tmp_path):
    whole, resumed = net(), net()
    settings = TrainSettings(**WILD)
    expected = fit(whole, blobs(), blobs(60, 1), settings)
    fit(net(), blobs(), blobs(60, 1), settings, folder=tmp_path, on_epoch=lambda epoch: epoch.number == 3)
    history = fit(resumed, blobs(), blobs(60, 1), settings, folder=tmp_path, resume=True)
    assert [e.val_loss for e in history.epochs] == [e.val_loss for e in expected.epochs]
    assert not history.stopped_by_caller
    assert same(state(resumed), state(whole))


def test_the_last_epoch_is_kept_where_asked(tmp_path):
    kept, model = {}, net()
    settings = TrainSettings(**WILD, keep="last")

    def keep(epoch):
        kept[epoch.number] = state(model)

    history = fit(model, blobs(), blobs(60, 1), settings, folder=tmp_path, on_epoch=keep)
    assert history.best_epoch < 8, "the test needs a best epoch that is not the last"
    assert history.kept is history.epochs[-1]
    assert same(state(model), kept[8])
    assert json.loads((tmp_path / "best" / "metrics.json").read_text())["number"] == 8
    assert same(read_tensors(tmp_path / "best" / "weights.safetensors"), kept[8])
    again = net()
    fit(again, blobs(), blobs(60, 1), settings, folder=tmp_path, resume=True)
    assert same(state(again), kept[8])


def test_patience_still_ranks_epochs_where_the_last_is_kept():
    settings = TrainSettings(**{**WILD, "max_epochs": 40}, keep="last", early_stopping=2)
    history = fit(net(), blobs(), blobs(60, 1), settings)
    assert history.stopped_early
    assert history.kept.number == history.best_epoch + 2 == len(history.epochs)


def test_an_interrupted_training_that_keeps_the_last_epoch_ends_the_same(tmp_path):
    class Killed(Exception):
        pass

    def kill(epoch):
        if epoch.number == 5:
            raise Killed

    settings = TrainSettings(**WILD, keep="last")
    whole, cut, resumed = net(), net(), net()
    fit(whole, blobs(), blobs(60, 1), settings)
    with pytest.raises(Killed):
        fit(cut, blobs(), blobs(60, 1), settings, folder=tmp_path, on_epoch=kill)
    fit(resumed, blobs(), blobs(60, 1), settings, folder=tmp_path, resume=True)
    assert same(state(resumed), state(whole))


def test_a_folder_from_before_a_setting_existed_is_resumed_with_its_default(tmp_path):
    settings = TrainSettings(**{**WILD, "max_epochs": 2})
    fit(net(), blobs(), blobs(60, 1), settings, folder=tmp_path)
    page = tmp_path / "last" / "state.json"
    earlier = json.loads(page.read_text())
    del earlier["settings"]["keep"], earlier["settings"]["learned_scales"]
    page.write_text(json.dumps(earlier))
    longer = TrainSettings(**{**WILD, "max_epochs": 3})
    assert len(fit(net(), blobs(), blobs(60, 1), longer, folder=tmp_path, resume=True).epochs) == 3
    other = longer.model_copy(update={"keep": "last"})
    with pytest.raises(BadInput, match=r"another setting.*keep"):
        fit(net(), blobs(), blobs(60, 1), other, folder=tmp_path, resume=True)


def test_a_training_of_no_epochs_leaves_the_model_as_it_came_in_its_folder(tmp_path):
    model = nn.Linear(3, 2)
    x, y = torch.randn(8, 3), torch.zeros(8, dtype=torch.int64)
    fit(model, (x, y), (x, y), TrainSettings(max_epochs=0), folder=tmp_path)
    found = read_tensors(tmp_path / "best" / "weights.safetensors")
    assert torch.equal(found["weight"], model.weight)
    assert torch.equal(found["bias"], model.bias)
