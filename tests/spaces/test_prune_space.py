"""The space `prune`: its knobs, what a configuration masks, and that trials leave nothing behind."""

import json
import pickle

import pytest
import torch
from torch import nn

from paretobit.errors import BadInput
from paretobit.formats import Integer, parse
from paretobit.graph import trace
from paretobit.nn.masks import effective_weight, masks_of, sparsity_of, zeros_in
from paretobit.passes.transform import QuantizeSettings, quantize
from paretobit.spaces import SPACES, ChannelMultiplier, Prune, Quantize
from paretobit.spaces.knobs import Config
from paretobit.trials.bench import Bench
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import FunctionRunner


@pytest.fixture
def graph():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.BatchNorm1d(20), nn.Linear(20, 10), nn.Linear(10, 4))
    return trace(model.eval(), torch.zeros(1, 8))


def applied(bound, config, prepared=None):
    prepared = bound.prepare() if prepared is None else prepared
    model = bound.apply(prepared, config)
    assert model is prepared
    return model


def test_every_layer_has_a_knob_and_where_nothing_goes_there_is_no_method(graph):
    entry = {"sparsity": [0.0, 0.5, 0.9], "method": ["l1-norm", "random"]}
    bound = Prune(seed={"linear": entry}).bind(graph)
    assert [knob.name for knob in bound.tree.knobs] == ["0.sparsity", "3.sparsity", "4.sparsity"]
    assert bound.tree.size == (1 + 2 * 2) ** 3
    assert list(bound.tree.at(0)) == ["0.sparsity", "3.sparsity", "4.sparsity"]
    assert dict(bound.tree.at(1))["4.method"] == "l1-norm"
    assert (bound.matched, bound.unmatched) == (("0", "3", "4"), ("1", "2"))
    assert bound.tree.knobs[0].ordered


def test_layers_of_a_key_share_their_knobs_and_are_ranked_together(graph):
    seed = {"linear": {"sparsity": [0.0, 0.5, 0.7], "scope": ["local", "global"]}}
    bound = Prune(seed=seed, share="type").bind(graph)
    assert [knob.name for knob in bound.tree.knobs] == ["linear.sparsity"]
    assert bound.tree.size == 5
    model = applied(bound, Config({"linear.sparsity": 0.7, "linear.scope": "global"}))
    linears = [model[i] for i in (0, 3, 4)]
    assert sum(zeros_in(layer.weight) for layer in linears) == round(0.7 * 400)
    assert zeros_in(model[0].weight) != round(0.7 * 160)
    model = applied(bound, Config({"linear.sparsity": 0.7, "linear.scope": "local"}))
    assert [zeros_in(model[i].weight) for i in (0, 3, 4)] == [112, 140, 28]
    ranked = bound.weights(Config({"linear.sparsity": 0.7, "linear.scope": "global"}))
    assert sum(zeros_in(changed.value()) for changed in ranked.values()) == 280
    assert zeros_in(ranked["0.weight"].value()) != 112


def test_a_configuration_means_the_same_whatever_came_before(graph):
    entry = {"sparsity": [0.0, 0.3, 0.6, 0.9], "method": ["l1-norm", "random"], "seed": 3}
    bound = Prune(seed={"default": entry}, share="type").bind(graph)
    shared = bound.prepare()
    x = torch.randn(16, 8)
    results = {}
    for index in [*range(bound.tree.size), *reversed(range(bound.tree.size))]:
        config = bound.tree.at(index)
        for model in (applied(bound, config), applied(bound, config, shared)):
            y = model(x)
            assert torch.equal(results.setdefault(index, y), y)
            (sparsity,) = {config["default.sparsity"]}
            expected = {p: round(sparsity * n) / n for p, n in (("0", 160), ("3", 200), ("4", 40))}
            assert sparsity_of(model) == {**expected, "2": 0.0}
            now, weights = dict(model.named_parameters()), bound.weights(config)
            assert all(torch.equal(changed.value(), now[name]) for name, changed in weights.items())
            assert set(weights) == {f"{path}.weight" for path, share in expected.items() if share}
    assert torch.equal(results[0], graph.model(x))
    assert len({tuple(y.flatten().tolist()) for y in results.values()}) == bound.tree.size
    assert masks_of(graph.model) == {}


