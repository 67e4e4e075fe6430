"""Spaces multiply: everything varies at once, and each part means what it means alone."""

import copy
import json
import math

import cloudpickle
import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.formats import Integer, accumulator
from paretobit.models import build
from paretobit.nn import dot_terms
from paretobit.passes.analysis import cost
from paretobit.spaces import SPACES, Architecture, ChannelMultiplier, Product, Prune, Quantize
from paretobit.spaces.knobs import Config

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
        assert set(bound.weights(config)) <= {"0.weight", "2.weight"}
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


def test_the_parts_are_bound_to_the_shape_of_a_configuration(graph, space):
    bound = space.bind(graph)
    for config in map(bound.tree.at, range(bound.tree.size)):
        parts = bound.parts(config)
        assert list(parts) == ["quantize", "prune", "channel_multiplier"]
        model = copy.deepcopy(parts["channel_multiplier"].apply(bound.private_copy(), config))
        for name in ("quantize", "prune"):
            parts[name].instrument(model)
        for name in ("quantize", "prune"):
            model = parts[name].apply(model, config)
        x = torch.randn(3, 6)
        assert torch.equal(model(x), bound.apply(bound.prepare(), config)(x))
    alone = Quantize(**FORMATS).bind(graph)
    assert alone.parts(alone.tree.at(0)) == {"quantize": alone}


DEPTHS = {"num_hidden_layers": [1, 2]}
PER_LAYER, ELSEWHERE = (6, 2)  # linear layers of BERT: query, key, value, output, two of the block; pooler, classifier
TIED = {"by": "type", "share": "type", "seed": {"linear": {"sparsity": [0.25, 0.5]}}}
QUERY = "bert_encoder_layer_1_attention_self_query"


@pytest.fixture(scope="module")
def bert():
    config = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    model = build("hf:bert", (5,), 3, 0, config=config | {"vocab_size": 50}).eval()
    return pb.trace(model, torch.ones(2, 5, dtype=torch.int64))


def ids():
    return torch.randint(1, 50, (3, 5), generator=torch.Generator().manual_seed(0))


def test_a_shallow_network_has_no_knobs_for_the_layers_that_it_lacks(bert):
    bound = (Quantize(**FORMATS) * Architecture(seed=DEPTHS)).bind(bert)
    assert bound.tree.size == 2 ** (PER_LAYER + ELSEWHERE) + 2 ** (2 * PER_LAYER + ELSEWHERE)
    depth = bound.tree.knobs[0]
    assert [len(option.knobs) for option in depth.options] == [0, PER_LAYER]
    assert len(bound.tree.knobs) == 1 + PER_LAYER + ELSEWHERE  # those that every network has stand beside it
    assert not any("layer_1" in name for name in bound.tree.at(0))
    assert bound.outer == ("num_hidden_layers",)
    assert bound.acts_on() == {}


def test_a_product_says_which_architectures_are_impossible(bert):
    sizes = Architecture(seed={"hidden_size": [16, 18], "num_attention_heads": [2, 4]})
    bound = (Prune(**TIED) * sizes).bind(bert)
    assert bound.tree.size == 3 * 2
    assert bound.impossible.startswith("1 of 4 combinations are impossible: hidden_size = 18")
    assert Prune(**TIED).bind(bert).impossible == ""


def test_networks_of_the_same_layers_have_the_same_knobs_side_by_side(bert):
    bound = (Architecture(seed={"hidden_size": [16, 32]}) * Quantize(**FORMATS)).bind(bert)
    assert all(not option.knobs for knob in bound.tree.knobs for option in knob.options)
    assert bound.tree.size == 2 * 2 ** (PER_LAYER + ELSEWHERE)
    assert set(bound.acts_on()) == {knob.name for knob in bound.tree.knobs} - {"hidden_size"}


WIDER = {"by": "name", "seed": {f"bert_encoder_layer_{i}_intermediate_dense": [1, 2] for i in (0, 1)}}


def both_sides(spec):
    entries = {
        key: {"config": {"name": "output_only", "channel_multiplier": values}} for key, values in spec["seed"].items()
    }
    return {**spec, "seed": entries}


def test_three_spaces_on_architectures_each_do_their_own(bert):
    formats = {**FORMATS, "share": "type"}
    space = Quantize(**formats) * Prune(**TIED) * ChannelMultiplier(**both_sides(WIDER))
    bound = (space * Architecture(seed=DEPTHS)).bind(bert)
    assert bound.tree.size == 2 * 2 * (2 + 2 * 2)  # weights' width, zeros, and a width for every layer
    prepared = bound.prepare()
    for config in map(bound.tree.at, range(bound.tree.size)):
        layers = config["num_hidden_layers"]
        assert list(bound.parts(config)) == ["architecture", "quantize", "prune", "channel_multiplier"]
        model = bound.apply(prepared, config)
        assert len(model.bert.encoder.layer) == layers
        assert len(bound.widths(config)) == layers
        for i in range(layers):
            block = model.bert.encoder.layer[i]
            wanted = 24 * config[f"bert_encoder_layer_{i}_intermediate_dense.multiplier"]
            assert block.intermediate.dense.out_features == block.output.dense.in_features == wanted
            assert block.output.dense.slots["weight"] == Integer(config["linear.weight_width"])
            zeros = (block.output.dense.parameter("weight") == 0).float().mean()
            assert zeros >= config["linear.sparsity"]
        assert len(bound.formats(config)) == layers * PER_LAYER + ELSEWHERE
        assert model(ids()).shape == (3, 3)
        assert math.isfinite(cost(bound.graph(config)).total("macs"))
    assert torch.equal(bound.apply(prepared, None)(ids()), bert.model(ids()))


