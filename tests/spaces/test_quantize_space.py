"""The space `quantize`: which knobs a description makes on a model, and what a configuration means."""

import json
import tomllib
from itertools import product

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.document import dump
from paretobit.errors import BadInput
from paretobit.formats import FULL, Integer
from paretobit.models.zoo import MODELS
from paretobit.spaces import Quantize


@pytest.fixture(scope="module")
def three_linear():
    torch.manual_seed(0)
    return pb.trace(MODELS["jsc-three-linear"].build((16,), 5), torch.randn(1, 16))


@pytest.fixture
def branched():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3, bias=False), nn.ReLU(), nn.Conv1d(4, 4, 3), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(8, 3)
    )
    return pb.trace(model, torch.randn(1, 2, 8))


PAIRS = [{"width": 16, "frac_width": 8}, {"width": 8, "frac_width": 4}]


def names(bound):
    return [knob.name for knob in bound.tree.knobs]


def test_whole_formats_are_one_knob_a_slot(three_linear):
    bound = Quantize(by="type", seed={"linear": {"data_in": PAIRS, "weight": PAIRS}}).bind(three_linear)
    assert names(bound) == [f"seq_blocks_{i}.{slot}" for i in (2, 4, 6) for slot in ("data_in", "weight")]
    assert bound.tree.size == 2**6
    assert bound.tree.knobs[0].values == ("integer(width=16, frac_width=8)", "integer(width=8, frac_width=4)")
    formats = bound.formats(bound.tree.at(1))
    assert list(formats) == ["seq_blocks.2", "seq_blocks.4", "seq_blocks.6"]
    assert formats["seq_blocks.6"] == {"data_in": Integer(16, 8), "weight": Integer(8, 4), "bias": Integer(28, 12)}
    same = {"data_in": Integer(16, 8), "weight": Integer(16, 8)}
    assert formats["seq_blocks.2"] == same | {"bias": Integer(36, 16)}  # an unset bias is the accumulator's


def test_separate_lists_are_separate_knobs(three_linear):
    entry = {"data_in_width": [4, 8], "data_in_frac_width": [2, 3, 4], "weight_width": [8, 16], "bias_width": 32}
    bound = Quantize(by="name", seed={"seq_blocks_4": entry}).bind(three_linear)
    assert names(bound) == [f"seq_blocks_4.{p}" for p in ("data_in_width", "data_in_frac_width", "weight_width")]
    assert all(knob.ordered for knob in bound.tree.knobs)
    found = [bound.formats(bound.tree.at(i))["seq_blocks.4"] for i in range(bound.tree.size)]
    assert found == [
        {"data_in": Integer(w, f), "weight": Integer(ww), "bias": Integer(32)}
        for w, f, ww in product([4, 8], [2, 3, 4], [8, 16])
    ]


def test_layers_of_a_type_can_share_their_knobs(three_linear):
    seed = {"linear": {"data_in": PAIRS, "weight": PAIRS}, "relu": {"data_in": PAIRS}}
    bound = Quantize(by="type", seed=seed, share="type").bind(three_linear)
    assert sorted(names(bound)) == ["linear.data_in", "linear.weight", "relu.data_in"]
    assert bound.tree.size == 8
    for i in range(8):
        formats = bound.formats(bound.tree.at(i))
        assert formats["seq_blocks.2"] == formats["seq_blocks.4"] == formats["seq_blocks.6"]


def test_knobs_stand_in_the_order_in_which_the_layers_run(three_linear):
    seed = {"seq_blocks_6": {"weight": PAIRS}, "seq_blocks_1": {"data_in": PAIRS}, "seq_blocks_4": {"weight": PAIRS}}
    bound = Quantize(by="name", seed=seed).bind(three_linear)
    assert names(bound) == ["seq_blocks_1.data_in", "seq_blocks_4.weight", "seq_blocks_6.weight"]
    assert bound.matched == ("seq_blocks_1", "seq_blocks_4", "seq_blocks_6")
    assert bound.unmatched == tuple(f"seq_blocks_{i}" for i in (0, 2, 3, 5, 7))


