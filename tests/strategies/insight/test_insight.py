"""What was computed once and stored tells the same as what computes it."""

import json
import math

import pytest

from paretobit.errors import BadInput
from paretobit.spaces.knobs import Config, Knob, Option, Tree
from paretobit.strategies.insight.insight import UNSCORED, Group, ScoreTable, StoredInsight, assembled, store

WIDTH = Knob("width", (Option("full"), Option("int", (Knob.of("bits", [4, 8]),))))
TREE = Tree((Knob.of("multiplier", [1, 2]), WIDTH, Knob.of("correction", ["none", "bias"])))


def table(factor):
    options = (Config({"width": "full"}), Config({"width": "int", "bits": 4}), Config({"width": "int", "bits": 8}))
    return ScoreTable((Group("layer", options, (0.0, math.inf, 0.1 * factor)),), 1.5, {"int4": "not finite"})


class Computed:
    """An insight that counts what it computes."""

    tables = ("diagonal", "kl")
    outer, choices = Tree(TREE.knobs[:1]), Tree(TREE.knobs[2:])

    def __init__(self):
        self.asked = []

    def table(self, name, outer, around=None):
        self.asked.append((name, dict(outer)))
        return table(outer["multiplier"] * (1 if name == "diagonal" else 3))

    def costs(self, config):
        return {"cost": float(config["multiplier"])}


def test_a_table_survives_strict_json():
    text = json.dumps(table(0.1).to_json(), allow_nan=False)
    assert ScoreTable.from_json(json.loads(text)) == table(0.1)
    assert ScoreTable.from_json(table(1).to_json()).groups[0].scores[1] == math.inf


def test_stored_evidence_tells_what_the_live_one_does():
    live = Computed()
    outer = [live.outer.at(i) for i in range(live.outer.size)]
    stored = json.loads(json.dumps(store(live, outer), allow_nan=False))
    again = StoredInsight(TREE, stored, live.costs)
    assert again.tables == live.tables
    assert (again.outer, again.choices) == (live.outer, live.choices)
    for name in live.tables:
        for config in outer:
            assert again.table(name, config) == live.table(name, config)
    assert again.costs(TREE.at(0)) == live.costs(TREE.at(0))


def test_only_what_was_stored_can_be_asked():
    live = Computed()
    again = StoredInsight(TREE, store(live, [live.outer.at(0)], ["kl"]), live.costs)
    assert live.asked == [("kl", {"multiplier": 1})]
    for name, outer, around in (
        ("diagonal", live.outer.at(0), None),
        ("kl", live.outer.at(1), None),
        ("kl", live.outer.at(0), TREE.at(0)),
    ):
        with pytest.raises(BadInput, match="the table was not stored"):
            again.table(name, outer, around)


def test_an_unscored_table_is_stored_and_no_evidence():
    class Bare(Computed):
        tables = ()

    live = Bare()
    again = StoredInsight(TREE, store(live, [live.outer.at(0)]), live.costs)
    assert again.tables == ()
    assert again.table(UNSCORED, live.outer.at(0)) == live.table(UNSCORED, live.outer.at(0))


def test_parts_make_a_configuration_in_the_order_of_the_tree():
    parts = {"correction": "bias"}, {"width": "int", "bits": 8}, {"multiplier": 2}
    config = assembled(TREE, *parts)
    assert list(config.items()) == [("multiplier", 2), ("width", "int"), ("bits", 8), ("correction", "bias")]
    later = assembled(TREE, *parts, {"width": "full"})
    assert list(later) == ["multiplier", "width", "correction"]  # what no option owns any more is gone
    with pytest.raises(BadInput):
        assembled(TREE, *parts, {"bits": 5})