def test_what_changed_nothing_is_not_touched(graph):
    graph, _ = quantize(graph, QuantizeSettings("type", {"linear": {"weight": Integer(8, 6)}}))
    bound = Prune(seed={"linear": {"sparsity": [0.0, 0.5]}}).bind(graph)
    model = applied(bound, bound.tree.at(7))
    with torch.no_grad():
        model(torch.randn(2, 8))
        cached = [model[i].parameter("weight") for i in (0, 3, 4)]
        applied(bound, bound.tree.at(6), model)
        model(torch.randn(2, 8))
        now = [model[i].parameter("weight") for i in (0, 3, 4)]
    assert [a is b for a, b in zip(cached, now, strict=True)] == [True, True, False]
    assert torch.equal(now[2], Integer(8, 6).quantize(graph.model[4].weight.detach()))


def test_patterns_are_options_too(graph):
    bound = Prune(by="name", seed={"3": {"pattern": ["dense", "2:4", "1:4"]}}).bind(graph)
    zeros = [zeros_in(applied(bound, bound.tree.at(i))[3].weight) for i in range(3)]
    assert zeros == [0, 100, 150]


def test_activation_aware_needs_batches(graph):
    seed = {"linear": {"sparsity": [0.0, 0.5], "method": "activation-aware", "scope": "output"}}
    with pytest.raises(BadInput, match=r"needs calibration batches \(seed\.0\.method\)"):
        Prune(seed=seed).bind(graph)
    scaled = torch.randn(64, 8) * torch.tensor([100.0, 1, 1, 1, 1, 1, 1, 0])
    bound = Prune(seed=seed, batches=[scaled]).bind(graph)
    weight = applied(bound, bound.tree.at(7))[0].weight
    assert zeros_in(weight[:, 7]) == 20
    assert zeros_in(weight[:, 0]) < 5


def test_a_pruned_model_stays_pruned_where_nothing_more_goes(graph):
    before = applied(Prune(seed={"linear": {"sparsity": 0.5}}).bind(graph), Config({}))
    graph = trace(before, torch.zeros(1, 8))
    bound = Prune(seed={"linear": {"sparsity": [0.0, 0.7]}}, share="type").bind(graph)
    shared = bound.prepare()
    assert zeros_in(applied(bound, bound.tree.at(1), shared)[0].weight) == 112
    assert zeros_in(applied(bound, bound.tree.at(0), shared)[0].weight) == 80
    with pytest.raises(BadInput, match=r"sparser already.*seed\.linear\.sparsity"):
        Prune(seed={"linear": {"sparsity": [0.3, 0.7]}}, share="type").bind(graph)


def test_layers_that_share_a_weight_have_one_knob():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    bound = Prune(seed={"linear": {"sparsity": [0.0, 0.5]}}).bind(trace(model, torch.zeros(1, 4)))
    assert [knob.name for knob in bound.tree.knobs] == ["0.sparsity"]
    assert [(d.knob, d.reason) for d in bound.dropped] == [("2", "its weight is that of '0'")]
    assert zeros_in(applied(bound, bound.tree.at(1))[2].weight) == 8