@pytest.mark.parametrize(
    ("by", "key", "layers"),
    [
        ("type", "linear", (2, 4, 6)),
        ("type", "Linear", (2, 4, 6)),
        ("type", "BatchNorm1d", (0,)),
        ("type", "batch_norm1d", (0,)),
        ("name", "seq_blocks_4", (4,)),
        ("name", "seq_blocks.4", (4,)),
        ("regex", r"seq_blocks_[26]", (2, 6)),
        ("regex", r"seq_blocks\.[24]", (2, 4)),
    ],
)
def test_keys_choose_by_type_name_and_pattern(three_linear, by, key, layers):
    bound = Quantize(by=by, seed={key: {"weight": PAIRS}}).bind(three_linear)
    assert bound.matched == tuple(f"seq_blocks_{i}" for i in layers)


def test_a_choice_of_formats_owns_the_knobs_of_each(three_linear):
    entry = {"name": ["integer", "NA"], "data_in_width": [4, 8], "weight_width": [4, 8, 16]}
    bound = Quantize(by="name", seed={"seq_blocks_2": entry, "seq_blocks_4": entry}).bind(three_linear)
    assert names(bound) == ["seq_blocks_2.name", "seq_blocks_4.name"]
    assert bound.tree.size == 7 * 7
    configs = [bound.tree.at(i) for i in range(49)]
    floats = [c for c in configs if c["seq_blocks_2.name"] == "float"]
    assert len(floats) == 7
    assert all("seq_blocks_2.data_in_width" not in config for config in floats)
    assert all(bound.formats(config)["seq_blocks.2"] == {} for config in floats)
    assert len({json.dumps(Quantize.explain(bound.describe(), c)) for c in configs}) == 49


def test_na_among_whole_formats_is_full_precision(three_linear):
    bound = Quantize(by="name", seed={"seq_blocks_2": {"weight": [*PAIRS, "NA"], "data_in": "NA"}}).bind(three_linear)
    assert bound.tree.knobs[0].values[-1] == "float"
    assert bound.formats(bound.tree.at(2)) == {"seq_blocks.2": {}}


def test_scalars_are_fixed_and_make_no_knobs(three_linear):
    seed = {"linear": {"name": "integer", "data_in_width": 8, "weight": {"width": 4, "frac_width": 3}}}
    bound = Quantize(by="type", seed=seed).bind(three_linear)
    assert bound.tree.knobs == ()
    assert bound.tree.size == 1
    formats = bound.formats(bound.tree.at(0))
    expected = {"data_in": Integer(8), "weight": Integer(4, 3), "bias": Integer(16, 7)}  # the accumulator's
    assert formats["seq_blocks.6"] == expected


def test_formats_may_be_given_as_objects_tables_and_text(three_linear):
    ways = [Integer(8, 4), {"width": 6, "frac_width": 3}, "integer(width=4, frac_width=2)"]
    bound = Quantize(by="name", seed={"seq_blocks_2": {"weight": ways}}).bind(three_linear)
    found = [bound.formats(bound.tree.at(i))["seq_blocks.2"]["weight"] for i in range(3)]
    assert found == [Integer(8, 4), Integer(6, 3), Integer(4, 2)]


D, W = "data_in", "weight"
DEFAULTED = [(0, D), (0, W), (1, D), (2, D), (2, W), (3, D), (5, W)]


def test_the_default_entry_takes_the_layers_that_are_left(branched):
    seed = {"linear": {"weight": PAIRS}, "default": {"data_in": PAIRS, "weight": PAIRS}}
    bound = Quantize(by="type", seed=seed).bind(branched)
    assert bound.matched == ("0", "1", "2", "3", "5")
    assert names(bound) == [f"{i}.{slot}" for i, slot in DEFAULTED]
    assert bound.unmatched == ("4",)  # flattening has nothing to quantise
    assert [d.knob for d in bound.dropped] == ["1.weight", "3.weight"]


