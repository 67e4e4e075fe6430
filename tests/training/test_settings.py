"""Bad training settings are refused when they are made."""

import pytest
from pydantic import ValidationError

from paretobit.document import Document, validate
from paretobit.errors import BadInput
from paretobit.training import TrainSettings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimizer": "adm"}, r"unknown optimiser \(optimizer\).*did you mean 'adam'"),
        ({"optimizer": "LBFGS"}, "closure"),
        ({"optimizer": "sparseadam"}, "sparse gradients"),
        ({"optimizer_settings": {"wd": 1}}, r"optimizer_settings\.wd.*allowed: betas.*weight_decay"),
        ({"optimizer_settings": {"lr": 1}}, r"optimizer_settings\.lr"),
        ({"optimizer_settings": {"weight_decay": -1.0}}, "Adam refuses its settings"),
        ({"device": "cdua"}, r"unknown device \(device\).*did you mean 'cuda'"),
        ({"device": "meta"}, "unknown device"),
        ({"scheduler": "cosin"}, "did you mean 'cosine'"),
        ({"scheduler": "lambda"}, "unknown scheduler"),
        ({"scheduler": "step", "scheduler_settings": {"size": 3}}, r"scheduler_settings\.size.*step_size"),
        ({"scheduler_settings": {"gamma": 0.1}}, "without a scheduler"),
        ({"scheduler": "onecycle", "scheduler_settings": {"total_steps": 3}}, "shorter than the training"),
    ],
)
def test_what_torch_would_not_take_is_refused(given, message):
    with pytest.raises(BadInput, match=message):
        TrainSettings(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"max_epochs": -1},
        {"batch_size": 0},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"early_stopping": 0},
        {"monitor": "f1"},
        {"label_smoothing": 1.5},
        {"gradient_clip": 0},
        {"epochs": 3},
    ],
)
def test_values_out_of_range_and_unknown_keys_are_refused(given):
    with pytest.raises(ValidationError):
        TrainSettings(**given)
    with pytest.raises(BadInput, match=r"train\."):
        validate(TrainSettings, given, Document({"train": given}), "train")


@pytest.mark.parametrize("name", ["Adam", "ADAMW", "sgd", "RMSprop", "nadam", "Adafactor", "muon"])
def test_optimisers_go_by_any_case(name):
    assert TrainSettings(optimizer=name).optimizer == name


@pytest.mark.parametrize(
    "name", ["cosine", "CosineAnnealingLR", "cosine_annealing", "one-cycle", "plateau", "Step", "reduce_lr_on_plateau"]
)
def test_schedulers_go_by_any_spelling(name):
    assert TrainSettings(scheduler=name).scheduler == name


def test_no_epoch_is_allowed_with_every_scheduler():
    for name in ("cosine", "onecycle", "cyclic", "step", "polynomial", "exponential"):
        TrainSettings(max_epochs=0, scheduler=name)