def test_a_bench_measures_the_baseline_and_trials_in_any_order(graph):
    seen = []

    def evaluate(model):
        seen.append(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(2):  # a runner that trains: the masks hold in its copy, and nothing comes back
            optimizer.zero_grad()
            model.train()(torch.randn(8, 8)).square().sum().backward()
            optimizer.step()
        return {"zeros": float(sum(zeros_in(model[i].weight) for i in (0, 3, 4)))}

    bound = Prune(seed={"linear": {"sparsity": [0.0, 0.25, 0.5]}}, share="type").bind(graph)
    runner = FunctionRunner(Evidence(graph, {}), evaluate, {})
    bench = Bench(pickle.loads(pickle.dumps(bound)), [runner], 0)
    assert bench.baseline().metrics == {"zeros": 0.0}
    measured = [bench.evaluate(bound.tree.at(i)) for i in (2, 0, 1, 2)]
    assert [outcome.metrics["zeros"] for outcome in measured] == [200.0, 0.0, 100.0, 200.0]


def test_sparsity_and_formats_vary_together(graph):
    formats = {"linear": {"weight": [{"width": 8, "frac_width": 6}, {"width": 4, "frac_width": 3}]}}
    sparse = {"linear": {"sparsity": [0.0, 0.5]}}
    bound = (Quantize(seed=formats, share="type") * Prune(seed=sparse, share="type")).bind(graph)
    assert bound.tree.size == 4
    shared = bound.prepare()
    for index in (3, 0, 2, 1, 3):
        config = bound.tree.at(index)
        model = bound.apply(shared, config)
        number_format = parse(config["linear.weight"])
        masks = masks_of(model)
        for i in (0, 3, 4):
            kept = torch.where(masks[str(i)]["weight"], graph.model[i].weight.detach(), 0)
            assert torch.equal(effective_weight(model[i]), number_format.quantize(kept))
            assert (~masks[str(i)]["weight"]).sum() == round(config["linear.sparsity"] * kept.numel())
    x = torch.randn(4, 8)
    assert torch.equal(bound.apply(shared, None)(x), graph.model(x))


def test_masks_fit_the_shape_that_another_space_gives(graph):
    wide = ChannelMultiplier(seed={"0": {"name": "output_only", "channel_multiplier": [1, 2]}})
    bound = (wide * Prune(by="name", seed={"0": {"sparsity": [0.0, 0.5]}})).bind(graph)
    prepared = bound.prepare()
    zeros = [zeros_in(bound.apply(prepared, bound.tree.at(i))[0].weight) for i in range(bound.tree.size)]
    assert sorted(zeros) == [0, 0, 80, 160]


def test_settings_and_explanations_are_json(graph):
    settings = {"by": "type", "share": "type", "seed": {"linear": {"sparsity": [0.0, 0.5], "method": "random"}}}
    space = SPACES["prune"].from_settings(json.loads(json.dumps(settings)))
    assert space.to_settings() == settings
    bound = space.bind(graph)
    described = json.loads(json.dumps(bound.describe()))
    entry = {"config": {"sparsity": 0.5, "method": "random"}}
    assert Prune.explain(described, bound.tree.at(1)) == dict.fromkeys(("0", "3", "4"), entry)
    assert Prune.explain(described, bound.tree.at(0))["3"] == {"config": {"sparsity": 0.0}}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"by": "typ", "seed": {"linear": {"sparsity": 0.5}}}, "did you mean 'type'"),
        ({"share": "all", "seed": {"linear": {"sparsity": 0.5}}}, r"not one of the choices \(share\): found 'all'"),
        ({"seed": {}}, "the seed names no layers"),
        ({"seed": {"liner": {"sparsity": 0.5}}}, r"seed\.liner.*did you mean 'linear'"),
        ({"seed": {"relu": {"sparsity": 0.5}}}, r"'1' is a ReLU, which cannot be pruned \(seed\.relu\)"),
        ({"seed": {"linear": {"sparsty": 0.5}}}, r"seed\.linear\.sparsty.*did you mean 'sparsity'"),
        ({"seed": {"linear": {"method": "random"}}}, "how much goes must be said once"),
        ({"seed": {"linear": {"sparsity": [0.5, 2]}}}, r"not a sparsity \(seed\.linear\.sparsity\): found 2"),
        ({"seed": {"linear": {"sparsity": [False, 0.5]}}}, "not a sparsity"),
        ({"seed": {"linear": {"pattern": ["2-4"]}}}, "not an N:M pattern"),
        (
            {"seed": {"linear": {"sparsity": 0.5, "seed": [1, 2]}}},
            r"valid integer \(seed\.linear\.seed\): found \[1, 2\]",
        ),
        ({"seed": {"linear": {"sparsity": [0, 0.5], "method": ["l2"]}}}, r"not one of the choices \(seed\.0\.method\)"),
        ({"seed": {"linear": {"sparsity": 0.5, "scope": "global"}}}, r"share = \"type\""),
        ({"seed": {"linear": {"pattern": ["dense", "2:4"]}}}, r"layer '4' does not fit"),
        ({"by": "name", "seed": {"0": {"sparsity": 0.5}, "default": 3}}, r"not a table \(seed\.default\)"),
    ],
)
def test_bad_descriptions_are_refused(graph, keys, message):
    with pytest.raises(BadInput, match=message):
        Prune(**keys).bind(graph)


def test_unknown_keys_of_the_table_are_refused():
    with pytest.raises(BadInput, match=r"unknown key.*did you mean 'share'"):
        Prune.from_settings({"shared": "type", "seed": {}})
    with pytest.raises(BadInput, match=r"missing key \(seed\)"):
        Prune.from_settings({})