def test_a_key_that_names_a_layer_of_the_deeper_networks_counts_there_only(bert):
    entry = {"data_in_width": 8, "weight_width": [4, 8]}
    bound = (Architecture(seed=DEPTHS) * Quantize(by="name", seed={QUERY: entry})).bind(bert)
    assert [dict(bound.tree.at(i)) for i in range(bound.tree.size)] == [
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 2, f"{QUERY}.weight_width": 4},
        {"num_hidden_layers": 2, f"{QUERY}.weight_width": 8},
    ]
    assert [list(bound.parts(bound.tree.at(i))) for i in (0, 1)] == [["architecture"], ["architecture", "quantize"]]
    assert bound.formats(bound.tree.at(0)) == {}
    with pytest.raises(BadInput, match="did you mean"):
        (Architecture(seed=DEPTHS) * Quantize(by="name", seed={f"{QUERY}x": entry})).bind(bert)


def test_a_layer_that_is_left_out_has_no_formats(bert):
    space = Architecture(seed=DEPTHS, linear={QUERY: ["linear", "identity"]})
    by_name = {QUERY: {"data_in_width": 8, "weight_width": [4, 8]}, "classifier": {"weight_width": [2, 3, 4]}}
    bound = (space * Quantize(by="name", seed=by_name)).bind(bert)
    assert bound.tree.size == 3 + 3 * (2 + 1)  # one layer; two of them, with formats or without the layer
    prepared, described = bound.prepare(), json.loads(json.dumps(bound.describe()))
    for config in map(bound.tree.at, range(bound.tree.size)):
        model = bound.apply(prepared, config)
        left_out = config.get(f"{QUERY}.layer") == "identity"
        assert isinstance(model.classifier, nn.Linear)
        assert (f"{QUERY}.weight_width" in config) == (config["num_hidden_layers"] == 2 and not left_out)
        said = Product.explain(described, config)
        assert said["architecture"]["config"] == {"num_hidden_layers": config["num_hidden_layers"]}
        assert said["classifier"]["config"]["weight_width"] == config["classifier.weight_width"]
        if left_out:
            assert said[QUERY] == {"config": {"layer": "identity"}}
        elif QUERY in said:
            assert said[QUERY]["config"]["weight_width"] == config[f"{QUERY}.weight_width"]
    wider = ChannelMultiplier(**both_sides(WIDER))
    with pytest.raises(BadInput, match=r"none may be left out \(architecture.linear\)"):
        (space * wider).bind(bert)


def test_tied_layers_are_not_left_out_one_by_one(bert):
    key = QUERY.replace("query", "key")
    space = Architecture(seed={"num_hidden_layers": 2}, linear={QUERY: ["linear", "identity"]})
    with pytest.raises(BadInput, match="may be left out"):
        (space * Quantize(**FORMATS, tie=[[QUERY, key]])).bind(bert)


def test_a_product_with_architectures_goes_to_workers_and_is_read_back(bert):
    space = Architecture(seed=DEPTHS) * Quantize(**FORMATS)
    again = SPACES["product"].from_settings(json.loads(json.dumps(space.to_settings()))).bind(bert)
    bound = space.bind(bert)
    assert again.tree.fingerprint == bound.tree.fingerprint
    config = bound.tree.at(bound.tree.size - 1)
    wanted = bound.apply(bound.prepare(), config)(ids())
    sent = cloudpickle.loads(cloudpickle.dumps(bound))
    assert torch.equal(sent.apply(sent.prepare(), config)(ids()), wanted)
    assert torch.equal(sent.apply(sent.prepare(), None)(ids()), bert.model(ids()))


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii"])
def test_samplers_search_architectures_and_formats_together(bert, sampler):
    study = pb.search(
        bert.model,
        space=Architecture(seed=DEPTHS) * Quantize(by="type", share="name", seed=FORMATS["seed"]),
        minimize=["bops", "size"],
        val=(ids(), torch.zeros(3, dtype=torch.int64)),
        runners={"bops": {}, "model_size": {}},
        strategy={"name": "optuna", "sampler": sampler},
        n_trials=8,
    )
    assert {trial.state for trial in study.trials} <= {"complete", "duplicate"}
    assert {trial.config["num_hidden_layers"] for trial in study.trials} == {1, 2}
