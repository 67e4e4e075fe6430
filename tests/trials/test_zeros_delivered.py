"""What counts zeros counts those of the model that is handed over, whatever pruned and quantised it, in which order."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import paretobit as pb
from paretobit.formats import FULL
from paretobit.nn import QuantizedFunction
from paretobit.nn.quantized import Quantized
from paretobit.spaces import BoundSpace, Space
from paretobit.spaces.knobs import Knob, Tree

KINDS = (nn.Linear, nn.Conv1d, nn.ConvTranspose1d)
FORMATS = (
    "integer(width=4, frac_width=3)",
    "scaled_integer(width=2)",
    "scaled_integer(width=3, per=channel)",
    "scaled_integer(width=4, per=group, group_size=3, symmetric=false)",
    "scaled_integer(width=3, calibration=mse)",
    "minifloat_ieee(width=4, exponent_width=2)",
    "log(width=3)",
    "binary",
    "ternary",
    "block_fp(width=3)",
    "mxfp4",
)
RUNNERS = {"bops": {}, "stored_bytes": {}, "basic_evaluation": {}}
FEW = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


class Net(nn.Module):
    """Layers of several kinds; `again` may share its weight with `first`, and a function may read it too."""

    def __init__(self, shared, read, norm):
        super().__init__()
        self.first, self.again = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.conv, self.up = nn.Conv1d(1, 4, 3, padding=1), nn.ConvTranspose1d(4, 2, 2, stride=2)
        self.norm = nn.BatchNorm1d(2) if norm else nn.Identity()
        self.head = nn.Linear(16, 3)
        self.read = read
        if shared:
            self.again.weight = self.first.weight

    def forward(self, x):
        x = self.again(torch.relu(self.first(x)))
        x = F.linear(x, self.first.weight) if self.read else x
        x = torch.relu(self.conv(x[:, None]))
        return self.head(self.norm(self.up(x)).mean(1))


def slots(layer):
    return layer.slots if isinstance(layer, Quantized) else {}


def recount_bops(model, x):
    """From what the layers of a model do with a batch, and from the weights that they compute with."""
    total = [0.0]

    def ran(layer, args, output):
        weight = layer.parameter("weight") if isinstance(layer, Quantized) else layer.weight
        if isinstance(layer, nn.ConvTranspose1d):
            macs = args[0][0].numel() * weight[0].numel()
            terms = math.ceil(macs / output[0].numel())
        else:
            macs, terms = output[0].numel() * weight[0].numel(), weight[0].numel()
        total[0] += bops_of(macs, terms, weight, slots(layer))

    def called(layer, args, output):
        weight = layer.data("weight", args[1])
        total[0] += bops_of(output[0].numel() * weight.shape[1], weight.shape[1], weight, layer.slots)

    for layer in model.modules():
        if isinstance(layer, KINDS):
            layer.register_forward_hook(ran)
        elif isinstance(layer, QuantizedFunction) and "weight" in layer.slots:
            layer.register_forward_hook(called)
    with torch.no_grad():
        model(x)
    if getattr(model, "read", False) and not any("linear" in name for name, _ in model.named_modules()):
        total[0] += bops_of(64, 8, model.first.weight, {})
    return total[0]


def bops_of(macs, terms, weight, formats):
    zeros = (weight == 0).sum().item() / weight.numel()
    data, bits = (formats.get(slot, FULL).element_bits for slot in ("data_in", "weight"))
    return macs * ((1 - zeros) * data * bits + data + bits + math.log2(terms))


def recount_bytes(model):
    """Every parameter once: whole bytes, behind a bitmap where that is smaller."""
    total, seen = sum(4 * b.numel() for name, b in model.named_buffers() if "running" in name), set()
    for layer in model.modules():
        for name, parameter in layer.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            number_format, value = slots(layer).get(name, FULL), parameter
            if isinstance(layer, nn.ConvTranspose1d) and name == "weight":
                value = value.transpose(0, 1)
            dense = number_format.bits(value.shape)
            zeros = (number_format.quantize(value.detach()) == 0).sum().item() if value.dim() > 1 else 0
            bitmap = value.numel() + dense - zeros * number_format.element_bits
            total += math.ceil(min(dense, bitmap) / 8)
    return total


def check(study, x, trains):
    """Every trial's metrics against a plain recount on its model; of those that train, the front has models."""
    assert study.counts()["complete"] + study.counts()["duplicate"] == len(study.trials)
    kept = study.front() if trains else study.trials
    for trial in kept:
        assert trial.metrics["stored_bytes"] == recount_bytes(trial.model())
        assert trial.metrics["bops"] == pytest.approx(recount_bops(trial.model(), x), rel=1e-9)


