"""A space of a user's: applied at the step that it says, or refused by name, and never silently left out."""

import copy

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.spaces import SPACES, BoundSpace, Space
from paretobit.spaces.base import Step
from paretobit.spaces.knobs import Knob, Tree
from paretobit.trials.steps import PipelineSettings

FORMATS = pb.Quantize(seed={"default": {"weight": ["integer(width=8)"], "data_in": "integer(width=8)"}})


class ZeroHead(Space):
    """Whether the last layer is zero."""

    name = "zero_head"

    def bind(self, graph, calibration=None):
        return BoundZeroHead(graph)

    @classmethod
    def from_settings(cls, settings):
        return cls()

    def to_settings(self):
        return {}

    @staticmethod
    def explain(described, config):
        return {"head": {"config": {"zero": config["head.zero"]}}}


class BoundZeroHead(BoundSpace):
    name = "zero_head"

    def __init__(self, graph):
        super().__init__(graph)
        self.tree = Tree((Knob.of("head.zero", [False, True]),))
        self.dropped, self.matched, self.unmatched = (), ("1",), ("0",)

    def instrument(self, model):
        pass

    def apply(self, prepared, config):
        with torch.no_grad():
            head, original = prepared.get_submodule("1"), self._graph.model.get_submodule("1")
            head.weight.copy_(original.weight)
            head.bias.copy_(original.bias)
            if config is not None and config["head.zero"]:
                head.weight.zero_()
                head.bias.zero_()
        return prepared

    def describe(self):
        return {}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(SPACES, "_entries", dict(SPACES._entries))
    SPACES.register("zero_head")(ZeroHead)


@pytest.fixture
def data():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    return {"train": (x[:40], y[:40]), "val": (x[40:], y[40:])}


def losses(data, space, pipeline):
    """Loss by whether the head was zeroed; the loss of a zero head is ln 2 whatever came before."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    study = pb.search(model, space=space, minimize="loss", pipeline=pipeline, strategy="brute_force", **data)
    assert study.counts()["failed"] == 0
    return {trial.config["head.zero"]: trial.metrics["loss"] for trial in study if trial.metrics}


QUICK = {"max_epochs": 1}


@pytest.mark.parametrize(
    ("space", "pipeline"),
    [
        pytest.param(lambda: ZeroHead(), None, id="alone, nothing trains"),
        pytest.param(lambda: FORMATS * ZeroHead(), None, id="product, nothing trains"),
        pytest.param(lambda: ZeroHead(), {"steps": ["train", "zero_head", "evaluate"], "train": QUICK}, id="alone"),
        pytest.param(
            lambda: ZeroHead() * FORMATS,
            {"steps": ["train", "quantize", "zero_head", "evaluate"], "train": QUICK},
            id="product",
        ),
    ],
)
def test_a_users_space_is_applied(data, space, pipeline):
    found = losses(data, space(), pipeline)
    assert found[True] == pytest.approx(0.693147, abs=1e-5)
    assert found[False] != pytest.approx(found[True], abs=1e-4)


def test_a_users_space_has_a_step_where_none_is_written_down(data):
    """It is applied before the training, and the head then learns again: less than one that was not zeroed."""
    found = losses(data, ZeroHead(), {"train": {"max_epochs": 0}, "weights": "given"})
    assert found[True] == pytest.approx(0.693147, abs=1e-5)


@pytest.mark.parametrize(
    ("has_weights", "steps"),
    [
        (True, ("channel_multiplier", "quantize", "prune", "zero_head", "train", "evaluate")),
        (False, ("channel_multiplier", "train", "quantize", "prune", "zero_head", "evaluate")),
    ],
)
def test_steps_that_nobody_wrote_down_are_those_of_the_spaces(has_weights, steps):
    space = pb.Prune(seed={"default": {"sparsity": [0.0, 0.5]}}) * ZeroHead() * FORMATS
    space = pb.ChannelMultiplier(seed={"0": {"name": "output_only", "output_multiplier": [1, 2]}}) * space
    assert PipelineSettings().completed(space.parts, has_weights).steps == steps


@pytest.mark.parametrize(
    ("space", "steps", "said"),
    [
        (lambda: ZeroHead(), ["train", "evaluate"], "the space 'zero_head' varies what no step applies"),
        (lambda: ZeroHead() * FORMATS, ["train", "quantize", "evaluate"], "allowed: with 'zero_head'"),
        (lambda: FORMATS, ["train", "zero_head", "quantize", "evaluate"], "nothing for the step 'zero_head'"),
        (lambda: ZeroHead(), ["train", "zero_haed", "evaluate"], "did you mean 'zero_head'"),
    ],
)
def test_a_space_without_a_step_and_a_step_without_a_space_are_refused(data, space, steps, said):
    with pytest.raises(BadInput, match=said) as refused:
        losses(data, space(), {"steps": steps})
    assert refused.value.key == "pipeline.steps"


def test_a_correction_that_no_step_applies_is_refused(data):
    with pytest.raises(BadInput, match=r"'correct' varies what no step applies.*with 'calibrate'"):
        losses(data, FORMATS * pb.Correct(options=["none", "bias"]), {"train": QUICK})


def test_a_step_of_the_pipelines_own_is_no_spaces(data, monkeypatch):
    monkeypatch.setattr(ZeroHead, "step", Step("evaluate"))
    with pytest.raises(BadInput, match="a space with a word of its own"):
        losses(data, ZeroHead(), {"train": QUICK})


def test_a_space_that_changes_shapes_acts_before_the_first_step(data, monkeypatch):
    monkeypatch.setattr(ZeroHead, "step", Step("zero_head", "shape"))
    with pytest.raises(BadInput, match="do not agree on whether it changes shapes"):
        losses(data, ZeroHead(), {"train": QUICK})


def test_training_that_varies_is_never_left_out(data):
    """A user's own measurement does not train: the space asks for it all the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2))
    before = copy.deepcopy(model.state_dict())
    changed = []

    def measured(trained):
        changed.append(not torch.equal(trained[0].weight, before["0.weight"]))
        return {"score": float(trained[0].weight.detach().sum())}

    study = pb.search(
        model, space=pb.Training(seed={"learning_rate": [0.01, 0.1]}),
        evaluate=measured, maximize="score", **data,
    )  # fmt: skip
    assert len({trial.metrics["score"] for trial in study}) == 2
    assert any(changed)
