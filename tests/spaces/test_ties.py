"""Layers are tied by hand, by a tensor that is stored once, or by one they all read; never by chance."""

import json
import tomllib

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

import paretobit as pb
from paretobit.document import dump
from paretobit.errors import BadInput
from paretobit.formats import FULL, Integer
from paretobit.spaces import Prune, Quantize
from paretobit.strategies.insight.groups import knob_groups

WIDTHS = {"data_in_width": [4, 8], "weight_width": [4, 8]}
WEIGHTS = {"weight": ["integer(width=4)", "integer(width=8)"]}


@pytest.fixture(scope="module")
def blocks():
    """Five linear layers: a stem, two in each of two blocks."""
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("stem", nn.Linear(6, 6))
    for name in ("a", "b"):
        net.add_module(name, nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6, bias=False)))
    return pb.trace(net, torch.randn(1, 6))


def names(bound):
    return [knob.name for knob in bound.tree.all_knobs()]


def explained(bound, index):
    return type_of(bound).explain(json.loads(json.dumps(bound.describe())), bound.tree.at(index))


def type_of(bound):
    return Prune if "Prune" in type(bound).__name__ else Quantize


def refused(graph, **arguments):
    with pytest.raises(BadInput) as error:
        Quantize(**arguments).bind(graph)
    return str(error.value)


# By hand


@pytest.mark.parametrize("tie", [["a_0", "b_0"], ["a.0", "b.0"], ["b_0", "regex:a.0"], [r"regex:[ab]\.0"], [r"[ab]_0"]])
def test_tied_layers_share_one_set_of_knobs_under_the_first_name(blocks, tie):
    bound = Quantize(seed={"linear": WIDTHS}, tie=[tie]).bind(blocks)
    prefixes = ["stem", "a_0", "a_2", "b_2"]
    assert names(bound) == [f"{prefix}.{knob}" for prefix in prefixes for knob in WIDTHS]
    assert bound.tree.size == 4**4
    assert set(bound.matched) == {"stem", "a_0", "a_2", "b_0", "b_2"}
    for index in (0, 37, 255):
        formats = bound.formats(bound.tree.at(index))
        assert formats["a.0"] == formats["b.0"]
        spelt = explained(bound, index)
        assert spelt["a_0"] == spelt["b_0"]
        assert spelt["a_0"]["config"]["weight_width"] == formats["b.0"]["weight"].width
    different = {formats["a.2"]["weight"] == formats["b.2"]["weight"] for formats in every(bound)}
    assert different == {True, False}
    assert bound.acts_on()["a_0.weight_width"] == ("a.0", "b.0")


def every(bound):
    return [bound.formats(bound.tree.at(i)) for i in range(bound.tree.size)]


def test_the_path_of_a_module_ties_all_within_it_and_keys_may_differ_where_entries_do_not(blocks):
    seed = {"a.0": WIDTHS, "a.2": WIDTHS, "b.2": dict(WIDTHS), "stem": WEIGHTS}
    bound = Quantize(by="name", seed=seed, tie=[["a", "b"]]).bind(blocks)
    assert names(bound) == ["stem.weight", "a_0.data_in_width", "a_0.weight_width"]
    formats = bound.formats(bound.tree.at(3))
    assert formats["a.0"]["weight"] == formats["a.2"]["weight"] == formats["b.2"]["weight"] == Integer(8)
    assert set(formats["a.2"]) == {"data_in", "weight"}  # no bias, no format for one


def test_layers_of_two_types_are_tied_where_knobs_are_shared_by_type(blocks):
    seed = {"linear": {"data_in_width": [4, 8]}, "relu": {"data_in_width": [4, 8]}}
    alone = Quantize(seed=seed, share="type").bind(blocks)
    tied = Quantize(seed=seed, share="type", tie=[["a.1", "a.0"]]).bind(blocks)
    assert (alone.tree.size, tied.tree.size) == (4, 2)
    assert names(tied) == ["linear.data_in_width"]


