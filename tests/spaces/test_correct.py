"""A correction belongs to one configuration: it does what the passes do, and leaves nothing behind."""

import copy
import pickle
import tomllib

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.data.calibration import Calibration
from paretobit.document import Document, dump
from paretobit.errors import BadInput
from paretobit.passes.transform import recalibrate_batch_norm
from paretobit.passes.transform.bias_correction import correct_biases, output_means
from paretobit.spaces import Correct, Product
from paretobit.workflow.assemble import make_space

COARSE = {"default": {"weight": ["integer(width=3, frac_width=2)", "NA"]}}


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3))
    model.train()(torch.randn(64, 2, 6, 6))
    return model.eval()


@pytest.fixture
def calibration():
    generator = torch.Generator().manual_seed(1)
    return Calibration(tuple(torch.randn(20, 2, 6, 6, generator=generator) for _ in range(3)))


@pytest.fixture
def bound(net, calibration):
    graph = pb.trace(net, calibration.batches[0][:1])
    return (Correct(options=["none", "batch_norm", "bias"]) * pb.Quantize(seed=COARSE)).bind(graph, calibration)


def config_of(bound, **values):
    return bound.tree.check({**bound.tree.at(0), **values})


def test_corrections_come_after_all_else(bound):
    assert bound.tree.knobs[-1].name == "correction"
    assert bound.tree.knobs[-1].values == ("none", "batch_norm", "bias")
    assert "correction" not in bound.acts_on()
    assert "correction" not in bound.outer


def test_batch_norm_is_estimated_as_by_the_pass(bound, net, calibration):
    config = config_of(bound, correction="batch_norm")
    model = bound.apply(bound.prepare(), config)
    quantised = bound.apply(bound.prepare(), config_of(bound, correction="none"))
    graph = pb.trace(net, calibration.batches[0][:1])
    expected, _ = recalibrate_batch_norm(graph.with_model(quantised), calibration.batches)
    assert not torch.equal(model[1].running_mean, net[1].running_mean)
    assert all(torch.equal(tensor, expected.model.state_dict()[n]) for n, tensor in model.state_dict().items())


def test_biases_are_corrected_as_by_the_pass(bound, net, calibration):
    model = bound.apply(bound.prepare(), config_of(bound, correction="bias"))
    expected = bound.apply(bound.prepare(), config_of(bound, correction="none"))
    correct_biases(expected, output_means(net, calibration.batches), calibration.batches)
    assert not torch.equal(model[4].bias, net[4].bias)
    assert all(torch.equal(tensor, expected.state_dict()[n]) for n, tensor in model.state_dict().items())


