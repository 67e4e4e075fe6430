"""Latency is the median of the timed passes, on the batch that was asked for."""

import time

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import RUNNERS, Candidate


class Sleeper(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.calls, self.modes = [], []

    def forward(self, x):
        if hasattr(x, "numpy"):
            self.calls.append(len(x))
            self.modes.append(torch.is_grad_enabled())
            time.sleep(0.05 if len(self.calls) <= 2 else 0.004)
        return self.layer(x)


def runner(model, rows, **settings):
    kind = RUNNERS["latency"]
    return kind(Evidence(pb.trace(nn.Linear(6, 3), rows[0][:1]), {"val": rows}), kind.Settings(**settings))


def test_latency_is_a_median_in_milliseconds_after_warming_up(rows):
    model = Sleeper()
    made = runner(model, rows, batch_size=16, warmup=2, repeats=5)
    latency = made.measure(Candidate({}, model))["latency"]
    assert model.calls == [16] * 7
    assert not any(model.modes)
    assert 4 <= latency < 40


def test_latency_needs_the_model_and_says_that_it_is_emulated(rows):
    made = runner(None, rows)
    assert not made.cheap
    assert made.kind == "hardware"
    assert "emulated" in made.metrics[0].unit


def test_latency_takes_part_in_a_search(net, rows, linear_space):
    runners = {"basic_evaluation": {}, "latency": {"batch_size": 8, "warmup": 1, "repeats": 3}}
    study = pb.search(
        net, val=rows, space=linear_space, maximize="accuracy", minimize="latency", runners=runners, n_trials=4
    )
    assert all(0 < trial.metrics["latency"] < 1000 for trial in study)
    assert study.baseline["latency"] > 0


@pytest.mark.parametrize("settings", [{"repeats": 0}, {"batch_size": 0}, {"warmup": -1}])
def test_passes_that_make_no_sense_are_refused(rows, settings):
    with pytest.raises(ValueError, match="greater than"):
        runner(None, rows, **settings)