@pytest.mark.parametrize(
    ("tie", "message"),
    [
        ([["a_0", "a_1"]], "the space does not vary this layer (tie): found 'a_1'"),
        ([["a_0", "c_0"]], "no layer of the model has this name (tie): found 'c_0'"),
        ([["a_0"]], "this ties nothing"),
        ([["a_0", "a.0"]], "this ties nothing"),
        ([["a_0", "stem"]], "tied layers have different entries (tie): found ['stem', 'a_0']"),
        ([["regex:a["]], "not a regular expression"),
        ([[]], "not a tie"),
        ([[3]], "not a tie"),
        (["outputs"], "not a tie"),
        (3, "not a list of ties"),
    ],
)
def test_a_tie_that_cannot_be_is_refused(blocks, tie, message):
    seed = {r"[ab]_[02]": WIDTHS, "stem": WEIGHTS}
    assert message in refused(blocks, by="regex", seed=seed, tie=tie)


def test_ties_survive_toml(blocks):
    for tie in ("inputs", [["a_0", "b_0"], "inputs", ["regex:.*2"]]):
        space = Quantize(seed={"linear": WIDTHS}, tie=tie)
        again = Quantize.from_settings(tomllib.loads(dump(space.to_settings())))
        assert again.bind(blocks).tree == space.bind(blocks).tree
        assert again.to_settings() == space.to_settings()
    pruned = Prune(seed={"linear": {"sparsity": [0.0, 0.5]}}, tie=[["a_0", "b_0"]])
    assert Prune.from_settings(tomllib.loads(dump(pruned.to_settings()))).to_settings() == pruned.to_settings()


def test_sparsities_are_tied_like_formats(blocks):
    bound = Prune(seed={"linear": {"sparsity": [0.0, 0.5]}}, tie=[["a", "b"]]).bind(blocks)
    assert names(bound) == ["stem.sparsity", "a_0.sparsity"]
    assert set(bound.weights(bound.tree.at(1))) == {f"{path}.weight" for path in ("a.0", "a.2", "b.0", "b.2")}
    assert {spelt["config"]["sparsity"] for name, spelt in explained(bound, 1).items() if name != "stem"} == {0.5}
    with pytest.raises(BadInput, match="not a list"):
        Prune(seed={"linear": {"sparsity": [0.0]}}, tie="inputs")


def test_a_tied_configuration_computes_what_its_formats_say(blocks):
    bound = Quantize(seed={"linear": WEIGHTS}, tie=[["a", "b"]]).bind(blocks)
    model, x = bound.prepare(), torch.randn(3, 6)
    bound.apply(model, bound.tree.at(1))  # the stem at 4 bits, the others at 8
    expected = x
    with torch.no_grad():
        for layer in blocks.model.modules():
            if isinstance(layer, nn.Linear):
                width = 4 if layer is blocks.model.stem else 8
                expected = F.linear(expected, Integer(width).quantize(layer.weight), layer.bias)
            elif isinstance(layer, nn.ReLU):
                expected = torch.relu(expected)
        assert torch.allclose(model(x), expected, atol=1e-6)


# Because a tensor is stored once


