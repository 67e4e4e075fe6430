"""Families of formats with parameters of their own: every strategy searches them, under the family's name."""

import json
import tomllib
import warnings

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.document import dump
from paretobit.errors import BadInput
from paretobit.spaces import Quantize
from paretobit.strategies.brute_force import BruteForce
from paretobit.strategies.optuna_samplers import OptunaSettings, OptunaStrategy
from paretobit.studies.trial import Trial

ENTRY = {
    "name": ["integer", "minifloat_ieee", "block_fp", "log", "NA"],
    "weight_width": [6, 8],
    "integer": {"data_in_width": [4, 8], "data_in_frac_width": [2, 3]},
    "minifloat_ieee": {"data_in_width": [6, 8], "data_in_exponent_width": [3, 4], "weight_exponent_width": 3},
    "block_fp": {"data_in_width": [8, 9], "data_in_exponent_width": 8, "weight_exponent_width": [7, 8]},
    "log": {"data_in_width": 8, "weight": ["log(width=4)", "log(width=7)", "log(width=8)"]},
}
SIZE = 2 * 2 * 2 + 2 * 2 * 2 + 2 * 2 * 2 + 3 + 1


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return pb.trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(1, 4))


@pytest.fixture
def bound(graph):
    return Quantize(by="name", seed={"0": ENTRY}).bind(graph)


def every(bound):
    return [bound.tree.at(i) for i in range(bound.tree.size)]


def test_each_family_has_its_own_lists_under_its_own_name(bound):
    assert bound.tree.size == SIZE
    assert [knob.name for knob in bound.tree.all_knobs()] == [
        *("0.name", "0.integer.data_in_width", "0.integer.data_in_frac_width", "0.weight_width"),
        *("0.minifloat_ieee.data_in_width", "0.minifloat_ieee.data_in_exponent_width"),
        *("0.block_fp.data_in_width", "0.block_fp.weight_exponent_width", "0.log.weight"),
    ]
    found = {name: set() for name in ENTRY["name"]}
    for config in every(bound):
        slots = bound.formats(config)["0"]
        family = slots["data_in"].name if slots else "NA"
        found[family].add((slots["data_in"].width, slots["weight"].width) if slots else None)
        if family != "NA":
            assert slots["weight"].name == family
    assert found == {
        "integer": {(d, w) for d in (4, 8) for w in (6, 8)},
        "minifloat_ieee": {(d, w) for d in (6, 8) for w in (6, 8)},
        "block_fp": {(d, w) for d in (8, 9) for w in (6, 8)},
        "log": {(8, w) for w in (4, 7, 8)},
        "NA": {None},
    }


def test_configurations_are_distinct_and_explained_from_json(bound):
    described = json.loads(json.dumps(bound.describe()))
    explained = [json.dumps(Quantize.explain(described, config)) for config in every(bound)]
    assert len(set(explained)) == len({json.dumps(dict(c)) for c in every(bound)}) == SIZE
    for config, text in zip(every(bound), explained, strict=True):
        slots, shown = bound.formats(config)["0"], json.loads(text)["0"]["config"]
        assert shown["name"] == (slots["weight"].name if slots else "NA")
        assert shown.get("weight_width") == (slots["weight"].width if slots else None)
        assert bound.tree.check(json.loads(config.to_json())) == config


def test_settings_survive_toml(graph, bound):
    space = Quantize(by="name", seed={"0": ENTRY})
    text = dump({"search": {"space": space.to_settings()}})
    assert "[search.space.seed.0.minifloat_ieee]" in text
    again = Quantize.from_settings(tomllib.loads(text)["search"]["space"])
    assert again.bind(graph).tree == bound.tree
    assert again.bind(graph).tree.fingerprint == bound.tree.fingerprint
    other = {**ENTRY, "integer": {"data_in_width": [4, 9], "data_in_frac_width": [2, 3]}}
    assert Quantize(by="name", seed={"0": other}).bind(graph).tree.fingerprint != bound.tree.fingerprint


def propose(strategy, bound, count):
    """Drive a strategy with losses that tell every configuration apart; wide logarithms are the best."""
    order = {config: i for i, config in enumerate(every(bound))}
    proposals = []
    for number in range(count):
        asked = strategy.ask(1)
        if not asked:
            break
        loss = order[asked[0]] / SIZE - 10 * (asked[0].get("0.log.weight") == "log(width=8, exponent_bias=63)")
        strategy.tell([Trial(number, asked[0], "complete", {"loss": loss, "cost": float(order[asked[0]])})])
        proposals.append(asked[0])
    return proposals


@pytest.mark.parametrize("objectives", [("loss",), ("loss", "cost")])
@pytest.mark.parametrize(
    ("sampler", "settings"),
    [("tpe", {}), ("tpe", {"group": True}), ("random", {}), ("nsgaii", {}), ("nsgaiii", {}), ("bruteforce", {})],
)
def test_optunas_samplers_search_families_with_lists_of_their_own(problem_of, bound, sampler, settings, objectives):
    settings = {**settings, "population_size": 10} if sampler.startswith("nsga") else settings
    problem = problem_of(bound.tree, objectives=objectives)
    made = OptunaStrategy(problem, 0, OptunaSettings(sampler=sampler, sampler_settings=settings))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        proposals = propose(made, bound, 120)
    assert all(bound.tree.check(config) == config for config in proposals)
    assert {config["0.name"] for config in proposals} == {"integer", "minifloat_ieee", "block_fp", "log", "float"}
    if sampler == "bruteforce":
        assert sorted(map(dict.__repr__, map(dict, proposals))) == sorted(map(dict.__repr__, map(dict, every(bound))))
    elif sampler == "tpe" and len(objectives) == 1:
        assert [config["0.name"] for config in proposals[-40:]].count("log") >= 16  # at random it is 8


