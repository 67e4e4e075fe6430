"""What the doctor finds in a model itself: each fault in a model that has it, and nothing in one that has none."""

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.doctor import Patient, model
from paretobit.document import Document
from paretobit.workflow.settings import Settings
from paretobit.workflow.setup import assemble
from paretobit.workflow.subject import Given

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + 1
Y = torch.arange(40) % 3
CHECKS = (
    model.every_run_calls_the_same,
    model.weights_are_followed,
    model.runs_leave_the_model_alone,
    model.rows_stand_alone,
)


class Net(nn.Module):
    """Two layers; what derives from it spoils something."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.first(x).relu())


class Branches(Net):
    """Another function for rows that are large."""

    def forward(self, x):
        x = x * 2 if x.mean() > X[:6].mean() else x
        return super().forward(x)


class FirstCall(Net):
    """Makes a table when it is first called."""

    table = None

    def forward(self, x):
        if self.table is None:
            self.table = torch.ones(6) + torch.zeros(6)
        return super().forward(x * self.table)


class Keeps(Net):
    """Keeps a product of its weights."""

    product = None

    def forward(self, x):
        if self.product is None:
            self.product = (self.last.weight @ self.first.weight).detach()
        return super().forward(x) + x @ self.product.T


class Centres(Net):
    """Keeps a mean up to date, in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return super().forward(x - self.mean)


class Counts(Net):
    """Keeps a list of what it saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        return super().forward(x)


class CountsForItself(Net):
    """Keeps a number under a private name."""

    _calls = 0

    def forward(self, x):
        self._calls += 1
        return super().forward(x) * self._calls


class OfTheBatch(Net):
    """Rows are compared with each other."""

    def forward(self, x):
        return super().forward(x - x.mean(0))


class NeedsTwo(Net):
    """Statistics of the batch."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6, track_running_stats=False)

    def forward(self, x):
        return super().forward(self.norm(x))


def patient(net):
    given = Given(
        net.eval(),
        pb.Quantize(by="type", seed={"linear": {"weight": ["NA", "integer(width=4, frac_width=2)"]}}),
        {"val": (X, Y)},
    )
    document = Document({"search": {"maximize": "accuracy", "minimize": "total_bitops"}})
    return Patient(assemble(Settings.from_document(document), document, given).session)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_nothing_is_found_in_a_sound_model(check):
    assert check(patient(Net())).state == "ok"


@pytest.mark.parametrize(
    ("check", "net", "state", "said"),
    [
        (model.every_run_calls_the_same, Branches, "warn", "mul"),
        (model.every_run_calls_the_same, FirstCall, "warn", "add"),
        (model.weights_are_followed, Keeps, "failed", "first.weight"),
        (model.runs_leave_the_model_alone, Centres, "warn", "mean"),
        (model.runs_leave_the_model_alone, Counts, "warn", "seen"),
        (model.runs_leave_the_model_alone, CountsForItself, "warn", "_calls"),
        (model.rows_stand_alone, OfTheBatch, "warn", "one row"),
        (model.rows_stand_alone, NeedsTwo, "warn", "one row"),
    ],
)
def test_each_fault_is_found_in_a_model_that_has_it(check, net, state, said):
    found = check(patient(net()))
    assert found.state == state
    assert said in found.said
