"""A classifier may give its logits within what transformers return; a state need not be all tensors."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import SequenceClassifierOutput

import paretobit as pb

X, Y = torch.randn(40, 6), torch.randint(0, 3, (40,))
SPACE = pb.Quantize(by="type", seed={"linear": {"weight": ["NA", "mxfp4"]}}, share="type")


class Wrapped(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return SequenceClassifierOutput(logits=self.model(x), hidden_states=(x,))


class WithExtraState(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x)

    def get_extra_state(self):
        return {"recipe": "fp8"}

    def set_extra_state(self, state):
        pass


def test_logits_within_an_output_are_measured_as_logits_are():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        expected = F.cross_entropy(model(X), Y).item()
    study = pb.search(Wrapped(model).eval(), val=(X, Y), space=SPACE, maximize="accuracy", minimize=["loss", "bitops"])
    assert study.counts()["complete"] == 2
    assert abs(study.baseline["loss"] - expected) < 1e-6
    dearest = max(study.trials, key=lambda trial: trial.metrics["total_bitops"]).model()
    with torch.no_grad():
        assert torch.equal(dearest(X).logits.argmax(1), model(X).argmax(1))


def test_a_state_that_is_not_all_tensors_is_searched():
    study = pb.search(
        WithExtraState().eval(), val=(X, Y), space=SPACE, maximize="accuracy", minimize=["loss", "bitops"]
    )
    assert study.counts()["complete"] == 2
