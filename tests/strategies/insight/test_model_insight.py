"""Evidence about a model is computed once, when it is asked for, for every shape apart."""

import json

import pytest
import torch
from many_cases import each
from torch import nn

import paretobit as pb
from paretobit.document import Document
from paretobit.spaces.knobs import Config
from paretobit.strategies.insight.insight import UNSCORED, StoredInsight, store
from paretobit.strategies.insight.model_insight import ModelInsight
from paretobit.trials.bench import Bench
from paretobit.workflow.assemble import evidence_for, make_runners

FORMATS = {"linear": {"data_in_width": [4, 8], "data_in_frac_width": 3, "weight_width": [3, 8]}}
NONE = Config({})


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(40, 6, generator=generator), torch.randint(0, 3, (40,), generator=generator)


@pytest.fixture
def insight_of(net, rows):
    def make(space, calibration=32, known=None, keep=lambda tables: None):
        evidence = evidence_for(net, {"val": rows}, calibration=calibration)
        bound = space.bind(evidence.graph, evidence.calibration)
        runners = make_runners(None, evidence, None, {}, Document())
        bench = Bench(bound, runners, 0)
        return bound, bench, ModelInsight(bound, evidence, bench.cheap_metrics, 0, known, keep)

    return make


def test_tables_of_gradients_are_computed_together_and_kept(insight_of):
    kept = []
    space = pb.Quantize(seed=FORMATS)
    _, _, insight = insight_of(space, keep=lambda tables: kept.append(json.dumps(tables, allow_nan=False)))
    assert kept == []  # nothing before it is asked for
    found = insight.table("diagonal", NONE)
    assert [len(json.loads(text)) for text in kept] == [2]
    directional = insight.table("directional", NONE)
    assert len(kept) == 1
    insight.table("kl", NONE)
    assert [len(json.loads(text)) for text in kept] == [2, 3]
    known = json.loads(kept[-1])
    key = next(name for name in known if name.startswith("diagonal"))
    known[key]["base"] = 77.0
    _, _, again = insight_of(space, known=known)
    assert again.table("diagonal", NONE).base == 77.0  # not computed anew
    assert again.table("directional", NONE) == directional
    assert again.table("diagonal", NONE).groups == found.groups


def test_without_calibration_rows_there_are_options_and_no_tables(insight_of):
    _, _, insight = insight_of(pb.Quantize(seed=FORMATS), calibration=0)
    assert insight.tables == ()
    table = insight.table(UNSCORED, NONE)
    assert [len(group.options) for group in table.groups] == [4, 4]
    assert {score for group in table.groups for score in group.scores} == {0.0}
    with pytest.raises(pb.BadInput, match="no such score table"):
        insight.table("diagonal", NONE)


def test_costs_are_those_of_a_trial(insight_of):
    bound, bench, insight = insight_of(pb.Quantize(seed=FORMATS))
    for index in range(0, bound.tree.size, 3):
        config = bound.tree.at(index)
        costs, measured = insight.costs(config), bench.evaluate(config).metrics
        assert costs == {name: measured[name] for name in costs}
        assert "total_bitops" in costs
        assert "loss" not in costs


def test_every_shape_has_tables_of_its_own(insight_of):
    space = pb.Quantize(seed=FORMATS) * pb.ChannelMultiplier(by="group", seed={"0": [1, 2]}) * pb.Correct()
    bound, _, insight = insight_of(space)
    assert [knob.name for knob in insight.outer.knobs] == ["0.multiplier"]
    assert [knob.name for knob in insight.choices.knobs] == ["correction"]
    outer = [insight.outer.at(i) for i in range(insight.outer.size)]
    tables = [insight.table("diagonal", config) for config in outer]
    assert tables[0] != tables[1]
    for config, table in zip(outer, tables, strict=True):
        alone = pb.Quantize(seed=FORMATS)
        local = insight_of(alone)[0]
        assert [g.options for g in table.groups] == [
            tuple(Config({k: v for k, v in o.items() if k.startswith(f"{name}.")}) for o in _options(local, name))
            for name in ("0", "3")
        ]
        model = bound.apply(bound.prepare(), bound.tree.check({**bound.tree.at(0), **config}))
        assert model[0].out_features == 8 * config["0.multiplier"]
    stored = json.loads(json.dumps(store(insight, outer), allow_nan=False))
    again = StoredInsight(bound.tree, stored, insight.costs)
    assert [again.table("diagonal", config) for config in outer] == tables
    assert (again.outer, again.choices, again.tables) == (insight.outer, insight.choices, insight.tables)