def test_no_configuration_leaves_a_trace(bound, net):
    prepared, x = bound.prepare(), torch.randn(5, 2, 6, 6)
    before = copy.deepcopy(net.state_dict())
    fresh = {}
    for index in range(bound.tree.size):
        with torch.no_grad():
            fresh[index] = bound.apply(bound.prepare(), bound.tree.at(index))(x.clone())
    order = torch.randperm(bound.tree.size, generator=torch.Generator().manual_seed(0)).tolist()
    for index in order:
        with torch.no_grad():
            assert torch.equal(bound.apply(prepared, bound.tree.at(index))(x.clone()), fresh[index])
    assert len({tuple(y.flatten().tolist()) for y in fresh.values()}) > bound.tree.size // 2
    with torch.no_grad():
        assert torch.equal(bound.apply(prepared, None)(x.clone()), net(x.clone()))
    kept = {n: t for n, t in prepared.state_dict().items() if n in before}
    assert set(kept) == set(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in kept.items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_bound_space_is_pickled_with_what_it_knows(bound):
    config = config_of(bound, correction="bias")
    x = torch.randn(5, 2, 6, 6)
    with torch.no_grad():
        here = bound.apply(bound.prepare(), config)(x)
        again = pickle.loads(pickle.dumps(bound))
        assert torch.equal(again.apply(again.prepare(), config)(x), here)


def test_one_correction_alone_is_always_made(net, calibration):
    graph = pb.trace(net, calibration.batches[0][:1])
    always = (pb.Quantize(seed=COARSE) * Correct(options=["bias"])).bind(graph, calibration)
    assert "correction" not in [knob.name for knob in always.tree.all_knobs()]
    chosen = (pb.Quantize(seed=COARSE) * Correct(options=["none", "bias"])).bind(graph, calibration)
    x = torch.randn(5, 2, 6, 6)
    config = always.tree.at(0)
    with torch.no_grad():
        one = always.apply(always.prepare(), config)(x)
        other = chosen.apply(chosen.prepare(), chosen.tree.check({**config, "correction": "bias"}))(x)
        assert torch.equal(one, other)
        assert torch.equal(always.apply(always.prepare(), None)(x), net(x))
    assert Product.explain(always.describe(), config)["correction"] == {"config": {"name": "bias"}}


def test_what_has_no_effect_is_dropped_and_named(calibration):
    bare = nn.Sequential(nn.Flatten(), nn.Linear(72, 3, bias=False))
    bound = Correct(options=["none", "batch_norm", "bias"]).bind(pb.trace(bare, calibration.batches[0]), calibration)
    assert bound.tree.size == 1
    assert [(d.knob, d.reason) for d in bound.dropped] == [
        ("correction.batch_norm", "the model has no BatchNorm with running statistics"),
        ("correction.bias", "no linear or convolution layer has a bias"),
    ]
    assert bound.describe() == {"options": ["none"]}


def test_a_configuration_is_explained(bound):
    for name in ("none", "batch_norm", "bias"):
        spelt = Product.explain(bound.describe(), config_of(bound, correction=name))
        assert spelt["correction"] == {"config": {"name": name}}
        assert spelt["0"]["config"]["name"] == "integer"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "no corrections to choose from"),
        ("bias", "not a list"),
        (3, "not a list"),
        (["biass"], "not one of the choices.*did you mean 'bias'"),
        ([["none"]], "not one of the choices"),
        (["none", "none"], "listed twice"),
    ],
)
def test_what_is_no_correction_is_refused(net, calibration, options, message):
    with pytest.raises(BadInput, match=message):
        Correct(options=options).bind(pb.trace(net, calibration.batches[0]), calibration)


def test_without_calibration_rows_there_is_no_correction(net):
    with pytest.raises(BadInput, match="a correction needs calibration rows"):
        Correct().bind(pb.trace(net, torch.randn(1, 2, 6, 6)))


def test_toml_multiplies_spaces_by_their_names(net, calibration):
    text = """
        name = ["quantize", "correct"]
        [quantize]
        by = "type"
        seed = { linear = { weight_width = [4, 8] } }
        [correct]
        options = ["none", "bias"]
    """
    space = make_space(tomllib.loads(text), Document())
    bound = space.bind(pb.trace(net, calibration.batches[0]), calibration)
    assert [knob.name for knob in bound.tree.knobs] == ["4.weight_width", "correction"]
    settings = tomllib.loads(dump(space.to_settings()))
    assert Product.from_settings(settings).to_settings() == space.to_settings()
    with pytest.raises(BadInput, match="unknown key"):
        Correct.from_settings({"option": ["none"]})


def test_a_winner_that_was_corrected_is_loaded_as_it_was_measured(net, tmp_path):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(60, 2, 6, 6, generator=generator)
    rows = (x, net(x.clone()).argmax(1))
    study = pb.search(
        net,
        space=pb.Quantize(seed={"default": {"weight": ["scaled_integer(width=3)"]}})
        * Correct(options=["batch_norm", "bias", "none"]),
        val=rows,
        minimize="loss",
        strategy="brute_force",
        out=tmp_path / "run",
        best="min loss",
    )
    assert len({trial.metrics["loss"] for trial in study.trials}) == 3
    best = study.best("min loss")
    assert best.config["correction"] != "none"
    loaded = pb.load(tmp_path / "run" / "best", model=net)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(loaded.eval()(rows[0].clone()), rows[1])
    assert float(loss) == pytest.approx(best.metrics["loss"], rel=1e-5)
