"""The space of architectures: every possible network once, as transformers itself builds it."""

import itertools
import json
import warnings

import cloudpickle
import pytest
import torch
import transformers
from torch import nn

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.models import build, input_dtype
from paretobit.models.source import build_again, source_of
from paretobit.runtime import seeded
from paretobit.spaces import SPACES, Architecture
from paretobit.spaces.knobs import Config, Knob, Tree
from paretobit.spaces.nesting import nested_tree

BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "vocab_size": 50,
    "max_position_embeddings": 12,
}
DISTILBERT = {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24, "vocab_size": 50}
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24, "patch_size": 4}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": 50}
TEXT, IMAGES, CLASSES = (9,), (3, 8, 8), 3


def traced(name, shape, config):
    model = build(name, shape, CLASSES, 0, config=config).eval()
    x = torch.ones(2, *shape, dtype=input_dtype(model))
    return pb.trace(model, x)


@pytest.fixture(scope="module")
def bert():
    return traced("hf:bert", TEXT, BERT)


def configs(bound):
    return [bound.tree.at(i) for i in range(bound.tree.size)]


def tokens(rows=3):
    return torch.randint(1, 50, (rows, *TEXT), generator=torch.Generator().manual_seed(1))


def by_hand(values, seed=0):
    """BERT as transformers builds it."""
    config = transformers.BertConfig(**{**BERT, **values}, num_labels=CLASSES, use_cache=False)
    with seeded(seed):
        return transformers.BertForSequenceClassification(config).eval()


@torch.no_grad()
def test_every_model_is_the_one_that_transformers_builds_from_the_configuration(bert):
    seed = {"num_hidden_layers": [1, 3], "hidden_size": [16, 32], "intermediate_size": 40}
    bound, others = (Architecture(seed=seed, weights_seed=drawn).bind(bert) for drawn in (7, 3))
    prepared, x = bound.prepare(), tokens()
    seen = set()
    for config in configs(bound):
        values = bound.values(config)
        model, reference = bound.apply(prepared, config), by_hand(values, seed=7)
        assert values == {**config, "intermediate_size": 40}
        assert torch.equal(model(x), reference(x).logits)
        assert model.state_dict().keys() == reference.state_dict().keys()
        seen.add(sum(p.numel() for p in model.parameters()))
        assert bound.graph(config).model is model
        assert bound.widths(config) == {}
        assert torch.equal(others.graph(config).model(x), by_hand(values, seed=3)(x).logits)
    assert len(seen) == bound.tree.size == 4
    assert torch.equal(bound.apply(prepared, None)(x), bert.model(x))


def test_impossible_combinations_are_counted_and_are_no_configurations(bert):
    seed = {"num_hidden_layers": [1, 2], "hidden_size": [16, 18, 24], "num_attention_heads": [2, 4]}
    bound = Architecture(seed=seed).bind(bert)
    possible = [
        dict(zip(seed, values, strict=True))
        for values in itertools.product(*seed.values())
        if values[1] % values[2] == 0
    ]
    assert (bound.listed, bound.excluded, bound.repeated) == (12, 2, 0)
    assert "hidden_size = 18, num_attention_heads = 4" in bound.reason
    assert bound.impossible.startswith("2 of 12 combinations are impossible: num_hidden_layers = 1")
    found = [dict(config) for config in configs(bound)]
    assert len(found) == bound.tree.size == len(possible) == 10
    assert all(config in possible for config in found)


def test_padding_is_not_attended_to_where_the_given_model_does_not():
    graph = traced("hf:bert", TEXT, BERT)
    graph.model.padding = 0
    bound = Architecture(seed={"hidden_size": [16, 32]}).bind(graph)
    short = tokens()[:, :5]
    padded = torch.cat((short, torch.zeros(3, 4, dtype=torch.int64)), 1)
    for config in configs(bound):
        model = bound.graph(config).model
        assert model.padding == 0
        assert torch.allclose(model(padded), model(short), atol=1e-6)


def test_what_does_not_restrict_each_other_stays_side_by_side(bert):
    full = Architecture(seed={"num_hidden_layers": [1, 2], "hidden_size": [16, 32]}).bind(bert)
    assert (full.excluded, full.impossible) == (0, "")
    assert full.tree == Tree((Knob.of("num_hidden_layers", [1, 2]), Knob.of("hidden_size", [16, 32])))
    seed = {"num_hidden_layers": [1, 2], "hidden_size": [16, 18], "num_attention_heads": [2, 4]}
    depth, size = Architecture(seed=seed).bind(bert).tree.knobs
    assert depth == Knob.of("num_hidden_layers", [1, 2])
    assert [option.knobs[0].values for option in size.options] == [(2, 4), (2,)]


