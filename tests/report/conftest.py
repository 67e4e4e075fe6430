"""Small real searches on the digits that the pictures and pages are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import paretobit as pb
from paretobit.training import TrainSettings, fit

Rows = tuple[Tensor, Tensor]


@pytest.fixture(scope="session")
def digits() -> dict[str, Rows]:
    x, y = load_digits(return_X_y=True)
    rows = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    cuts = {"train": slice(0, 900), "val": slice(900, 1200), "test": slice(1200, 1500)}
    return {name: (rows[0][cut], rows[1][cut]) for name, cut in cuts.items()}


@pytest.fixture(scope="session")
def net(digits: dict[str, Rows]) -> nn.Module:
    """Two layers to quantise, trained."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    settings = TrainSettings(max_epochs=12, batch_size=64, learning_rate=5e-3)
    fit(model, digits["train"], digits["val"], settings)
    return model


@pytest.fixture(scope="session")
def search(net: nn.Module, digits: dict[str, Rows]) -> Callable[..., pb.Study]:
    def run(knobs: dict[str, Any], **more: Any) -> pb.Study:
        wanted = {"maximize": "accuracy", "minimize": "bitops", **more}
        space = pb.Quantize(seed={"linear": knobs}, share=wanted.pop("share", "name"))
        return pb.search(net, val=digits["val"], test=digits["test"], space=space, **wanted)

    return run


@pytest.fixture(scope="session")
def layers(search: Callable[..., pb.Study]) -> pb.Study:
    """Every configuration of two layers with 2 × 3 widths each: 36 trials, 6 of them uniform."""
    entry = {"data_in_width": [3, 8], "data_in_frac_width": 3, "weight_width": [2, 4, 8], "weight_frac_width": 3}
    return search({"name": "integer", **entry})


@pytest.fixture(scope="session")
def grid(search: Callable[..., pb.Study]) -> pb.Study:
    """The grid of the reports: one knob for all data, one for all weights."""
    entry = {
        "data_in": [{"width": w, "frac_width": w // 2} for w in (4, 8, 16)],
        "weight_width": [2, 4, 8, 16],
        "weight_frac_width": 3,
    }
    return search({"name": "integer", **entry}, share="type")


@pytest.fixture(scope="session")
def families(search: Callable[..., pb.Study]) -> pb.Study:
    """A format for each of two layers: integers of two widths, logarithms of two widths, or float."""
    width = {"data_in_width": 8, "data_in_frac_width": 4, "weight_width": [4, 8], "weight_frac_width": 3}
    return search({"name": ["integer", "log", "float"], **width}, minimize="model_size")


@pytest.fixture(scope="session")
def three(search: Callable[..., pb.Study]) -> pb.Study:
    """Three objectives and a constraint that some trials break."""
    entry = {"data_in_width": 8, "data_in_frac_width": 4, "weight_width": [2, 3, 4, 8], "weight_frac_width": 3}
    return search(
        {"name": "integer", **entry}, minimize=["bitops", "model_size"], subject_to="accuracy >= baseline - 0.05"
    )


@pytest.fixture(scope="session")
def single(search: Callable[..., pb.Study]) -> pb.Study:
    """One objective."""
    entry = {"data_in_width": 8, "data_in_frac_width": 4, "weight_width": [2, 3, 4, 8], "weight_frac_width": [2, 3]}
    return search({"name": "integer", **entry}, minimize=[], strategy="random", n_trials=20)