def test_knobs_of_a_bias_that_is_not_there_are_dropped_and_reported(branched):
    seed = {"conv1d": {"weight": PAIRS, "bias_width": [4, 8], "bias_frac_width": [1, 2]}}
    bound = Quantize(by="type", seed=seed).bind(branched)
    assert names(bound) == ["0.weight", "2.weight", "2.bias_width", "2.bias_frac_width"]
    assert [(d.knob, d.reason) for d in bound.dropped] == [
        ("0.bias_width", "the layer has no bias"),
        ("0.bias_frac_width", "the layer has no bias"),
    ]
    assert all("bias" not in bound.formats(bound.tree.at(i))["0"] for i in range(bound.tree.size))


def test_shared_knobs_stay_while_one_layer_has_the_slot(branched):
    seed = {"conv1d": {"name": ["integer", "NA"], "weight_width": 8, "bias_width": [4, 8]}}
    bound = Quantize(by="type", seed=seed, share="type").bind(branched)
    assert bound.tree.size == 3
    assert bound.dropped == ()
    formats = bound.formats(bound.tree.at(0))
    assert set(formats["0"]) == {"weight"}
    assert set(formats["2"]) == {"weight", "bias"}


def refused(graph, seed, by="type", **more):
    with pytest.raises(BadInput) as error:
        Quantize(by=by, seed=seed, **more).bind(graph)
    return error.value


@pytest.mark.parametrize(
    ("by", "seed", "key", "message"),
    [
        ("type", {"linaer": {"weight": PAIRS}}, "seed.linaer", "did you mean 'linear'"),
        ("type", {"conv2d": {"weight": PAIRS}}, "seed.conv2d", "no layer of the model has this type"),
        ("name", {"seq_block_2": {"weight": PAIRS}}, "seed.seq_block_2", "did you mean 'seq_blocks_2'"),
        ("regex", {"seq_[": {}}, "seed.seq_[", "not a regular expression"),
        ("type", {"linear": {"wieght": PAIRS}}, "seed.linear.wieght", "did you mean 'weight'"),
        ("type", {"linear": {"weight_widht": [4]}}, "seed.linear.weight_widht", "did you mean 'weight_width'"),
        ("type", {"linear": {"name": "intger"}}, "seed.linear.name", "did you mean 'integer'"),
        ("type", {"linear": {"name": ["integer", "intger"]}}, "seed.linear.name", "did you mean 'integer'"),
        ("type", {"linear": {"weight": []}}, "seed.linear.weight", "at least one option"),
        ("type", {"linear": {"weight_width": []}}, "seed.linear.weight_width", "at least one option"),
        ("type", {"linear": {"name": []}}, "seed.linear.name", "at least one option"),
        ("type", {"linear": {"weight_width": [8, -4]}}, "seed.linear.weight_width", "found -4"),
        ("type", {"linear": {"weight_width": -4}}, "seed.linear.weight_width", "found -4"),
        ("type", {"linear": {"weight_width": [8, 8.5]}}, "seed.linear.weight_width", "found 8.5"),
        ("type", {"linear": {"weight_width": [8, True]}}, "seed.linear.weight_width", "found True"),
        ("type", {"linear": {"weight_width": [8, 8]}}, "seed.linear.weight_width", "listed twice"),
        ("type", {"linear": {"weight": [{"width": 0}]}}, "seed.linear.weight.width", "found 0"),
        ("type", {"linear": {"weight": [{"width": 8}, {"width": 8, "frac_width": 4}]}}, None, "listed twice"),
        ("type", {"linear": {"weight": [8]}}, "seed.linear.weight", "not a format"),
        ("type", {"linear": {"weight_frac_width": [4]}}, None, "needs the parameter 'width'"),
        ("type", {"linear": {"name": ["NA", "integer"], "weight_frac_width": [4]}}, None, "needs the parameter"),
        ("type", {"linear": {"weight": PAIRS, "weight_width": 8}}, "seed.linear.weight", "both whole and by"),
        ("type", {"relu": {"weight": PAIRS}}, "seed.relu", "a relu layer has no slot 'weight'"),
        ("type", {"relu": {"bias_width": 8}}, "seed.relu", "a relu layer has no slot 'bias'"),
        ("type", {"linear": 8}, "seed.linear", "not a table"),
        ("type", {"linear": {"weight": PAIRS}, "Linear": {"bias": PAIRS}}, "seed.Linear", "chosen twice"),
        ("regex", {".*2": {"weight": PAIRS}, "seq_blocks_[2]": {}}, "seed.seq_blocks_[2]", "chosen twice"),
        ("type", {"linear": {"name": ["NA", "float"]}}, None, "listed twice"),
    ],
)
def test_a_description_that_does_not_fit_is_refused_where_it_stands(three_linear, by, seed, key, message):
    error = refused(three_linear, seed, by)
    assert message in str(error)
    if key is not None:
        assert error.key == key