def test_brute_force_lists_every_family(problem_of, bound):
    proposals = propose(BruteForce(problem_of(bound.tree), 0, BruteForce.Settings()), bound, 1000)
    assert len(set(proposals)) == len(proposals) == SIZE


def test_a_search_over_families_measures_each(graph):
    rows = torch.randn(30, 4), torch.randint(0, 3, (30,))
    study = pb.search(
        graph.model, space=pb.Quantize(by="name", seed={"0": ENTRY}), val=rows, minimize=["loss", "model_size"]
    )
    assert study.counts()["complete"] == SIZE
    assert len({trial.metrics["loss"] for trial in study}) > SIZE // 2


def test_a_family_without_a_table_takes_what_is_said_for_all(graph):
    shared = {"name": ["integer", "log"], "weight_width": [4, 8], "integer": {"weight_frac_width": [1, 2]}}
    bound = Quantize(by="name", seed={"0": shared}).bind(graph)
    assert bound.tree.size == 4 + 2
    whole = {"name": ["integer", "fp8_e4m3"], "integer": {"data_in_width": 8, "weight_width": [4, 8]}}
    found = Quantize(by="name", seed={"0": whole}).bind(graph)
    assert found.tree.size == 3
    last = found.formats(found.tree.at(2))["0"]
    assert {slot: f.name for slot, f in last.items()} == {"data_in": "fp8_e4m3", "weight": "fp8_e4m3"}


def test_a_familys_table_goes_before_what_is_said_for_all(graph):
    entry = {"name": ["integer", "log"], "weight": ["float"], "log": {"weight_width": [4, 8]}}
    bound = Quantize(by="name", seed={"0": entry}).bind(graph)
    found = [bound.formats(config)["0"].get("weight") for config in every(bound)]
    assert [f and f.width for f in found] == [None, 4, 8]


def test_knobs_of_a_slot_that_is_not_there_go_from_every_family(graph):
    entry = {
        "name": ["integer", "log"],
        "integer": {"data_in_width": [4, 8], "bias_width": [8, 16]},
        "log": {"data_in_width": 8, "bias_width": [6, 8]},
    }
    model = nn.Sequential(nn.Linear(4, 3, bias=False))
    bound = Quantize(seed={"linear": entry}).bind(pb.trace(model, torch.randn(1, 4)))
    assert bound.tree.size == 3
    assert {d.knob: d.reason for d in bound.dropped} == {
        "0.integer.bias_width": "the layer has no bias",
        "0.log.bias_width": "the layer has no bias",
    }


def test_a_choice_of_format_without_any_slot_to_fill_is_dropped(graph):
    entry = {"name": ["integer", "NA"], "weight_width": [4, 8]}
    bound = Quantize(seed={"default": entry}).bind(graph)
    assert [knob.name for knob in bound.tree.knobs] == ["0.name", "2.name"]
    assert {d.knob for d in bound.dropped} == {"1.name", "1.weight_width"}


BOTH = {"name": ["integer", "log"], "integer": {"weight_width": 8}}


@pytest.mark.parametrize(
    ("entry", "key", "message"),
    [
        ({"name": ["integer"], "log": {"weight_width": 8}}, "log", "does not choose this format"),
        ({"weight_width": 8, "log": {"weight_width": 8}}, "log", "does not choose this format"),
        ({"name": ["integer", "log"], "log": {"weight_frac_width": 2}}, "log.weight_frac_width", "has the param"),
        ({"name": ["integer", "log"], "log": {"wieght_width": 2}}, "log.wieght_width", "did you mean 'weight_w"),
        ({"name": ["integer", "log"], "log": {"name": "log"}}, "log.name", "no name of its own"),
        ({"name": ["integer", "log"], "log": 8}, "log", "not a table"),
        ({**BOTH, "log": {"weight_width": [8, -1]}}, "log.weight_width", "found -1"),
        ({**BOTH, "log": {"weight_width": [8, 8]}}, "log.weight_width", "listed twice"),
    ],
)
def test_tables_that_do_not_fit_are_refused_where_they_stand(graph, entry, key, message):
    with pytest.raises(BadInput, match=message) as refused:
        Quantize(seed={"linear": entry}).bind(graph)
    assert refused.value.key == f"seed.linear.{key}"


def test_only_allowed_pairs_are_left_of_every_family(graph):
    integers = ["integer(width=4)", "integer(width=8)"]
    entry = {"name": ["integer", "log"], "integer": {"data_in": integers, "weight": integers}}
    entry["log"] = {"data_in": ["log(width=8)"], "weight": ["log(width=4)", "log(width=8)"]}
    allowed = [["integer(width=8)", "integer"], ["log", "log(width=8)"]]
    bound = Quantize(by="name", seed={"0": entry}, allowed=allowed).bind(graph)
    found = [tuple(str(f) for f in list(bound.formats(c)["0"].values())[:2]) for c in every(bound)]
    assert [(d.partition("(")[0], w.partition(",")[0]) for d, w in found] == [
        ("integer", "integer(width=4"), ("integer", "integer(width=8"), ("log", "log(width=8"),
    ]  # fmt: skip
