"""Training learns, keeps the best epoch, repeats itself exactly, and leaves the caller's world alone."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from paretobit.errors import BadInput, ParetoBitError
from paretobit.models.zoo import MODELS
from paretobit.training import TrainSettings, evaluate, fit


def blobs(rows=300, classes=3, seed=0):
    """Classes as clouds around far corners."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (rows,), generator=draws)
    return torch.randn(rows, 4, generator=draws) + 3 * torch.eye(classes, 4)[y], y


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


SHORT = {"max_epochs": 4, "batch_size": 32, "learning_rate": 0.01}


def test_it_learns_and_reports_every_epoch():
    model, seen = net(), []
    history = fit(model, blobs(), blobs(seed=1), TrainSettings(**SHORT), on_epoch=seen.append)
    assert seen == history.epochs
    assert [epoch.number for epoch in seen] == [1, 2, 3, 4]
    assert history.best_value > 0.9
    assert not model.training
    assert not history.stopped_early
    assert history.seconds == sum(epoch.seconds for epoch in seen) > 0


def test_the_model_is_left_with_the_first_of_the_best_epochs():
    kept, model = {}, net()
    val = blobs(60, seed=1)
    settings = TrainSettings(**{**SHORT, "max_epochs": 12, "learning_rate": 0.3})
    history = fit(model, blobs(), val, settings, on_epoch=lambda epoch: kept.update({epoch.number: weights(model)}))
    best = max(epoch.val_accuracy for epoch in history.epochs)
    first = next(epoch for epoch in history.epochs if epoch.val_accuracy == best)
    assert history.best == first
    assert history.best_epoch == first.number < 12
    assert same(weights(model), kept[first.number])
    assert evaluate(model, *val, 7).accuracy == best == history.best_value


def test_loss_can_choose_the_best_epoch():
    history = fit(net(), blobs(), blobs(60, seed=1), TrainSettings(**SHORT, monitor="loss"))
    assert history.best_value == min(epoch.val_loss for epoch in history.epochs)


def test_without_validation_rows_the_last_epoch_is_kept():
    model, kept = net(), {}
    history = fit(model, blobs(), None, TrainSettings(**SHORT), on_epoch=lambda e: kept.update(weights(model)))
    assert history.best_epoch == 4
    assert history.best.val_accuracy is None
    assert same(weights(model), kept)


def test_the_seed_decides_everything():
    def trained(seed, torch_seed):
        model = net()
        torch.manual_seed(torch_seed)
        fit(model, blobs(), blobs(seed=1), TrainSettings(**SHORT, seed=seed))
        return weights(model)

    assert same(trained(1, 5), trained(1, 6))
    assert not same(trained(1, 5), trained(2, 5))


def test_the_callers_random_state_is_not_touched():
    def states():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    model, before = net(), states()
    fit(model, blobs(), blobs(seed=1), TrainSettings(**SHORT))
    assert states() == before


def test_data_are_not_touched():
    train, val = blobs(), blobs(seed=1)
    fit(net(), train, val, TrainSettings(**SHORT), augment=lambda x, draws: x + torch.rand(x.shape, generator=draws))
    assert torch.equal(train[0], blobs()[0])
    assert torch.equal(val[0], blobs(seed=1)[0])


@pytest.mark.parametrize("loss", [None, nn.MultiMarginLoss()])
def test_data_survive_a_model_that_works_in_place(loss):
    train, val = blobs(), blobs(seed=1)
    fit(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)), train, val, TrainSettings(**SHORT), loss=loss)
    assert torch.equal(train[0], blobs()[0])
    assert torch.equal(val[0], blobs(seed=1)[0])


def test_no_epoch_changes_nothing():
    model = net()
    before = weights(model)
    history = fit(model, blobs(), None, TrainSettings(max_epochs=0))
    assert (history.best, history.best_epoch, history.best_value, history.epochs) == (None, 0, None, [])
    assert same(weights(model), before)


