"""Folded networks compute what they did; statistics estimated again are those of all data together."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from paretobit.errors import BadInput
from paretobit.formats import Integer
from paretobit.graph import at_rest, trace
from paretobit.models import build, load_state, read_state
from paretobit.nn.masks import set_mask
from paretobit.passes.layers.assignment import apply_assignment
from paretobit.passes.transform import (
    PASSES,
    FoldedBatchNorm,
    fold_batch_norm,
    folds_of,
    recalibrate_batch_norm,
    with_folds,
)


def lived_in(model):
    """Parameters and statistics as after some training, in evaluation mode."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.running_mean is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.2, 3)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model.eval()


PAIRS = {
    "linear": (nn.Linear(6, 4), nn.BatchNorm1d(4), (6,)),
    "no bias": (nn.Linear(6, 4, bias=False), nn.BatchNorm1d(4), (6,)),
    "conv1d": (nn.Conv1d(4, 6, 3, groups=2), nn.BatchNorm1d(6), (4, 9)),
    "conv2d": (nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6), (4, 7, 7)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4, eps=0.1), (4, 7, 7)),
    "conv3d": (nn.Conv3d(2, 3, 2, dilation=2), nn.BatchNorm3d(3), (2, 5, 5, 5)),
    "transposed 1d": (nn.ConvTranspose1d(4, 6, 3, groups=2), nn.BatchNorm1d(6), (4, 5)),
    "transposed 2d": (nn.ConvTranspose2d(4, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), (4, 5, 5)),
    "transposed 3d": (nn.ConvTranspose3d(4, 6, 2, groups=2), nn.BatchNorm3d(6), (4, 3, 3, 3)),
    "not affine": (nn.Linear(6, 4), nn.BatchNorm1d(4, affine=False), (6,)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_folded_pair_computes_the_same(name):
    layer, norm, shape = PAIRS[name]
    model = lived_in(nn.Sequential(copy.deepcopy(layer), copy.deepcopy(norm)))
    x = torch.randn(5, *shape)
    graph, info = fold_batch_norm(trace(model, x))
    assert info == {"folded": {"1": "0"}, "refused": {}}
    assert isinstance(graph.model[1], nn.Identity)
    expected = model(x)
    assert (graph.model(x) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_double_precision_agrees_to_double_precision():
    model = lived_in(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).double()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    folded = fold_batch_norm(trace(model, x))[0].model
    assert torch.allclose(folded(x), model(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "shape", "number"), [("digits-cnn", (1, 8, 8), 3), ("jsc-custom", (16,), 3)])
def test_networks_of_the_zoo_compute_the_same(name, shape, number):
    model = lived_in(build(name, shape, 5))
    x = torch.randn(16, *shape)
    graph, info = fold_batch_norm(trace(model, x[:1]))
    assert len(info["folded"]) == number
    expected = model(x)
    assert (graph.model(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert [node.op for node in graph.layers] == [node.op for node in trace(graph.model, x[:1]).layers]


def test_a_published_network_computes_the_same(real_data):
    checkpoint = real_data / "resnet20-12fca82f_cifar10.th"
    model = build("resnet20", (3, 32, 32), 10)
    load_state(model, read_state(checkpoint), checkpoint)
    x = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    graph, info = fold_batch_norm(trace(model.eval(), x[:1]))
    assert (len(info["folded"]), info["refused"]) == (19, {})
    with torch.no_grad():
        expected = model(x)
        assert (graph.model(x) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_first_batch_norm_of_the_tagger_has_nothing_to_go_into():
    graph = trace(build("jsc-custom", (16,), 5), torch.zeros(1, 16))
    _, info = fold_batch_norm(graph)
    assert info["refused"] == {"seq_blocks_0": "it follows x, a placeholder"}


def test_the_original_is_left_as_it_was():
    model = lived_in(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph, _ = fold_batch_norm(trace(model, torch.randn(2, 4)))
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert graph.model.training
    assert all(module.training for module in graph.model.modules())


class Branching(nn.Module):
    """`a` feeds its norm and an addition."""

    def __init__(self):
        super().__init__()
        self.a, self.n = nn.Linear(3, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        y = self.a(x)
        return self.n(y) + y


class Twice(Branching):
    """One norm for two layers."""

    def forward(self, x):
        return self.n(self.a(self.n(self.a(x))))


class Tied(Branching):
    """The weight is also used by a function."""

    def forward(self, x):
        return F.linear(self.n(self.a(x)), self.a.weight)


class Second(nn.Module):
    """A linear layer over sequences: the norm's channels are the positions."""

    def __init__(self):
        super().__init__()
        self.a, self.n = nn.Linear(3, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        return self.n(self.a(x))


class OwnLinear(nn.Linear):
    """Another layer of the same shape."""


def shared_weight():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    return model


def hooked():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model[0].register_forward_hook(lambda module, args, result: result + 1)
    return model


def masked(name):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    set_mask(model[0], torch.rand_like(getattr(model[0], name)) > 0.4, name)
    return model


def quantised(slot, at):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    apply_assignment(model, {at: {slot: Integer(8)}})
    return model


REFUSED = {
    "another consumer": (Branching(), (3,), "the result of a also goes to add"),
    "two calls": (Twice(), (3,), "n is shared"),
    "a function of the weight": (Tied(), (3,), "the weight of a is also used by a function"),
    "sequence": (Second(), (3, 3), "the channels of a are not the second of its 3 axes"),
    "after an activation": (nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3)), (3,), "it follows 0, a relu"),
    "no statistics": (
        nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False)), (3,), "no running",
    ),
    "shared weight": (shared_weight(), (3,), "the weight of 0 is shared with another layer"),
    "hooks": (hooked(), (3,), "0 has hooks"),
    "subclass": (nn.Sequential(OwnLinear(3, 3), nn.BatchNorm1d(3)), (3,), "is a OwnLinear"),
    "quantised weight": (quantised("weight", "0"), (3,), r"the weight of 0 carries integer"),
    "quantised norm": (quantised("data_in", "1"), (3,), "the data_in of 1 carries"),
    "masked bias": (masked("bias"), (3,), "the bias of 0 is masked"),
    "computed weight": (
        nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3)), nn.BatchNorm1d(3)), (3,), "0|it follows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_folded_is_listed_with_the_reason(name):
    model, shape, reason = REFUSED[name]
    x = torch.randn(4, *shape)
    graph, info = fold_batch_norm(trace(model.eval(), x))
    assert info["folded"] == {}
    (found,) = info["refused"].values()
    assert re.search(reason, found)
    assert torch.equal(graph.model(x), model(x))


def test_without_example_inputs_nothing_is_folded():
    graph = trace(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    assert fold_batch_norm(graph)[1] == {
        "folded": {},
        "refused": {"1": "nothing is known of what comes before it: trace with example inputs"},
    }


def test_a_format_for_the_data_of_the_layer_stays():
    model = lived_in(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    apply_assignment(model, {"0": {"data_in": Integer(4, 2)}})
    x = torch.randn(8, 3)
    graph, info = fold_batch_norm(trace(model, x))
    assert info["folded"] == {"1": "0"}
    assert graph.model[0].slots["data_in"] == Integer(4, 2)
    assert torch.allclose(graph.model(x), model(x), atol=1e-5)


def test_masked_weights_stay_zero():
    model = lived_in(masked("weight"))
    x = torch.randn(8, 3)
    graph, info = fold_batch_norm(trace(model, x))
    assert info["folded"] == {"1": "0"}
    assert torch.equal(graph.model[0].weight == 0, ~model[0].weight_mask)
    assert torch.allclose(graph.model(x), model(x), atol=1e-5)


def test_the_pass_leaves_alone_what_it_is_told_to():
    graph = trace(build("digits-cnn", (1, 8, 8), 10), torch.zeros(1, 1, 8, 8))
    new, info = PASSES["fold_batch_norm"](graph, {"skip": ["features.1"]})
    assert info["refused"] == {"features_1": "it is to be left alone"}
    assert isinstance(new.model.features[1], nn.BatchNorm2d)
    for settings, message in (
        ({"skp": []}, "did you mean 'skip'"),
        ({"skip": ["features_11"]}, "did you mean 'features_1'"),
        ({"skip": ["features_0"]}, "not a BatchNorm layer"),
        ({"skip": "features_1"}, "not a list"),
    ):
        with pytest.raises(BadInput, match=message):
            fold_batch_norm(graph, settings)


def test_a_fresh_model_takes_the_weights_of_a_folded_one():
    model = lived_in(build("digits-cnn", (1, 8, 8), 10))
    x = torch.randn(4, 1, 8, 8)
    folded = fold_batch_norm(trace(model, x))[0].model
    assert folds_of(folded)["features.1"] == "features.0"
    fresh = with_folds(build("digits-cnn", (1, 8, 8), 10, seed=9), folds_of(folded))
    fresh.load_state_dict(folded.state_dict())
    assert torch.equal(fresh.eval()(x), folded(x))
    assert isinstance(fresh.features[1], FoldedBatchNorm)
    assert with_folds(fresh, folds_of(folded)).state_dict().keys() == folded.state_dict().keys()


def test_recalibrated_statistics_are_those_of_all_data_together():
    model = lived_in(nn.Sequential(nn.BatchNorm2d(3, momentum=0.3), nn.Conv2d(3, 2, 3)))
    x = 5 * torch.randn(50, 3, 6, 6) + torch.tensor([1.0, 20.0, -3.0]).view(1, 3, 1, 1)
    graph, info = recalibrate_batch_norm(trace(model, x[:1]), [x[:7], x[7:30], x[30:]])
    norm = graph.model[0]
    assert info == {"recalibrated": ["0"], "refused": {}, "batches": 3}
    assert torch.allclose(norm.running_mean, x.mean((0, 2, 3)), rtol=1e-5)
    assert torch.allclose(norm.running_var, x.var((0, 2, 3)), rtol=1e-5)
    assert torch.equal(norm.num_batches_tracked, model[0].num_batches_tracked)


def test_one_batch_gives_what_torch_estimates_cumulatively():
    model = lived_in(build("digits-cnn", (1, 8, 8), 10))
    x = torch.rand(64, 1, 8, 8)
    expected = copy.deepcopy(model)
    for module in expected.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    expected.train()(x)
    found = recalibrate_batch_norm(trace(model, x[:1]), [x])[0].model
    for name, value in found.state_dict().items():
        if "running" in name:
            assert torch.allclose(value, expected.state_dict()[name], rtol=1e-4, atol=1e-6), name
        else:
            assert torch.equal(value, model.state_dict()[name]), name


def test_only_statistics_change_and_modes_and_momentum_come_back():
    model = build("jsc-custom", (16,), 5).train()
    model.seq_blocks[3].eval()
    model.seq_blocks[3].momentum = None
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(40, 16) * 3
    found = recalibrate_batch_norm(trace(model, x[:2]), torch.split(x, 20))[0].model
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, value in found.state_dict().items():
        assert torch.equal(value, before[name]) != ("running" in name), name
    assert [m.training for m in found.modules()] == [m.training for m in model.modules()]
    norms = [m for m in found.modules() if isinstance(m, nn.BatchNorm1d)]
    assert [m.momentum for m in norms] == [0.1, None, 0.1, 0.1]
    assert not any(m._forward_pre_hooks for m in found.modules())


def test_a_damaged_network_is_repaired():
    model = lived_in(build("digits-cnn", (1, 8, 8), 10))
    x = torch.rand(256, 1, 8, 8)
    graph = trace(model, x[:1])
    graph, _ = recalibrate_batch_norm(graph, [x])
    good = graph.model(x)
    with torch.no_grad():
        graph.model.features[0].weight.mul_(3)  # what the norm after it undoes, once it knows
    repaired, _ = recalibrate_batch_norm(graph, [x])
    assert (graph.model(x) - good).abs().max() > 0.1
    assert torch.allclose(repaired.model(x), good, atol=1e-3)


def test_layers_without_statistics_or_without_data_are_listed():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.BatchNorm1d(3, track_running_stats=False)
            self.idle = nn.BatchNorm1d(3)

        def forward(self, x):
            return self.used(x)

    _, info = recalibrate_batch_norm(trace(Idle(), torch.randn(2, 3)), [torch.randn(4, 3)])
    assert info == {
        "recalibrated": [],
        "refused": {"used": "it keeps no running statistics", "idle": "it did not run on this data"},
        "batches": 1,
    }


def test_a_quantised_norm_sees_its_data_quantised():
    model = nn.Sequential(nn.BatchNorm1d(2))
    apply_assignment(model, {"0": {"data_in": Integer(3, 0)}})
    x = torch.randn(100, 2) * 2
    found = recalibrate_batch_norm(trace(model, x[:2]), torch.split(x, 10))[0].model
    expected = Integer(3, 0).quantize(x)
    assert torch.allclose(found[0].running_mean, expected.mean(0), rtol=1e-5)
    assert torch.allclose(found[0].running_var, expected.var(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("batches", "message"), [([], "needs data"), ([torch.zeros(1, 3)], r"one value a channel.*\(0\)")]
)
def test_data_without_a_variance_is_refused(batches, message):
    model = nn.Sequential(nn.BatchNorm1d(3))
    graph = trace(model, torch.zeros(2, 3))
    with pytest.raises(BadInput, match=message), at_rest(model):
        recalibrate_batch_norm(graph, batches)


def test_a_type_too_narrow_for_the_product_is_not_folded():
    norm = nn.BatchNorm1d(3)
    norm.running_var.fill_(1e-9)
    model = nn.Sequential(nn.Linear(3, 3), norm.requires_grad_(False)).eval()
    nn.init.constant_(model[0].weight, 300.0)
    x = torch.randn(4, 3).half()
    graph, info = fold_batch_norm(trace(model.half(), x))
    assert info == {"folded": {}, "refused": {"1": "the type of the weight of 0 does not hold what both do"}}
    assert torch.equal(graph.model[0].weight, model[0].weight)
    assert fold_batch_norm(trace(model.bfloat16(), x.bfloat16()))[1]["folded"] == {"1": "0"}
