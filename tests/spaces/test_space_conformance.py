"""Every registered space keeps every promise of the suite."""

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.data.calibration import Calibration
from paretobit.models import build
from paretobit.spaces import SPACES
from paretobit.testing import SpaceConformance

INTEGERS = {"name": "integer", "weight_width": [3, 6], "weight_frac_width": [2, 4], "data_in_width": 8}
PRUNED = {"name": "l1", "sparsity": [0.0, 0.5]}
CASES = {
    "architecture": [{"seed": {"num_hidden_layers": [1, 2], "intermediate_size": [16, 24]}}],
    "channel_multiplier": [{"by": "group", "seed": {"0": [1, 2], "3": [1, 2]}}],
    "correct": [{"options": ["none", "batch_norm", "bias"]}],
    "prune": [{"by": "type", "seed": {"linear": {"sparsity": [0.0, 0.25, 0.5]}}}],
    "quantize": [
        {"by": "type", "seed": {"linear": INTEGERS}},
        {"by": "name", "seed": {"0": {"name": ["integer", "log", "NA"], "weight_width": [3, 4]}}},
        {"by": "type", "seed": {"linear": {"name": "scaled_integer", "data_in_width": [2, 5]}}},
    ],
    "training": [{"seed": {"learning_rate": [0.1, 0.01], "finetune": {"learning_rate": [0.1, 0.01]}}}],
    "product": [
        {
            "spaces": ["channel_multiplier", "prune", "quantize"],
            "channel_multiplier": {"by": "group", "seed": {"0": [1, 2]}},
            "prune": {"by": "type", "seed": {"linear": {"sparsity": [0.0, 0.5]}}},
            "quantize": {"by": "type", "seed": {"linear": INTEGERS}},
        }
    ],
}


def test_every_registered_space_is_tested():
    assert set(CASES) == set(SPACES.names()), "a space without a case here, or a case without one"


class TestEverySpace(SpaceConformance):
    @pytest.fixture(params=[(n, i) for n, cases in CASES.items() for i in range(len(cases))], ids=str)
    def case(self, request):
        name, number = request.param
        return name, CASES[name][number]

    @pytest.fixture
    def space(self, case):
        name, settings = case
        return SPACES[name].from_settings(settings)

    @pytest.fixture
    def inputs(self, case):
        torch.manual_seed(1)
        return torch.randint(1, 50, (4, 9)) if case[0] == "architecture" else torch.randn(16, 6)

    @pytest.fixture
    def graph(self, case, inputs):
        torch.manual_seed(0)
        if case[0] == "architecture":
            config = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
            config |= {"intermediate_size": 24, "vocab_size": 50, "max_position_embeddings": 12}
            return pb.trace(build("hf:bert", (9,), 3, 0, config=config).eval(), inputs)
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))
        model.train()(torch.randn(64, 6))
        return pb.trace(model.eval(), inputs)

    @pytest.fixture
    def calibration(self, inputs):
        return Calibration((inputs, inputs.flip(0)))