def test_a_layer_that_cannot_be_quantised_is_refused(branched):
    assert "Flatten, which cannot be quantised" in str(refused(branched, {"4": {"data_in": PAIRS}}, "name"))


def test_a_default_that_is_left_with_no_layer_at_all_is_refused():
    graph = pb.trace(nn.Sequential(nn.Flatten(), nn.Dropout(0.1)), torch.randn(1, 4))
    assert "no layer that can be quantised" in str(refused(graph, {"default": {"weight": PAIRS}}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "typ", "seed": {"linear": {}}}, "did you mean 'type'"),
        ({"share": "nmae", "seed": {"linear": {}}}, "did you mean 'name'"),
        ({"seed": {}}, "names no layers"),
        ({"seed": None}, "not a table"),
    ],
)
def test_an_unknown_way_to_choose_or_share_is_refused(arguments, message):
    with pytest.raises(BadInput, match=message):
        Quantize(**arguments)


def test_settings_with_unknown_or_missing_keys_are_refused():
    with pytest.raises(BadInput, match="did you mean 'share'"):
        Quantize.from_settings({"seed": {"linear": {}}, "shaer": "type"})
    with pytest.raises(BadInput, match=r"missing key \(seed\)"):
        Quantize.from_settings({"by": "type"})


def test_a_large_space_is_counted_and_indexed_without_being_listed(three_linear):
    widths, fractions = list(range(1, 33)), list(range(17))
    slots = ("data_in", "weight", "bias")
    entry = {f"{slot}_width": widths for slot in slots} | {f"{slot}_frac_width": fractions for slot in slots}
    bound = Quantize(by="type", seed={"linear": entry}).bind(three_linear)
    assert bound.tree.size == (32 * 17) ** 9
    last = bound.formats(bound.tree.at(bound.tree.size - 1))
    assert last["seq_blocks.6"] == dict.fromkeys(("data_in", "weight", "bias"), Integer(32, 16))


def test_a_configuration_is_explained_as_the_reports_print_it(three_linear):
    lists = {"data_in_width": [4, 8], "data_in_frac_width": [4, 8], "weight_width": [4, 8]}
    lists |= {"weight_frac_width": [4, 8], "bias_width": [24, 8], "bias_frac_width": [4, 8]}
    bound = Quantize(by="name", seed={"seq_blocks_2": {"name": "integer", **lists}}).bind(three_linear)
    wanted = {
        "seq_blocks_2": {
            "config": {
                "name": "integer",
                "data_in_width": 4,
                "data_in_frac_width": 4,
                "weight_width": 8,
                "weight_frac_width": 8,
                "bias_width": 24,
                "bias_frac_width": 8,
            }
        }
    }
    chosen = {f"seq_blocks_2.{k}": v for k, v in wanted["seq_blocks_2"]["config"].items() if k != "name"}
    config = bound.tree.check(chosen)
    described = json.loads(json.dumps(bound.describe()))  # as the study keeps it
    assert Quantize.explain(described, config) == wanted
    assert json.dumps(Quantize.explain(described, config)) == json.dumps(wanted)  # in this order


def test_an_explanation_says_na_for_float_and_leaves_out_what_a_layer_lacks(branched):
    seed = {"conv1d": {"name": ["integer", "NA"], "weight_width": 8, "bias_width": 4}}
    bound = Quantize(by="type", seed=seed, share="type").bind(branched)
    quantised = Quantize.explain(bound.describe(), bound.tree.at(0))
    assert quantised["0"]["config"] == {"name": "integer", "weight_width": 8, "weight_frac_width": 4}
    assert quantised["2"]["config"]["bias_width"] == 4
    assert Quantize.explain(bound.describe(), bound.tree.at(1)) == {
        "0": {"config": {"name": "NA"}},
        "2": {"config": {"name": "NA"}},
    }