@pytest.mark.parametrize(("rows", "batch_size"), [(33, 32), (5, 4), (2, 256)])
def test_a_last_row_alone_does_not_break_batch_norm(rows, batch_size):
    fit(net(), blobs(rows), None, TrainSettings(max_epochs=2, batch_size=batch_size))


def test_every_row_is_met_once_an_epoch():
    seen = []

    def spy(x, draws):
        seen.append(x)
        return x

    train = blobs(33)
    fit(net(), train, None, TrainSettings(max_epochs=1, batch_size=8), augment=spy)
    assert sorted(torch.cat(seen).tolist()) == sorted(train[0].tolist())
    assert not torch.equal(torch.cat(seen), train[0])


def test_patience_ends_a_training_that_gets_no_better():
    settings = TrainSettings(max_epochs=50, batch_size=64, learning_rate=0.05, early_stopping=3)
    history = fit(net(), blobs(), blobs(60, seed=1), settings)
    assert history.stopped_early
    assert len(history.epochs) == history.best_epoch + 3 < 50


def test_a_loss_of_ones_own_trains_a_regression():
    x = torch.randn(200, 4)
    y = x.sum(1, keepdim=True)
    model = nn.Linear(4, 1)
    settings = TrainSettings(max_epochs=20, batch_size=20, learning_rate=0.05)
    history = fit(model, (x, y), (x, y), settings, loss=nn.functional.mse_loss)
    assert history.monitor == "loss"
    assert history.best_value == min(epoch.val_loss for epoch in history.epochs) < 0.01
    assert history.best.val_accuracy is history.best.train_accuracy is None


def test_a_loss_of_ones_own_keeps_the_accuracy_of_classes():
    history = fit(net(), blobs(), blobs(seed=1), TrainSettings(**SHORT), loss=nn.MultiMarginLoss())
    assert history.monitor == "accuracy"
    assert history.best_value > 0.9


@pytest.mark.parametrize("name", ["onecycle", "cosine", "step", "plateau", "polynomial", "cyclic", "exponential"])
def test_schedules_move_the_learning_rate(name):
    settings = TrainSettings(max_epochs=6, batch_size=100, scheduler=name)
    if name == "plateau":
        settings = TrainSettings(
            max_epochs=6, batch_size=100, scheduler=name, scheduler_settings={"patience": 0}, learning_rate=1e-6
        )
    history = fit(net(), blobs(), blobs(60, seed=1), settings)
    assert len({epoch.learning_rate for epoch in history.epochs}) > 1


def test_one_cycle_ends_with_the_training():
    history = fit(net(), blobs(), None, TrainSettings(max_epochs=10, batch_size=64, scheduler="onecycle"))
    rates = [epoch.learning_rate for epoch in history.epochs]
    assert rates[0] == pytest.approx(1e-3 / 25)
    assert max(rates) == pytest.approx(1e-3, rel=0.01)
    assert rates[-1] < 1e-4


def test_gradients_are_clipped():
    def moved(clip):
        model = net()
        before = weights(model)
        settings = TrainSettings(max_epochs=1, batch_size=300, optimizer="sgd", learning_rate=1, gradient_clip=clip)
        fit(model, blobs(), None, settings)
        parameters = [name for name, _ in model.named_parameters()]
        return sum(float((model.state_dict()[name] - before[name]).square().sum()) for name in parameters) ** 0.5

    assert moved(0.01) == pytest.approx(0.01, rel=1e-3)
    assert moved(None) > 0.1


def test_frozen_parameters_stay():
    model = net()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    fit(model, blobs(), None, TrainSettings(**SHORT))
    assert torch.equal(model[0].weight, before)


def test_a_loss_that_explodes_is_named_and_the_best_kept():
    train, kept, model = blobs(), {}, net()

    def poison(x, draws):
        return x * float("nan") if len(kept) == 2 else x

    def keep(epoch):
        kept[epoch.number] = weights(model)

    with pytest.raises(ParetoBitError, match=r"loss is nan in epoch 3, batch 1, at a learning rate of 0\.01") as error:
        fit(model, train, blobs(seed=1), TrainSettings(**SHORT), augment=poison, on_epoch=keep)
    assert not isinstance(error.value, BadInput)
    assert any(same(weights(model), state) for state in kept.values())
    assert not model.training


