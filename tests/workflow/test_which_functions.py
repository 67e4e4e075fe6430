"""A search leaves functions alone that some of its runs do not call, and measures what it delivers."""

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.errors import BadInput


class Branching(nn.Module):
    """Calls other functions first than later, and for a full batch than for a short one."""

    def __init__(self):
        super().__init__()
        self.linear, self.scale = nn.Linear(6, 3), None

    def forward(self, x):
        if self.scale is None:
            self.scale = torch.relu(x[:1]) * 0 + 0.5
        y = x * self.scale
        if len(x) % 2 == 0:
            y = y * 1.01
        return self.linear(y) + 0.1


def asked(by, seed):
    torch.manual_seed(0)
    x = torch.randn(41, 6)
    y = torch.randint(3, (41,))
    given = {
        "train": (x[:20], y[:20]),
        "val": (x, y),
        "runners": {"basic_evaluation": {"batch_size": 4}, "model_size": {}},
    }
    return {"space": pb.Quantize(by=by, seed=seed), "maximize": "accuracy", "calibration": 8, **given}


ENTRY = {"data_in_width": [2, 5], "data_in_frac_width": [1]}


def test_what_is_not_always_called_is_left_out_of_a_type(tmp_path):
    model = Branching().eval()
    given = asked("type", {"mul": ENTRY, "add": ENTRY})
    study = pb.search(model, **given, minimize="model_size", strategy="brute_force", out=tmp_path / "run")
    assert len(study) == 4
    assert {trial.state for trial in study} == {"complete"}
    x, y = given["val"]
    trial = study[pb.models.read_manifest(tmp_path / "run")["trial"]]
    delivered = pb.load(tmp_path / "run", model=Branching())
    with torch.no_grad():
        logits = torch.cat([delivered(rows) for rows in x.split(4)])
    assert (logits.argmax(1) == y).double().mean().item() == pytest.approx(trial.metrics["accuracy"])


def test_by_name_it_is_refused_with_the_run_that_does_not_call_it():
    with pytest.raises(BadInput, match="'mul_1' cannot be quantised: it is called only in some runs, not in"):
        pb.search(Branching().eval(), **asked("name", {"mul_1": ENTRY}), strategy="brute_force")


def test_by_name_what_only_the_first_call_calls_is_no_function_of_the_model():
    with pytest.raises(BadInput, match=r"no layer of the model has this name .* found 'relu'"):
        pb.search(Branching().eval(), **asked("name", {"relu": ENTRY}), strategy="brute_force")