@pytest.mark.parametrize("share", ["name", "type"])
def test_settings_survive_toml(three_linear, share):
    seed = {
        "linear": {"name": ["NA", "integer"], "data_in_width": [4, 8], "weight": (Integer(8, 3), Integer(6))},
        "relu": {"data_in": [{"width": 8, "signed": False}, {"width": 4, "rounding": "floor"}]},
        "default": {"config": {"data_in": Integer(16), "weight_width": 12}},
    }
    space = Quantize(by="type", seed=seed, share=share)
    again = Quantize.from_settings(tomllib.loads(dump(space.to_settings())))
    ours, theirs = space.bind(three_linear), again.bind(three_linear)
    assert theirs.tree == ours.tree
    assert theirs.tree.fingerprint == ours.tree.fingerprint
    for i in range(ours.tree.size):
        assert theirs.formats(theirs.tree.at(i)) == ours.formats(ours.tree.at(i))
    assert again.to_settings() == space.to_settings()


def test_a_prepared_model_is_a_copy_that_computes_as_the_original(three_linear):
    bound = Quantize(by="type", seed={"linear": {"weight": PAIRS}}).bind(three_linear)
    prepared, x = bound.prepare(), torch.randn(8, 16)
    original = three_linear.model.eval()
    with torch.no_grad():
        expected = original(x.clone())
        assert torch.equal(prepared(x.clone()), expected)
        bound.apply(prepared, bound.tree.at(7))
        assert not torch.equal(prepared(x.clone()), expected)
        bound.apply(prepared, None)
        assert torch.equal(prepared(x.clone()), expected)
    assert {p.data_ptr() for p in prepared.parameters()}.isdisjoint(p.data_ptr() for p in original.parameters())
    assert type(original.seq_blocks[2]) is nn.Linear


def test_applying_sets_every_slot_of_every_varied_layer(three_linear):
    bound = Quantize(by="type", seed={"linear": {"data_in": PAIRS, "weight": PAIRS}}).bind(three_linear)
    prepared = bound.prepare()
    bound.apply(prepared, bound.tree.at(0))
    same = {"data_in": Integer(16, 8), "weight": Integer(16, 8)}
    assert prepared.seq_blocks[2].slots == same | {"bias": Integer(36, 16)}


FAMILIES = ["integer", "minifloat_ieee", "block_fp", "log", "binary", "mxfp4"]


def test_families_share_the_knobs_of_parameters_they_share(three_linear):
    entry = {
        "name": FAMILIES,
        "weight_width": [6, 8],
        "weight_exponent_width": [3, 4],
        "weight_block_size": [[1, 16], 32],
    }
    bound = Quantize(by="name", seed={"seq_blocks_2": entry}).bind(three_linear)
    configs = [bound.tree.at(i) for i in range(bound.tree.size)]
    assert bound.tree.size == 2 + 4 + 8 + 2 + 1 + 2
    found = {str(bound.formats(config)["seq_blocks.2"]["weight"]) for config in configs}
    assert len(found) == bound.tree.size
    assert "block_fp(width=8, exponent_width=4, exponent_bias=7, block_size=1x16)" in found
    assert [json.loads(json.dumps(dict(config))) for config in configs] == [dict(config) for config in configs]


def test_whole_tables_under_several_names_are_a_knob_for_each(three_linear):
    widths = [{"width": 8}, {"width": 6}]
    bound = Quantize(by="name", seed={"seq_blocks_2": {"name": ["integer", "log", "NA"], "weight": widths}}).bind(
        three_linear
    )
    assert [k.name for k in bound.tree.all_knobs()] == [
        "seq_blocks_2.name",
        "seq_blocks_2.weight.integer",
        "seq_blocks_2.weight.log",
    ]
    assert bound.tree.size == 5
    found = [bound.formats(bound.tree.at(i))["seq_blocks.2"].get("weight", FULL) for i in range(5)]
    assert [f.name for f in found] == ["integer", "integer", "log", "log", "float"]