def test_a_combination_that_does_not_take_the_inputs_is_impossible(bert):
    bound = Architecture(seed={"max_position_embeddings": [12, 4], "hidden_size": [16, 32]}).bind(bert)
    assert (bound.tree.size, bound.excluded) == (2, 2)
    assert "does not take the inputs" in bound.reason
    assert [(d.knob, d.reason) for d in bound.dropped] == [("max_position_embeddings", "only 12 is possible")]


@pytest.mark.parametrize(
    ("key", "values"), [("use_cache", [True, False]), ("type_vocab_size", [2]), ("num_attention_heads", [4])]
)
def test_what_changes_nothing_is_no_knob(bert, key, values):
    bound = Architecture(seed={"hidden_size": [16, 32], key: values}).bind(bert)
    assert [knob.name for knob in bound.tree.all_knobs()] == ["hidden_size"]
    expected = [(key, "no value changes the model")] if len(values) > 1 else []
    assert [(d.knob, d.reason) for d in bound.dropped] == expected
    assert bound.values(bound.tree.at(0)) == {"hidden_size": 16, key: values[0]}


def test_heads_and_dropout_and_activations_change_the_model_though_no_shape(bert):
    seed = {
        "num_attention_heads": [1, 2],
        "attention_probs_dropout_prob": [0.1, 0.5],
        "hidden_act": ["gelu", "relu", "gelu_python"],
    }
    bound = Architecture(seed=seed).bind(bert)
    assert [(knob.name, knob.values) for knob in bound.tree.knobs] == [
        ("num_attention_heads", (1, 2)),
        ("attention_probs_dropout_prob", (0.1, 0.5)),
        ("hidden_act", ("gelu", "relu")),
    ]
    reason = "the model is that of hidden_act = gelu"
    assert [(d.knob, d.reason) for d in bound.dropped] == [("hidden_act.gelu_python", reason)]
    assert bound.matched == ()


def test_a_value_that_gives_the_network_of_another_is_left_out():
    gpt2 = traced("hf:gpt2", TEXT, GPT2)
    assert GPT2["n_embd"] == 16  # where n_inner is not given it is four times that
    bound = Architecture(seed={"n_embd": [16, 32], "n_inner": [None, 64, 128]}).bind(gpt2)
    assert (bound.listed, bound.excluded, bound.repeated, bound.tree.size) == (6, 0, 2, 4)
    sizes = [sum(p.numel() for p in bound.graph(config).model.parameters()) for config in configs(bound)]
    assert len(set(sizes)) == 4


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        ({"num_layers": [1, 2]}, r"'num_hidden_layers' \(seed.num_layers\).*did you mean 'num_hidden_layers'"),
        ({"num_heads": [1, 2]}, "it is called 'num_attention_heads'"),
        ({"n_embd": [16]}, "it is called 'hidden_size'"),
        ({"ffn_dim": [16]}, "it is called 'intermediate_size'"),
        ({"intermediate_sise": [16]}, "did you mean 'intermediate_size'"),
        ({"vocab_size": [40, 50]}, "the tokenizer decides it"),
        ({"num_labels": [2]}, "the data decides it"),
        ({"hidden_size": [17, 19]}, "none of the 2 combinations is possible: hidden_size = 17"),
        ({"hidden_size": list(range(16, 5020))}, "5,004 combinations are too many.*5,000 at most"),
        ({"hidden_size": []}, "at least one option"),
        ({"hidden_size": [16, 16]}, "listed twice"),
        ({"hidden_size": [[16]]}, "not a value of a configuration"),
        ({}, "names no keys"),
    ],
)
def test_what_cannot_be_is_refused_by_name(bert, seed, message):
    with pytest.raises(BadInput, match=message):
        Architecture(seed=seed).bind(bert)


def test_a_model_that_is_no_transformer_is_refused():
    graph = pb.trace(nn.Sequential(nn.Linear(4, 2)), torch.zeros(1, 4))
    with pytest.raises(BadInput, match=r"transformer of HuggingFace.*found 'Sequential'"):
        Architecture(seed={"hidden_size": [16]}).bind(graph)


def test_a_model_that_was_traced_without_inputs_is_refused(bert):
    with pytest.raises(BadInput, match="traced without inputs"):
        Architecture(seed={"hidden_size": [16]}).bind(pb.trace(bert.model))