def test_an_explosion_in_the_first_epoch_leaves_the_initial_weights():
    model = net()
    before = weights(model)
    with pytest.raises(ParetoBitError, match="epoch 1, batch"):
        fit(model, (blobs()[0] * float("inf"), blobs()[1]), None, TrainSettings(**SHORT))
    assert same(weights(model), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))}, "0 and 0 rows"),
        ({"train": (torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64))}, "3 and 2 rows"),
        ({"train": (torch.zeros(3, 4), torch.zeros(3)), "val": None}, "need a loss"),
        ({"train": (torch.zeros(3, 4), torch.tensor([0, 1, 3]))}, r"found 3; allowed: 0 to 2"),
        ({"train": (torch.zeros(3, 4), torch.tensor([0, 1, -1]))}, r"found -1"),
        ({"val": (torch.zeros(3, 4), torch.zeros(3))}, "unlike the training targets"),
        ({"val": (torch.zeros(3, 4), torch.tensor([0, 1, 3]))}, "not a class"),
        ({"settings": TrainSettings(early_stopping=2), "val": None}, "early stopping needs"),
        ({"settings": TrainSettings(batch_size=1)}, "BatchNorm"),
        ({"settings": TrainSettings(optimizer="muon")}, "refuses"),
        ({"settings": TrainSettings(label_smoothing=0.1), "loss": nn.MultiMarginLoss()}, "label_smoothing"),
        ({"resume": True}, "needs the folder"),
        ({"model": nn.Flatten()}, "no parameter"),
        ({"model": nn.Unflatten(1, (2, 2))}, "need logits"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(change, message):
    given = {"model": net(), "train": blobs(), "val": blobs(60, seed=1), "settings": TrainSettings(), **change}
    before = weights(given["model"])
    with pytest.raises(BadInput, match=message):
        fit(**given)
    assert same(weights(given["model"]), before)


def test_accuracy_cannot_be_monitored_without_classes():
    split = torch.randn(9, 4), torch.randn(9, 3)
    with pytest.raises(BadInput, match="no accuracy without classes"):
        fit(net(), split, split, TrainSettings(monitor="accuracy"), loss=nn.functional.mse_loss)


def test_the_small_cnn_reads_digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, val = order[:1400], order[1400:]
    torch.manual_seed(0)
    model = MODELS["digits-cnn"].build((1, 8, 8), 10)
    settings = TrainSettings(max_epochs=5, batch_size=32, learning_rate=1e-2, scheduler="onecycle")
    history = fit(model, (x[train], y[train]), (x[val], y[val]), settings)
    assert history.best_value >= 0.97


@pytest.mark.slow
@pytest.mark.skipif("PARETOBIT_TEST_DATA" not in os.environ, reason="PARETOBIT_TEST_DATA is not set")
def test_the_reference_tagger_reads_pen_digits():
    from sklearn.model_selection import train_test_split

    data = np.load(Path(os.environ["PARETOBIT_TEST_DATA"]) / "pendigits.npz")
    x, x_rest, y, y_rest = train_test_split(data["X"], data["y"], test_size=0.3, stratify=data["y"], random_state=0)
    x_val, x_test, y_val, y_test = train_test_split(x_rest, y_rest, test_size=0.5, stratify=y_rest, random_state=0)
    mean, deviation = x.mean(0), x.std(0)

    def split(x, y):
        return torch.from_numpy((x - mean) / deviation).float(), torch.from_numpy(y)

    torch.manual_seed(0)
    model = MODELS["jsc-hls4ml"].build((16,), 10)
    settings = TrainSettings(max_epochs=40, batch_size=128, learning_rate=1e-2, scheduler="onecycle")
    history = fit(model, split(x, y), split(x_val, y_val), settings)
    assert evaluate(model, *split(x_test, y_test), 1024).accuracy >= 0.98
    assert history.seconds < 120