def test_parameters_that_do_not_go_together_are_refused_before_any_work(three_linear):
    entry = {"name": "minifloat_ieee", "weight_width": [4, 8], "weight_exponent_width": [3, 4]}
    error = refused(three_linear, {"linear": entry})
    assert error.key == "seed.linear.weight_width"
    assert "found 4; allowed: 5 to 32" in str(error)


def test_formats_of_every_family_are_options_of_one_knob(three_linear):
    whole = ["integer(width=8)", "fp8_e4m3", "mxfp4", "nvfp4", "ternary", "scaled_integer(width=4, per=channel)"]
    bound = Quantize(by="type", seed={"linear": {"weight": whole, "data_in": [*whole, "NA"]}}).bind(three_linear)
    assert bound.tree.size == (6 * 7) ** 3
    formats = bound.formats(bound.tree.at(bound.tree.size - 1))["seq_blocks.2"]
    assert {slot: f.name for slot, f in formats.items()} == {"weight": "scaled_integer"}


class Residual(nn.Module):
    """Two layers and the functions between them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        y = torch.relu(self.first(x))
        return torch.matmul(self.second(y) + x, y.t())


@pytest.fixture
def residual():
    torch.manual_seed(0)
    return pb.trace(Residual(), torch.randn(3, 4))


def test_functions_have_knobs_like_layers(residual):
    seed = {"add": {"data_in": PAIRS}, "linear": {"weight": PAIRS}, "matmul": {"data_in": PAIRS, "weight": PAIRS}}
    bound = Quantize(seed=seed).bind(residual)
    assert names(bound) == ["first.weight", "second.weight", "add.data_in", "matmul.data_in", "matmul.weight"]
    assert bound.matched == ("first", "second", "add", "matmul")
    prepared, x = bound.prepare(), torch.randn(3, 4)
    with torch.no_grad():
        assert torch.equal(prepared(x), residual.model(x))
        bound.apply(prepared, bound.tree.at(31))
        narrow = Integer(8, 4)
        y = torch.relu(x @ narrow.quantize(residual.model.first.weight).t() + residual.model.first.bias)
        z = y @ narrow.quantize(residual.model.second.weight).t() + residual.model.second.bias
        z = narrow.quantize(narrow.quantize(z) + narrow.quantize(x)) @ narrow.quantize(y.t())
        assert torch.allclose(prepared(x), z, atol=1e-5)
        bound.apply(prepared, None)
        assert torch.equal(prepared(x), residual.model(x))
    explained = Quantize.explain(bound.describe(), bound.tree.at(31))
    assert explained["add"] == {"config": {"name": "integer", "data_in_width": 8, "data_in_frac_width": 4}}


def test_first_last_and_skipped_layers_are_left_out_of_the_rest(three_linear):
    fixed = {"name": "integer", "weight_width": 8}
    bound = Quantize(
        seed={"default": {"weight": PAIRS}}, first=fixed, last={"weight": [*PAIRS, "NA"]}, skip=["seq_blocks_0"]
    ).bind(three_linear)
    assert names(bound) == ["seq_blocks_4.weight", "seq_blocks_6.weight"]
    assert bound.tree.size == 6
    assert bound.formats(bound.tree.at(0))["seq_blocks.2"] == {"weight": Integer(8)}
    assert "seq_blocks.0" not in bound.formats(bound.tree.at(0))
    assert refused(three_linear, {"relu": {"data_in": PAIRS}}, first={"weight": []}).key == "first.weight"


BITS = {width: f"integer(width={width}, frac_width={width // 2})" for width in (4, 8, 16)}
ALLOWED = [["integer(width=8)", "integer(width=8)"], ["integer(width=8)", "integer(width=4)"]]
ALLOWED += [["integer(width=16)", "integer(width=16)"]]


def pairs_of(bound, path):
    """The pairs of all configurations, and how many configurations there are."""
    found = [bound.formats(bound.tree.at(i))[path] for i in range(bound.tree.size)]
    return [tuple(f[slot].width if slot in f else None for slot in ("data_in", "weight")) for f in found]


def test_a_space_holds_only_the_pairs_that_a_device_multiplies(three_linear):
    lists = {"data_in": list(BITS.values()), "weight": list(BITS.values())}
    bound = Quantize(by="name", seed={"seq_blocks_2": lists}, allowed=ALLOWED).bind(three_linear)
    assert sorted(pairs_of(bound, "seq_blocks.2")) == [(8, 4), (8, 8), (16, 16)]
    assert [knob.name for knob in bound.tree.all_knobs()] == [
        "seq_blocks_2.data_in",
        f"seq_blocks_2.weight[{BITS[8]}]",
        f"seq_blocks_2.weight[{BITS[16]}]",
    ]
    described = json.loads(json.dumps(bound.describe()))
    shown = [Quantize.explain(described, bound.tree.at(i))["seq_blocks_2"]["config"] for i in range(3)]
    assert [(c["data_in_width"], c["weight_width"]) for c in shown] == pairs_of(bound, "seq_blocks.2")
    several = Quantize(by="type", seed={"linear": lists}, share="type", allowed=ALLOWED).bind(three_linear)
    assert several.tree.size == 3


@pytest.mark.parametrize(
    ("entry", "pairs"),
    [
        ({"data_in": BITS[8], "weight": list(BITS.values())}, [(8, 4), (8, 8)]),
        ({"data_in": list(BITS.values()), "weight": BITS[4]}, [(8, 4)]),
        ({"data_in": [BITS[8], "NA"], "weight": [BITS[4], BITS[8]]}, [(8, 4), (8, 8)]),
        ({"data_in": [BITS[8], "NA"], "weight": [BITS[8], "NA"]}, [(8, 8), (None, None)]),
        (
            {"name": ["integer", "NA"], "data_in": [BITS[8]], "weight": list(BITS.values())},
            [(8, 4), (8, 8), (None, None)],
        ),
        ({"name": ["integer", "log"], "data_in_width": 8, "weight_width": 8}, [(8, 8)]),
        ({"data_in_width": [8], "weight_width": [4, 8]}, [(8, 4), (8, 8)]),
    ],
)
def test_options_without_a_pair_are_left_out(three_linear, entry, pairs):
    bound = Quantize(by="name", seed={"seq_blocks_2": entry}, allowed=ALLOWED).bind(three_linear)
    assert pairs_of(bound, "seq_blocks.2") == pairs


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"data_in_width": [8, 16], "weight_width": [8, 16]}, "searches formats by parameters"),
        ({"data_in": BITS[4], "weight": list(BITS.values())}, "no formats of 'seq_blocks_2' make a pair"),
        ({"weight": list(BITS.values())}, "no formats of 'seq_blocks_2' make a pair"),
        ({"name": ["log"], "data_in_width": 8, "weight_width": 8}, "no formats of 'seq_blocks_2' make a pair"),
    ],
)
def test_a_space_that_cannot_keep_to_the_pairs_is_refused(three_linear, entry, message):
    error = refused(three_linear, {"seq_blocks_2": entry}, "name", allowed=ALLOWED)
    assert message in str(error)
    assert error.key == "seed.seq_blocks_2.allowed"


def test_layers_that_multiply_nothing_keep_their_formats(three_linear):
    seed = {"relu": {"data_in": list(BITS.values())}, "batch_norm1d": {"weight": list(BITS.values())}}
    bound = Quantize(seed=seed, allowed=ALLOWED).bind(three_linear)
    assert all(knob.size == 3 for knob in bound.tree.knobs)


def test_all_settings_survive_toml(three_linear):
    space = Quantize(
        seed={"relu": {"data_in": PAIRS}},
        skip=["seq_blocks_1"],
        first={"weight_width": 8, "data_in_width": 8},
        last={"data_in": [Integer(8, 4)], "weight": [Integer(8, 4), Integer(4, 2)]},
        allowed=ALLOWED,
    )
    again = Quantize.from_settings(tomllib.loads(dump(space.to_settings())))
    assert again.bind(three_linear).tree == space.bind(three_linear).tree
    assert again.to_settings() == space.to_settings()
    assert set(space.to_settings()) == {"by", "share", "seed", "skip", "first", "last", "allowed", "scales"}
    assert set(Quantize(seed=space.seed).to_settings()) == {"by", "share", "seed", "scales"}