class Shared(nn.Module):
    """An embedding whose table writes the output too, and one layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.read, self.twice, self.write = nn.Embedding(10, 6), nn.Linear(6, 6), nn.Linear(6, 10, bias=False)
        self.write.weight = self.read.weight

    def forward(self, x):
        return self.write(self.twice(self.twice(self.read(x).mean(1))))


@pytest.fixture(scope="module")
def shared():
    torch.manual_seed(0)
    return pb.trace(Shared(), torch.zeros(1, 3, dtype=torch.long))


def test_a_table_that_two_layers_hold_has_one_format(shared):
    bound = Quantize(seed={"embedding": WEIGHTS, "linear": {**WEIGHTS, "data_in_width": [4, 8]}}).bind(shared)
    assert names(bound) == [*("read.weight", "twice.data_in_width", "twice.weight", "write.data_in_width")]
    assert [(d.knob, d.reason) for d in bound.dropped] == [("write.weight", "its tensor is that of 'read'")]
    assert bound.ties == {"write.weight": "its tensor is that of 'read'"}
    for index, formats in enumerate(every(bound)):
        assert formats["write"]["weight"] == formats["read"]["weight"]
        spelt = explained(bound, index)
        assert spelt["write"]["config"]["weight_width"] == formats["read"]["weight"].width
        assert spelt["write"]["config"]["data_in_width"] == formats["write"]["data_in"].width
    assert bound.acts_on()["read.weight"] == ("read", "write")
    (group,) = (g for g in knob_groups(bound) if "write" in g.paths)
    assert group.paths == ("read", "write")
    model = bound.prepare()
    bound.apply(model, bound.tree.at(0))
    assert model.read.slots["weight"] == model.write.slots["weight"] == Integer(4)


def test_a_layer_that_is_left_alone_follows_the_one_that_holds_its_table(shared):
    bound = Quantize(by="name", seed={"write": {**WEIGHTS, "data_in_width": [4, 8]}}).bind(shared)
    assert names(bound) == ["write.data_in_width", "write.weight"]
    assert bound.matched == ("read", "write")
    assert bound.ties == {"read.weight": "its tensor is that of 'write'"}
    for index, formats in enumerate(every(bound)):
        assert formats["read"] == {"weight": formats["write"]["weight"]}
        assert explained(bound, index)["read"]["config"]["weight_width"] == formats["write"]["weight"].width
    inputs = Quantize(by="name", seed={"write": {"data_in_width": [4, 8]}}).bind(shared)
    assert inputs.matched == ("write",)  # nothing is said of the table


def test_a_table_of_a_skipped_layer_stays_float_for_all(shared):
    bound = Quantize(seed={"default": {**WEIGHTS, "data_in_width": [4, 8]}}, skip=["write"]).bind(shared)
    assert names(bound) == ["twice.data_in_width", "twice.weight"]
    assert ("read.weight", "its weight is that of 'write', which is skipped") in [
        (d.knob, d.reason) for d in bound.dropped
    ]
    assert all(formats["read"] == {} for formats in every(bound))
    assert explained(bound, 0)["read"] == {"config": {"name": "NA"}}


def test_entries_that_contradict_each_other_on_one_table_are_refused(shared):
    seed = {"embedding": WEIGHTS, "linear": {"weight": ["integer(width=6)"]}}
    assert "share a tensor, and their entries differ in 'weight' (tie): found ['read', 'write']" in refused(
        shared, seed=seed
    )
    assert "entries differ" in refused(shared, seed={"embedding": {"name": "NA"}, "linear": WEIGHTS})


def test_a_choice_of_format_that_decides_nothing_more_is_dropped_with_its_slot(shared):
    entry = {"name": ["integer", "NA"], "weight_width": [4, 8]}
    bound = Quantize(seed={"embedding": entry, "linear": entry}).bind(shared)
    assert names(bound) == ["read.name", "read.weight_width", "twice.name", "twice.weight_width"]
    assert {d.knob for d in bound.dropped} == {"write.name", "write.weight_width"}
    assert bound.tree.size == 9


def test_one_set_of_knobs_for_all_layers_needs_no_tie(shared):
    bound = Quantize(seed={"default": WEIGHTS}, share="type").bind(shared)
    assert (bound.tree.size, bound.ties) == (2, {})
    formats = bound.formats(bound.tree.at(0))
    assert formats["read"]["weight"] == formats["write"]["weight"] == formats["twice"]["weight"]


def test_pairs_that_a_device_multiplies_hold_for_a_borrowed_format_too(shared):
    entry = {"data_in": ["integer(width=8)"], "weight": ["integer(width=4)", "integer(width=8)"]}
    seed = {"embedding": {"weight": entry["weight"]}, "linear": entry}
    every_pair = [["integer(width=8)", "integer"]]
    bound = Quantize(seed=seed, allowed=every_pair).bind(shared)
    assert bound.tree.size == 4
    message = refused(shared, seed=seed, allowed=[["integer(width=8)", "integer(width=8)"]])
    assert "'write' takes a format from elsewhere" in message


def test_a_function_and_a_layer_of_one_parameter_have_one_format():
    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.read = nn.Embedding(10, 6)

        def forward(self, x):
            return F.linear(self.read(x).mean(1), self.read.weight)

    graph = pb.trace(Written(), torch.zeros(1, 3, dtype=torch.long))
    bound = Quantize(seed={"embedding": WEIGHTS}).bind(graph)
    assert bound.tree.size == 2
    assert bound.formats(bound.tree.at(1)) == {"read": {"weight": Integer(8)}, "linear": {"weight": Integer(8)}}


def test_gpt2_writes_with_the_table_it_reads():
    config = GPT2Config(vocab_size=32, n_positions=8, n_embd=8, n_layer=1, n_head=2, use_cache=False)
    graph = pb.trace(GPT2LMHeadModel(config).eval(), torch.zeros(1, 4, dtype=torch.long))
    bound = Quantize(seed={"linear": WEIGHTS, "embedding": WEIGHTS}).bind(graph)
    formats = bound.formats(bound.tree.at(0))
    assert formats["lm_head"] == formats["transformer.wte"] == {"weight": Integer(4)}
    assert {k.partition(".")[0] for k in names(bound)} >= {"transformer_wte", "transformer_wpe"}
    assert "lm_head.weight" not in names(bound)


# Because they read the same tensor


class Attention(nn.Module):
    """Heads that read one tensor, a residual sum, and two layers behind a view of it."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(4, 4) for _ in range(4))
        self.first, self.second = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x):
        y = self.out(self.q(x) * self.k(x) + self.v(x)) + x
        joined = torch.cat([y, y], 1)
        return self.first(joined) + self.second(joined.view(-1, 8))


