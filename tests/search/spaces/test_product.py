"""Spaces multiply: everything varies at once, and each part means what it means alone."""

import json

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.formats import Integer, accumulator
from paretobit.nn import dot_terms
from paretobit.passes.analysis import cost
from paretobit.search import SPACES, ChannelMultiplier, Product, Prune, Quantize
from paretobit.search.knobs import Config

WIDTHS = {"by": "group", "seed": {"0": [1, 2]}}
FORMATS = {"by": "type", "seed": {"linear": {"data_in_width": 8, "weight_width": [4, 8]}}}
ZEROS = {"by": "type", "share": "type", "seed": {"linear": {"sparsity": [0.25, 0.5]}}}


@pytest.fixture
def graph():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    return pb.trace(model, torch.zeros(1, 6))


@pytest.fixture
def space():
    return Quantize(**FORMATS) * Prune(**ZEROS) * ChannelMultiplier(**WIDTHS)


def test_the_tree_is_the_product_of_the_trees(graph, space):
    bound = space.bind(graph)
    alone = [part.bind(graph).tree for part in space.spaces]
    assert bound.tree.size == alone[0].size * alone[1].size * alone[2].size == 4 * 2 * 2
    assert [knob.name for knob in bound.tree.knobs] == [knob.name for tree in alone for knob in tree.knobs]


def test_every_configuration_is_its_widths_its_zeros_and_its_formats(graph, space):
    bound = space.bind(graph)
    prepared = bound.prepare()
    for i in range(bound.tree.size):
        config = bound.tree.at(i)
        model = bound.apply(prepared, config)
        width = 16 if config["0.multiplier"] == 2 else 8
        assert (model[0].out_features, model[2].in_features) == (width, width)
        assert bound.widths(config) == {"0": width}
        for layer in (model[0], model[2]):
            used = layer.parameter("weight")
            share = config[next(name for name in config if name.endswith("sparsity"))]
            assert (used == 0).float().mean() >= share
            data, weight = layer.slots["data_in"], layer.slots["weight"]
            assert weight == Integer(config[f"{0 if layer is model[0] else 2}.weight_width"])
            assert layer.slots["bias"] == accumulator(data, weight, dot_terms(layer))
        assert set(bound.sparsity(config)) == {"0", "2"}
        assert cost(bound.graph(config)).total("macs") == 6 * width + width * 4
        assert model(torch.randn(3, 6)).shape == (3, 4)


def test_what_was_applied_before_leaves_no_trace(graph, space):
    bound = space.bind(graph)
    prepared, x = bound.prepare(), torch.randn(5, 6)
    first = [bound.apply(prepared, bound.tree.at(i))(x) for i in range(bound.tree.size)]
    for i in reversed(range(bound.tree.size)):
        assert torch.equal(bound.apply(prepared, bound.tree.at(i))(x), first[i])
    assert torch.equal(bound.apply(prepared, None)(x), graph.model(x))


def test_a_product_is_written_and_read_back(graph, space):
    settings = json.loads(json.dumps(space.to_settings()))
    again = SPACES["product"].from_settings(settings)
    assert again.bind(graph).tree.fingerprint == space.bind(graph).tree.fingerprint


def test_a_configuration_is_explained_layer_by_layer(graph, space):
    bound = space.bind(graph)
    config = bound.tree.at(bound.tree.size - 1)
    explained = Product.explain(json.loads(json.dumps(bound.describe())), Config.from_json(config.to_json()))
    assert explained["0"]["config"]["weight_width"] == 8
    assert explained["0"]["config"]["sparsity"] == 0.5
    assert explained["0"]["config"]["width"] == 16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quantize(**FORMATS) * Quantize(**FORMATS), "each kind once"),
        (lambda: Product([Quantize(**FORMATS)]), "several spaces"),
        (lambda: Product.from_settings({"spaces": ["quantize", "prun"]}), "did you mean 'prune'"),
        (lambda: Product.from_settings({"spaces": ["quantize", "prune"], "quantise": {}}), "did you mean"),
        (
            lambda: Product.from_settings({"spaces": ["quantize", "prune"], "quantize": FORMATS, "prune": {}}),
            r"missing key \(prune.seed\)",
        ),
    ],
)
def test_what_is_no_product_is_refused(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_a_search_over_a_product_measures_every_shape_with_its_own_costs(graph, space, tmp_path):
    torch.manual_seed(1)
    x = torch.randn(60, 6)
    y = graph.model(x).argmax(1)
    runners = {"basic_evaluation": {}, "basic_computation": {}, "model_size": {}, "bops": {}}
    study = pb.search(
        graph.model,
        space=space,
        maximize="accuracy",
        minimize=["flops", "size", "bops"],
        val=(x, y),
        runners=runners,
        strategy="brute_force",
        out=tmp_path / "run",
    )
    assert [trial.state for trial in study.trials] == ["complete"] * 16
    for trial in study.trials:
        width = 16 if trial.config["0.multiplier"] == 2 else 8
        assert trial.metrics["total_flops"] == 2 * (6 * width + width * 4)
        more = dict(trial.config) | {"linear.sparsity": 0.5}
        pruned = next(t for t in study.trials if dict(t.config) == more)
        if pruned.number != trial.number:
            assert pruned.metrics["bops"] < trial.metrics["bops"]
    best = study.best("max flops")
    assert best.model()[0].out_features == 16
    again = pb.load(tmp_path / "run", model=graph.model)
    kept = study.best(None)
    assert torch.equal(again(x), kept.model()(x))