OTHERS = {
    "distilbert": ("hf:distilbert", TEXT, DISTILBERT, ("n_layers", "n_heads", "dim", "hidden_dim")),
    "vit": ("hf:vit", IMAGES, VIT, ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size")),
    "gpt2": ("hf:gpt2", TEXT, GPT2, ("n_layer", "n_head", "n_embd", "n_inner")),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_types_work_alike_under_their_own_keys_and_under_those_of_bert(kind):
    name, shape, config, (depth, heads, size, inner) = OTHERS[kind]
    graph = traced(name, shape, config)
    aliases = graph.model.config.attribute_map
    known = {own: alias for alias, own in aliases.items()}
    seed = {depth: [1, 2], heads: [2, 4], size: [16, 18], inner: [24]}
    bound = Architecture(seed=seed).bind(graph)
    again = Architecture(seed={known.get(key, key): values for key, values in seed.items()}).bind(graph)
    assert bound.tree == again.tree
    assert (bound.listed, bound.excluded, bound.tree.size) == (8, 2, 6)
    x = torch.ones(2, *shape, dtype=input_dtype(graph.model))
    for chosen in configs(bound):
        values = bound.values(chosen)
        model = bound.graph(chosen).model
        reference = build(name, shape, CLASSES, 0, config={**config, **values}).eval()
        assert torch.equal(model(x), reference(x))
        assert type(model) is type(reference)


def test_one_key_under_two_names_is_refused():
    graph = traced("hf:distilbert", TEXT, DISTILBERT)
    with pytest.raises(BadInput, match=r"this is 'dim', which is there already \(seed.hidden_size\)"):
        Architecture(seed={"dim": [16], "hidden_size": [32]}).bind(graph)


def test_square_layers_may_be_left_out(bert):
    linear = {"default": ["linear", "identity"]}
    bound = Architecture(seed={"num_hidden_layers": [1, 2]}, linear=linear).bind(bert)
    square = 4  # query, key, value and output of every layer; the pooler besides
    assert bound.tree.size == 2 ** (square + 1) + 2 ** (2 * square + 1)
    assert bound.layers_vary
    config = next(c for c in configs(bound) if c["num_hidden_layers"] == 1 and "identity" in c.values())
    replaced = bound.replaced(config)
    model, reference = bound.graph(config).model, by_hand({"num_hidden_layers": 1})
    assert replaced
    for path in replaced:
        assert isinstance(model.get_submodule(path), nn.Identity)
        parent, _, name = path.rpartition(".")
        setattr(reference.get_submodule(parent), name, nn.Identity())
    with torch.no_grad():
        assert torch.equal(model(tokens()), reference(tokens()).logits)
    assert "bert_encoder_layer_0_intermediate_dense" in bound.unmatched
    assert not any("layer_1" in name for c in configs(bound) if c["num_hidden_layers"] == 1 for name in c)


QUERY = "bert_encoder_layer_1_attention_self_query"


@pytest.mark.parametrize(
    ("by", "key", "knobs"),
    [
        ("name", QUERY, [f"{QUERY}.layer"]),
        ("name", "bert.encoder.layer.1.attention.self.query", [f"{QUERY}.layer"]),
        ("regex", r".*layer_1_attention_self_(query|key)", [f"{QUERY}.layer", f"{QUERY[:-5]}key.layer"]),
    ],
)
def test_layers_to_leave_out_are_chosen_by_name_path_or_pattern(bert, by, key, knobs):
    space = Architecture(seed={"num_hidden_layers": [1, 2]}, linear={key: ["linear", "identity"]}, by=by)
    depth = space.bind(bert).tree.knobs[0]
    assert [[knob.name for knob in option.knobs] for option in depth.options] == [[], knobs]


@pytest.mark.parametrize(
    ("linear", "seed", "message"),
    [
        ({"bert_encoder_layer_0_intermediate_dense": "identity"}, {}, "not square in every network: 16 to 24"),
        ({"bert_pooler_densee": "identity"}, {}, "did you mean 'bert_pooler_dense'"),
        ({"bert_pooler_dense": ["identity", "conv"]}, {}, "not a kind of layer"),
        (
            {"bert_encoder_layer_0_intermediate_dense": "identity"},
            {"intermediate_size": [16, 24]},
            "16 to 16, 16 to 24",
        ),
    ],
)
def test_a_layer_that_cannot_be_left_out_is_refused_with_its_shapes(bert, linear, seed, message):
    with pytest.raises(BadInput, match=message):
        Architecture(seed={"hidden_size": [16], **seed}, linear=linear).bind(bert)


def test_the_settings_come_back_and_a_configuration_is_spelt_out(bert):
    space = Architecture(seed={"num_hidden_layers": [1, 2]}, linear={QUERY: ["linear", "identity"]})
    again = SPACES["architecture"].from_settings(json.loads(json.dumps(space.to_settings())))
    bound = again.bind(bert)
    assert bound.tree.fingerprint == space.bind(bert).tree.fingerprint
    described = json.loads(json.dumps(bound.describe()))
    last = Config.from_json(bound.tree.at(bound.tree.size - 1).to_json())
    assert Architecture.explain(described, last) == {
        "architecture": {"config": {"num_hidden_layers": 2}},
        QUERY: {"config": {"layer": "identity"}},
    }
    assert QUERY not in Architecture.explain(described, bound.tree.at(0))


def test_workers_get_the_space_without_the_models_it_built(bert):
    bound = Architecture(seed={"num_hidden_layers": [1, 8]}).bind(bert)
    before = len(cloudpickle.dumps(bound))
    models = [bound.graph(config).model for config in configs(bound)]
    packed = cloudpickle.dumps(bound)
    assert len(packed) <= before + 100
    again = cloudpickle.loads(packed)
    for config, model in zip(configs(bound), models, strict=True):
        assert torch.equal(again.graph(config).model(tokens()), model(tokens()))


def test_the_values_make_the_source_of_a_saved_model(bert):
    bound = Architecture(seed={"num_hidden_layers": [1, 2], "hidden_size": [16, 32]}).bind(bert)
    source = source_of("hf:bert", TEXT, CLASSES, config=BERT)
    for config in configs(bound):
        page = json.loads(json.dumps({**source, "config": {**source["config"], **bound.values(config)}}))
        model = bound.graph(config).model
        loaded = build_again(page).eval()
        loaded.load_state_dict(model.state_dict())
        assert torch.equal(loaded(tokens()), model(tokens()))


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsgaii", "bruteforce", "grid"])
def test_samplers_only_ask_for_possible_networks(bert, sampler):
    seed = {"num_hidden_layers": 1, "hidden_size": [16, 24], "intermediate_size": [8, 16]}
    if sampler != "grid":  # it lists full products only
        seed = {**seed, "hidden_size": [16, 18, 24], "num_attention_heads": [2, 4]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = pb.search(
            bert.model,
            space=Architecture(seed=seed),
            minimize=["flops", "size"],
            val=(tokens(), torch.zeros(3, dtype=torch.int64)),
            runners={"basic_computation": {}, "model_size": {}},
            strategy={"name": "optuna", "sampler": sampler},
            n_trials=16,
        )
    assert {trial.state for trial in study.trials} <= {"complete", "duplicate"}
    distinct = {trial.config for trial in study.trials}
    assert len(distinct) >= (10 if sampler == "bruteforce" else 4)
    for trial in study.trials:
        assert trial.config["hidden_size"] % trial.config.get("num_attention_heads", 4) == 0


def test_samplers_take_values_that_are_not_numbers_and_restrict_others():
    gpt2 = traced("hf:gpt2", TEXT, GPT2)
    study = pb.search(
        gpt2.model,
        space=Architecture(seed={"n_embd": [16, 32], "n_inner": [None, 64, 128]}),
        minimize="flops",
        val=(tokens(), torch.zeros(3, dtype=torch.int64)),
        runners={"basic_computation": {}},
        strategy={"name": "optuna", "sampler": "tpe"},
        n_trials=12,
    )
    assert len({trial.config for trial in study.trials}) == 4


def test_a_tree_holds_every_row_once_whatever_the_holes():
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        sizes = torch.randint(1, 4, (4,), generator=generator).tolist()
        every = list(itertools.product(*(range(size) for size in sizes)))
        keep = torch.rand(len(every), generator=generator) < 0.6
        rows = [row for row, kept in zip(every, keep.tolist(), strict=True) if kept] or every
        values = [[10 * column + at for at in range(size)] for column, size in enumerate(sizes)]
        below = {row[1]: (Knob.of("below", [row[1], -1]),) if row[1] else () for row in rows}
        tree = nested_tree("abcd", values, rows, lambda row, below=below: below[row[1]])
        expected = {
            (*(values[c][at] for c, at in enumerate(row)), *more)
            for row in rows
            for more in ([(row[1],), (-1,)] if row[1] else [()])
        }
        found = [tuple(tree.at(i)[n] for n in (*"abcd", "below") if n in tree.at(i)) for i in range(tree.size)]
        assert len(found) == len(set(found))
        assert set(found) == expected
