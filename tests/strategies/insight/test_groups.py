"""Knobs of one layer are decided together; their options are all there are, or the best of each size."""

import time

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.data.calibration import Calibration
from paretobit.spaces.knobs import Config, Tree
from paretobit.strategies.insight.groups import MOST_OPTIONS, PRUNED, Treatments, knob_groups, options_of
from paretobit.strategies.insight.insight import UNSCORED
from paretobit.strategies.insight.model_insight import ModelInsight
from paretobit.trials.evidence import Evidence

WIDTHS = {"data_in_width": [4, 8], "weight_width": [4, 8]}
FAMILIES = {
    "name": ["integer", "minifloat_ieee", "NA"],
    "data_in_width": [6, 8],
    "weight_width": [6, 8],
    "data_in_exponent_width": 3,
    "weight_exponent_width": 3,
}


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    return pb.trace(net.eval(), torch.zeros(1, 6))


def names(groups):
    return [[knob.name for knob in group.knobs] for group in groups]


def keep_all(group, choices, around, places):
    return choices


def test_every_layer_has_a_group_of_its_own_knobs(graph):
    groups = knob_groups(pb.Quantize(seed={"linear": WIDTHS}).bind(graph))
    assert names(groups) == [[f"{i}.data_in_width", f"{i}.weight_width"] for i in (0, 2, 4)]
    assert [group.paths for group in groups] == [("0",), ("2",), ("4",)]


def test_formats_and_sparsity_of_a_layer_go_together(graph):
    prune = pb.Prune(by="name", seed={"2": {"sparsity": [0.0, 0.5]}})
    groups = knob_groups((pb.Quantize(seed={"linear": WIDTHS}) * prune).bind(graph))
    assert names(groups)[1] == ["2.data_in_width", "2.weight_width", "2.sparsity"]
    assert len(groups) == 3
    assert names(knob_groups(prune.bind(graph))) == [["2.sparsity"]]


def test_layers_that_share_knobs_are_one_group(graph):
    tied = pb.Quantize(seed={"linear": WIDTHS}, tie=[["0", "4"]]).bind(graph)
    assert [group.paths for group in knob_groups(tied)] == [("0", "4"), ("2",)]
    typed = pb.Quantize(seed={"linear": WIDTHS}, share="type")
    assert [group.paths for group in knob_groups(typed.bind(graph))] == [("0", "2", "4")]
    joined = knob_groups((typed * pb.Prune(seed={"linear": {"sparsity": [0.0, 0.5]}})).bind(graph))
    assert [len(group.knobs) for group in joined] == [5]  # the shared formats join what is pruned apart


def test_knobs_of_shapes_and_corrections_are_in_no_group(graph):
    calibration = Calibration((torch.randn(8, 6),))
    widths = pb.ChannelMultiplier(by="group", seed={"0": [1, 2]})
    correct = pb.Correct(options=["none", "bias"])
    bound = (pb.Quantize(seed={"linear": WIDTHS}) * widths * correct).bind(graph, calibration)
    assert names(knob_groups(bound)) == [[f"{i}.data_in_width", f"{i}.weight_width"] for i in (0, 2, 4)]
    assert knob_groups(widths.bind(graph)) == ()


@pytest.mark.parametrize("entry", [WIDTHS, FAMILIES, {"weight": ["integer(width=4)", "NA"]}], ids=str)
def test_options_of_a_small_group_are_all_of_its_configurations(graph, entry):
    bound = pb.Quantize(by="name", seed={"2": entry}).bind(graph)
    (group,) = knob_groups(bound)
    options = options_of(Treatments(bound, bound.tree.at(0)), group, keep_all)
    assert [Config(option) for option in options] == [bound.tree.at(i) for i in range(bound.tree.size)]


def test_units_are_what_layers_carry(graph):
    prune = pb.Prune(by="name", seed={"2": {"sparsity": [0.0, 0.5]}})
    bound = (pb.Quantize(seed={"linear": {**WIDTHS, "bias_width": 8}}) * prune).bind(graph)
    treatments = Treatments(bound, bound.tree.at(0))
    group = knob_groups(bound)[1]
    for index in range(group.tree.size):
        values = dict(group.tree.at(index))
        config = treatments.config(values)
        assert dict(bound.tree.check(config)) == dict(config)
        units = treatments.units(group, values)
        formats = bound.formats(config)["2"]
        assert {slot: unit[2] for (_, slot), unit in units.items() if slot != PRUNED} == formats
        assert (("2", PRUNED) in units) == (values["2.sparsity"] > 0)
        named = treatments.units(group, values, [("2", PRUNED), ("2", "weight")])
        assert named["2", PRUNED][2] == (None if values["2.sparsity"] == 0 else units["2", PRUNED][2])


def insight_of(graph, space, calibration):
    bound = space.bind(graph, calibration)
    return bound, ModelInsight(bound, Evidence(graph, {}, calibration), lambda config: {}, 0)