def searched(model, space, n_trials=5, **more):
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0)
    data = {"train": (x[:24], y[:24]), "val": (x[24:], y[24:])}
    study = pb.search(model, space=space, minimize=["bops", "loss"], runners=RUNNERS, n_trials=n_trials,
                      strategy="random", **data, **more)  # fmt: skip
    check(study, x[:1], "pipeline" in more)
    return study


@st.composite
def models(draw):
    torch.manual_seed(draw(st.integers(0, 99)))
    model = Net(*(draw(st.booleans()) for _ in range(3)))
    if draw(st.booleans()):  # many weights that are alike
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_((8 * parameter).round() / 8)
    return model.eval()


@st.composite
def spaces(draw):
    quantize = {
        "weight": draw(st.lists(st.sampled_from(FORMATS), min_size=1, max_size=3, unique=True)),
        "data_in": draw(st.sampled_from(["integer(width=8, frac_width=4)", "scaled_integer(width=6)"])),
    }
    amount = draw(st.sampled_from([{"sparsity": [0.0, 0.3, 0.55]}, {"sparsity": [0.8]}, {"pattern": ["dense", "2:4"]}]))
    prune = {**amount, "ragged": "dense"} if "pattern" in amount else amount
    share = draw(st.sampled_from(["name", "type"]))
    scopes = ["local", "output", *(["global"] if share == "type" else [])]
    prune["method"] = draw(st.sampled_from(["l1-norm", "random", "activation-aware"]))
    if "sparsity" in amount:
        prune["scope"] = draw(st.sampled_from(scopes))
    parts = [pb.Quantize(seed={"default": quantize}), pb.Prune(seed={"default": prune}, share=share)]
    return parts[0] * parts[1] if draw(st.booleans()) else parts[1] * parts[0]


@FEW
@given(models(), spaces())
def test_trials_of_given_weights(model, space):
    searched(model, space)


@settings(FEW, max_examples=8)
@given(models(), spaces(), st.permutations(["quantize", "prune", "train"]), st.booleans(), st.booleans())
def test_trials_that_train(model, space, steps, learned, calibrate):
    steps = [*steps, *(["calibrate"] if calibrate else []), "evaluate"]
    learned = learned and "'data_in': 'scaled_integer" in str(space.to_settings())  # in every trial
    train = {"max_epochs": 1, "batch_size": 8, "learning_rate": 0.05, "learned_scales": learned}
    searched(model, space, 2, pipeline={"steps": steps, "train": train, "weights": "given"})


def test_pruning_alone_and_a_model_that_was_pruned_before():
    model = Net(shared=True, read=True, norm=True).eval()
    prune = pb.Prune(seed={"default": {"sparsity": [0.5, 0.9]}})
    searched(model, prune)
    given = pb.passes.transform.prune(
        pb.trace(model, torch.randn(1, 8)),
        pb.passes.transform.prune_settings.read_settings({"sparsity": 0.4, "granularity": "channel"}),
    )[0].model
    quantize = pb.Quantize(seed={"default": {"weight": ["scaled_integer(width=3)", "binary"]}})
    searched(given, quantize)


class Halved(Space):
    """Whether the first half of the inputs of a layer is ignored: a space that says nothing of weights."""

    name = "halved"

    def bind(self, graph, calibration=None):
        return BoundHalved(graph)

    @staticmethod
    def explain(described, config):
        return {"head": {"config": {"halved": config["head.halved"]}}}


class BoundHalved(BoundSpace):
    name = "halved"

    def __init__(self, graph):
        super().__init__(graph)
        self.tree = Tree((Knob.of("head.halved", [False, True]),))
        self.dropped, self.matched, self.unmatched = (), ("head",), ()

    def apply(self, prepared, config):
        with torch.no_grad():
            weight = prepared.get_parameter("head.weight")
            weight.copy_(self._graph.model.get_parameter("head.weight"))
            if config is not None and config["head.halved"]:
                weight[:, :8] = 0
        return prepared

    def describe(self):
        return {}


@pytest.mark.parametrize("more", [None, pb.Prune(by="name", seed={"conv": {"sparsity": [0.2, 0.6]}})])
def test_a_users_space_that_does_not_say_what_it_does_to_weights(more):
    space = pb.Quantize(seed={"default": {"weight": ["scaled_integer(width=3)"]}}) * Halved()
    study = searched(Net(False, False, False).eval(), space if more is None else space * more)
    halved = {trial.config["head.halved"]: trial.metrics["bops"] for trial in study.trials}
    assert len(set(halved.values())) == 2