def _options(bound, name):
    """The options of one layer, in the order of its part of the tree."""
    seen = {}
    for index in range(bound.tree.size):
        config = bound.tree.at(index)
        own = tuple((k, v) for k, v in config.items() if k.startswith(f"{name}."))
        seen.setdefault(own, dict(own))
    return seen.values()


def test_a_correction_that_is_always_made_is_no_part_of_the_float_model(insight_of):
    plain = insight_of(pb.Quantize(seed=FORMATS))[2]
    always = insight_of(pb.Quantize(seed=FORMATS) * pb.Correct(options=["batch_norm"]))[2]
    assert always.choices.size == 1
    assert always.table("diagonal", NONE) == plain.table("diagonal", NONE)


def test_scores_do_not_depend_on_what_was_asked_before(insight_of):
    space = pb.Quantize(seed=FORMATS) * pb.Prune(by="name", seed={"0": {"sparsity": [0.0, 0.5]}}) * pb.Correct()
    bound, bench, insight = insight_of(space)
    first = insight.table("diagonal", NONE)
    far = bound.tree.at(bound.tree.size - 1)
    insight.table("diagonal", NONE, far)
    bench.evaluate(far)
    insight._known.clear()
    assert insight.table("kl", NONE) == insight_of(space)[2].table("kl", NONE)
    assert insight.table("diagonal", NONE) == first


def test_around_a_configuration_its_own_options_score_zero(insight_of):
    space = pb.Quantize(seed=FORMATS) * pb.Prune(by="name", seed={"0": {"sparsity": [0.0, 0.5]}}) * pb.Correct()
    bound, _, insight = insight_of(space)
    for index in (0, 21, bound.tree.size - 1):
        here = bound.tree.at(index)
        table = insight.table("directional", NONE, here)
        for group in table.groups:
            own = [s for o, s in zip(group.options, group.scores, strict=True) if all(here[k] == o[k] for k in o)]
            assert own == [0.0]
            assert any(score != 0 for score in group.scores)


def test_a_seed_draws_labels_of_its_own(net, rows):
    evidence = evidence_for(net, {"val": rows}, calibration=32)
    bound = pb.Quantize(seed=FORMATS).bind(evidence.graph, evidence.calibration)
    tables = [ModelInsight(bound, evidence, lambda c: {}, seed).table("directional", NONE) for seed in (0, 0, 1)]
    assert tables[0] == tables[1] != tables[2]


class Tagger(nn.Module):
    """Layers of one type, of two, or under autocast."""

    def __init__(self, size=1.0, dtype=torch.float32, cast=None, head=None):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 3)
        self.to(dtype)
        self.head.to(head or dtype)
        self.size, self.dtype, self.cast = size, dtype, cast

    def forward(self, x):
        with torch.autocast("cpu", self.cast or torch.bfloat16, enabled=self.cast is not None):
            inner = self.body(x.to(self.dtype))
            return self.head(inner if self.cast else inner.to(self.head.weight.dtype)) * self.size


HALF, SMALL = torch.float16, torch.bfloat16
TYPES = [{"dtype": torch.float64}, {"dtype": HALF}, {"dtype": SMALL}, {"cast": HALF}, {"cast": SMALL}]
TYPES += [{"dtype": HALF, "head": torch.float32}, {"dtype": SMALL, "head": torch.float32}]


@each("kind", TYPES)
@pytest.mark.parametrize("size", [1.0, 1e-4])  # squares of such gradients are zero in float16
def test_scores_do_not_depend_on_the_type_that_a_model_computes_in(rows, size, kind):
    def tables(**more):
        torch.manual_seed(0)
        net = Tagger(size, **more).eval()
        evidence = evidence_for(net, {"val": rows}, calibration=32)
        space = pb.Quantize(seed={"linear": {"weight": [f"scaled_integer(width={w})" for w in (2, 3)]}})
        insight = ModelInsight(space.bind(evidence.graph, evidence.calibration), evidence, lambda config: {}, 0)
        return {name: [g.scores for g in insight.table(name, NONE).groups] for name in ("diagonal", "directional")}

    expected = tables()
    for name, groups in tables(**kind).items():
        for own, exact in zip(groups, expected[name], strict=True):
            assert own == pytest.approx(exact, rel=0.4)  # bfloat16 keeps 8 bits of what changes
