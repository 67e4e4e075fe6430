"""Accuracy and loss are looked at on the rows that were asked for."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paretobit as pb
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import RUNNERS, Candidate


def runner(model, splits, **settings):
    kind = RUNNERS["basic_evaluation"]
    return kind(Evidence(pb.trace(model, splits["val"][0][:1]), splits), kind.Settings(**settings))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 3)).eval()


@pytest.fixture
def splits(rows):
    x, y = rows
    return {"val": (x[:120], y[:120]), "train": (x[120:], y[120:])}


@pytest.mark.parametrize("split", ["val", "train"])
@pytest.mark.parametrize("count", [None, 1, 50, 10_000])
def test_the_split_and_the_first_rows_are_used(model, splits, split, count):
    made = runner(model, splits, split=split, num_samples=count)
    x, y = (part[:count] for part in splits[split])
    assert made.samples == len(x)
    with torch.no_grad():
        logits = model(x)
    measured = made.measure(Candidate({}, model))
    assert measured["accuracy"] == (logits.argmax(1) == y).double().mean().item()
    assert measured["loss"] == pytest.approx(F.cross_entropy(logits.double(), y).item(), rel=1e-5)


def test_large_images_are_evaluated_a_few_rows_at_a_time():
    wide = nn.Sequential(nn.Conv2d(1, 64, 1), nn.Flatten(), nn.Linear(64 * 32 * 32, 2))
    evidence = Evidence(pb.trace(wide, torch.zeros(1, 1, 32, 32)), {})
    assert evidence.rows_per_pass == 2**18 // (64 * 32 * 32)


def test_checking_the_labels_leaves_the_model_in_its_mode(model, splits):
    model.train()
    runner(model, splits)
    assert model.training