def options_by_size(group, knobs):
    """`(data width, weight width)` to the scores of the options of that size."""
    found = {}
    for option, score in zip(group.options, group.scores, strict=True):
        found.setdefault(tuple(option[f"2.{knob}"] for knob in knobs), []).append(score)
    return found


def test_a_huge_group_keeps_the_least_harmful_of_each_size(graph):
    widths, fractions = [3, 4, 5, 6, 8], list(range(1, 9))
    entry = {"data_in_width": widths, "data_in_frac_width": fractions}
    entry |= {"weight_width": widths, "weight_frac_width": fractions}
    calibration = Calibration((torch.randn(24, 6, generator=torch.Generator().manual_seed(3)),))
    bound, insight = insight_of(graph, pb.Quantize(by="name", seed={"2": entry}), calibration)
    assert bound.tree.size == (5 * 8) ** 2 > MOST_OPTIONS
    for name in insight.tables:
        (group,) = insight.table(name, Config({})).groups
        sizes = options_by_size(group, ("data_in_width", "weight_width"))
        assert sorted(sizes) == [(d, w) for d in widths for w in widths]
        assert all(len(scores) == 1 for scores in sizes.values())
        for slot in ("data_in", "weight"):
            best = {}
            for size in widths:
                one = {"2": {f"{slot}_width": size, f"{slot}_frac_width": fractions}}
                _, alone = insight_of(graph, pb.Quantize(by="name", seed=one), calibration)
                (own,) = alone.table(name, Config({})).groups
                scores = dict(zip([o[f"2.{slot}_frac_width"] for o in own.options], own.scores, strict=True))
                best[size] = min(scores, key=scores.get)
            chosen = {o[f"2.{slot}_width"]: o[f"2.{slot}_frac_width"] for o in group.options}
            assert chosen == best, (name, slot)


def test_families_under_one_name_keep_each_family_and_size(graph):
    widths, fractions = list(range(4, 10)), list(range(8))
    entry = {"name": ["integer", "minifloat_ieee", "NA"], "data_in_width": widths, "weight_width": widths}
    entry |= {"data_in_frac_width": fractions, "weight_frac_width": fractions}
    entry |= {"data_in_exponent_width": [2, 3], "weight_exponent_width": [2, 3]}
    calibration = Calibration((torch.randn(16, 6, generator=torch.Generator().manual_seed(3)),))
    bound, insight = insight_of(graph, pb.Quantize(by="name", seed={"2": entry}), calibration)
    assert bound.tree.size > MOST_OPTIONS
    (group,) = insight.table("diagonal", Config({})).groups
    kinds = [tuple(o.get(f"2.{k}") for k in ("name", "data_in_width", "weight_width")) for o in group.options]
    assert len(set(kinds)) == len(kinds) == 2 * 36 + 1
    assert all(bound.tree.check(option) for option in group.options)


def test_what_is_decided_apart_for_many_layers_is_thinned_and_keeps_both_ends():
    net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(40)))
    graph = pb.trace(net, torch.zeros(1, 4))
    prune = pb.Prune(seed={"linear": {"sparsity": [0.0, 0.5, 0.9]}})
    bound = (pb.Quantize(seed={"linear": WIDTHS}, share="type") * prune).bind(graph)
    (group,) = knob_groups(bound)
    assert group.tree.size > 10**18
    options = options_of(Treatments(bound, bound.tree.at(0)), group, keep_all)
    assert len(options) == len({Config(option) for option in options}) == MOST_OPTIONS
    everything = [Config(option) for option in options]
    assert bound.tree.at(0) in everything
    assert bound.tree.at(bound.tree.size - 1) in everything
    assert all(bound.tree.check(option) for option in everything[:50])


def test_a_space_of_10_to_the_25_is_grouped_and_scored_at_once():
    torch.manual_seed(0)
    net = nn.Sequential(*(layer for _ in range(13) for layer in (nn.Linear(4, 4), nn.Tanh())))
    graph = pb.trace(net.eval(), torch.zeros(1, 4))
    widths = {"data_in_width": list(range(2, 12)), "weight_width": list(range(2, 12))}
    begin = time.perf_counter()
    bound, insight = insight_of(graph, pb.Quantize(seed={"linear": widths}), Calibration((torch.randn(64, 4),)))
    assert bound.tree.size == 10**26
    for name in (UNSCORED, "diagonal"):
        table = insight.table(name, Config({}))
        assert [len(group.options) for group in table.groups] == [100] * 13
    assert time.perf_counter() - begin < 30  # an enumeration would not end


def test_a_group_is_a_tree_of_its_own(graph):
    (first, *_) = knob_groups(pb.Quantize(seed={"linear": FAMILIES}).bind(graph))
    assert isinstance(first.tree, Tree)
    assert first.first == dict(first.tree.at(0))
    assert first.names >= {"0.name", "0.data_in_width", "0.weight_width"}