@pytest.fixture(scope="module")
def attention():
    torch.manual_seed(0)
    return pb.trace(Attention(), torch.randn(2, 4))


def test_what_reads_one_tensor_can_share_its_format(attention):
    seed = {"linear": {"data_in_width": [4, 8], "weight_width": [4, 8]}}
    free, tied = (Quantize(seed=seed, tie=tie).bind(attention) for tie in ((), "inputs"))
    assert (free.tree.size, tied.tree.size) == (4**6, 2 * 2**3 * 4 * 2 * 2**2)
    assert free.ties == {}
    assert tied.ties == {
        "k.data_in": "its input is that of 'q'",
        "v.data_in": "its input is that of 'q'",
        "second.data_in": "its input is that of 'first'",
    }
    assert {d.knob for d in tied.dropped} == {"k.data_in_width", "v.data_in_width", "second.data_in_width"}
    for index in (0, 17, tied.tree.size - 1):
        formats = tied.formats(tied.tree.at(index))
        assert formats["q"]["data_in"] == formats["k"]["data_in"] == formats["v"]["data_in"]
        assert formats["first"]["data_in"] == formats["second"]["data_in"]
    assert tied.acts_on()["q.data_in_width"] == ("q", "k", "v")


def test_both_sides_of_a_residual_sum_share_it_where_the_sum_varies(attention):
    seed = {"linear": {"data_in_width": [4, 8]}, "add": {"data_in_width": [4, 8]}}
    bound = Quantize(seed=seed, tie="inputs").bind(attention)
    assert bound.ties["add_1.data_in"] == "its input is that of 'q'"  # it adds what q, k and v read
    assert "add.data_in" not in bound.ties
    assert "add_2.data_in" not in bound.ties
    assert "entries differ in 'data_in'" in refused(
        attention, seed={**seed, "add": {"data_in_width": [4, 6]}}, tie="inputs"
    )


def test_inputs_and_ties_by_hand_go_together(attention):
    seed = {"linear": {"data_in_width": [4, 8], "weight_width": [4, 8]}}
    bound = Quantize(seed=seed, tie=["inputs", ["q", "k"]]).bind(attention)
    assert bound.tree.size == 4 * 2 * 4 * 4 * 2  # q with k; v; out; first; second
    formats = bound.formats(bound.tree.at(0))
    assert formats["q"] == formats["k"]
    assert formats["v"]["data_in"] == formats["q"]["data_in"]


# Size


def test_a_tied_space_of_10_to_the_25_is_counted_and_sampled_at_once():
    net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(60)))
    graph = pb.trace(net, torch.randn(1, 4))
    widths = {"data_in_width": list(range(2, 18)), "weight_width": list(range(2, 18))}
    bound = Quantize(seed={"linear": widths}, tie=[[str(i), str(i + 1)] for i in range(0, 60, 2)]).bind(graph)
    assert bound.tree.size == 256**30 > 10**25
    same = Quantize(seed={"linear": widths}, tie=[[str(i + 1), str(i)] for i in range(0, 60, 2)]).bind(graph)
    assert same.tree.fingerprint == bound.tree.fingerprint
    assert Quantize(seed={"linear": widths}).bind(graph).tree.fingerprint != bound.tree.fingerprint
    last = bound.formats(bound.tree.at(bound.tree.size - 1))
    assert {slots["weight"] for slots in last.values()} == {Integer(17)}
    assert all(slots.get("data_in", FULL) == Integer(17) for slots in last.values())
