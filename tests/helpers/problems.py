"""What many tests share: problems without a model, and a small model with data."""

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.spaces.knobs import Knob, Option, Tree
from paretobit.strategies.problem import Problem
from paretobit.trials.outcome import Outcome
from paretobit.trials.vocabulary import Vocabulary
from paretobit.wanted.objectives import Constraint, Objective


@pytest.fixture
def mixed_tree():
    """Numbers, words, and a choice that owns knobs: 4 × 3 × (1 + 2 × 2) = 60 configurations."""
    name = Knob(
        "name", (Option("float"), Option("integer", (Knob.of("width", [4, 8]), Knob.of("signed", [True, False]))))
    )
    return Tree((Knob.of("depth", [1, 2, 4, 8]), Knob.of("kind", ["x", "y", None]), name))


@pytest.fixture
def problem_of():
    """Makes a problem over a tree, with metrics `loss` and `cost`."""

    def make(tree, *, objectives=("loss",), constraints=()):
        wanted = tuple(Objective.of(metric, "minimize") for metric in objectives)
        bounds = tuple(Constraint.parse(text) for text in constraints)
        return Problem(tree, wanted, bounds, (), {"loss": 1.0, "cost": 10.0}, Vocabulary(()))

    return make


def score(config):
    """Two smooth metrics of a configuration of `mixed_tree`, in conflict."""
    depth, width = config["depth"], config.get("width", 16)
    kind = {"x": 0.0, "y": 0.5, None: 0.25}[config["kind"]]
    loss = 4.0 / depth + 2.0 / width + kind + (0.1 if config.get("signed") else 0.0)
    return {"loss": loss, "cost": float(depth * width)}


class FakeBench:
    """Scores configurations by a formula and counts how often each is asked for."""

    def __init__(self, fails=lambda config: False):
        self.calls, self.fails = [], fails

    def evaluate(self, config, judge=None, bar=None):
        self.calls.append(config)
        if self.fails(config):
            return Outcome("failed", {}, "Traceback: boom")
        return Outcome("complete", score(config))


@pytest.fixture
def fake_bench():
    return FakeBench


@pytest.fixture
def scored():
    return score


@pytest.fixture
def net():
    """A model whose first layer works in place, left in training mode."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.ReLU(inplace=True), nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3, bias=False)
    )
    with torch.no_grad():
        model(torch.randn(64, 6))  # running statistics that are not the initial ones
    return model.train()


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(11)
    return torch.randn(200, 6, generator=generator), torch.randint(0, 3, (200,), generator=generator)


@pytest.fixture
def linear_space():
    """Two linear layers: 2 × 4 knobs' options, full precision among them; 16 configurations."""
    formats = [{"width": 3, "frac_width": 1}, {"width": 6, "frac_width": 3}, {"width": 8, "frac_width": 4}]
    return pb.Quantize(by="type", seed={"linear": {"weight": [*formats, "NA"]}})
