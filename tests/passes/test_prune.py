"""Exactly what was asked for goes, by rank, and nothing else; what cannot be is refused or listed."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from paretobit.data import DataSettings
from paretobit.data import load as load_data
from paretobit.errors import BadInput
from paretobit.formats import Integer
from paretobit.graph import trace
from paretobit.graph.widths import width_groups
from paretobit.models import build, load_state, read_state
from paretobit.nn import TensorCache, instrument
from paretobit.nn.masks import masks_of, sparsity_of, zeros_in
from paretobit.passes.transform import (
    PASSES,
    ActivationPruning,
    Choice,
    InputPruning,
    PruneSettings,
    WeightPruning,
    input_prunings_of,
    prune,
    quantize,
    set_input_pruning,
)
from paretobit.passes.transform.prune_layers import input_norms
from paretobit.passes.transform.prune_scores import keep_largest, keep_largest_in_rows, keep_pattern
from paretobit.passes.transform.quantize import QuantizeSettings
from paretobit.training import evaluate, fit
from paretobit.training.settings import TrainSettings


def by_hand():
    """Two layers whose weights can be ranked at a glance."""
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 3, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.1, -0.9, 0.3, -0.2], [0.8, 0.05, -0.7, 0.6]]))
        model[2].weight.copy_(torch.tensor([[1.0, -2.0], [0.5, 0.5], [-3.0, 0.5]]))
    return trace(model, torch.zeros(1, 4))


def convolutional():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.ConvTranspose2d(8, 4, 2),
        nn.Flatten(),
        nn.Linear(4 * 5 * 5, 6),
    )
    return trace(model, torch.zeros(1, 3, 6, 6))


def weights(graph, **keys):
    new, info = prune(graph, PruneSettings(weight=WeightPruning(**keys)))
    json.dumps(info)
    return new.model, info


def only(*names):
    return Choice("name", names)


def kept(model, path="0"):
    return masks_of(model)[path]["weight"].int().tolist()


# Which weights go


def test_locally_the_smallest_of_every_layer_go_and_of_equal_ones_the_first():
    model, info = weights(by_hand(), sparsity=0.5)
    assert kept(model) == [[0, 1, 0, 0], [1, 0, 1, 1]]
    assert kept(model, "2") == [[1, 1], [0, 0], [1, 0]]
    assert model[2].weight.tolist() == [[1.0, -2.0], [0.0, 0.0], [-3.0, 0.0]]
    half = {"elements": 8, "zeros": 4, "sparsity": 0.5}
    assert info["layers"] == {"0": half, "2": {"elements": 6, "zeros": 3, "sparsity": 0.5}}
    assert (info["elements"], info["zeros"], info["sparsity"], info["removed"]) == (14, 7, 0.5, 7)


def test_globally_they_go_wherever_they_are():
    model, info = weights(by_hand(), sparsity=0.5, scope="global")
    # 0.05 0.1 0.2 0.3 of the first; of the three 0.5 of the second all, for 0.6 is larger
    assert kept(model) == [[0, 1, 0, 0], [1, 0, 1, 1]]
    assert kept(model, "2") == [[1, 1], [0, 0], [1, 0]]
    model, info = weights(by_hand(), sparsity=0.36, scope="global")  # 5 of 14: one of three equal ones
    assert kept(model) == [[0, 1, 0, 0], [1, 0, 1, 1]]
    assert kept(model, "2") == [[1, 1], [0, 1], [1, 1]]
    assert info["removed"] == 5


def test_a_floor_keeps_every_layer_alive_and_the_total_exact():
    _, info = weights(by_hand(), sparsity=0.75, scope="global")
    assert [info["layers"][p]["zeros"] for p in ("0", "2")] == [7, 3]
    model, info = weights(by_hand(), sparsity=0.75, scope="global", floor=0.25)
    assert [info["layers"][p]["zeros"] for p in ("0", "2")] == [6, 4]
    assert kept(model, "2") == [[0, 1], [0, 0], [1, 0]]
    with pytest.raises(BadInput, match=r"may lose.*weight.*10 of 14.*7 or fewer"):
        weights(by_hand(), sparsity=0.75, scope="global", floor=0.5)


def test_by_output_each_row_loses_as_many():
    model, _ = weights(by_hand(), sparsity=0.5, scope="output")
    assert kept(model) == [[0, 1, 1, 0], [1, 0, 1, 0]]
    assert kept(model, "2") == [[0, 1], [0, 1], [1, 0]]


def test_two_of_four_neighbours_along_the_inputs_stay():
    model, info = weights(by_hand(), pattern="2:4", choice=only("0"))
    assert kept(model) == [[0, 1, 1, 0], [1, 0, 1, 0]]
    assert list(info["layers"]) == ["0"]
    assert info["untouched"] == {"2": "not chosen"}


def test_a_convolution_keeps_two_of_four_input_channels_at_every_tap():
    graph = convolutional()
    model, info = weights(graph, pattern="2:4", ragged="dense")
    assert info["dense"] == {"0": "3 inputs are no multiple of 4"}
    mask = masks_of(model)["3"]["weight"]  # (8, 4, 3, 3)
    assert (mask.sum(1) == 2).all()
    ranked = graph.model[3].weight.detach().abs()
    assert (ranked.masked_fill(~mask, 9).amin(1) >= ranked.masked_fill(mask, 0).amax(1)).all()
    transposed = masks_of(model)["4"]["weight"]  # (8, 4, 2, 2): inputs first
    assert (transposed.view(2, 4, 4, 2, 2).sum(1) == 2).all()
    with pytest.raises(BadInput, match=r"layer '0'.*ragged.*weight.pattern.*3 inputs.*multiples of 4"):
        weights(graph, pattern="2:4")


def test_random_depends_on_the_seed_and_the_layer_and_on_nothing_else():
    graph = convolutional()
    model, info = weights(graph, sparsity=0.3, method="random", seed=1)
    again, _ = weights(graph, sparsity=0.3, method="random", seed=1, choice=only("6"))
    other, _ = weights(graph, sparsity=0.3, method="random", seed=2)
    assert kept(model, "6") == kept(again, "6") != kept(other, "6")
    assert [row["zeros"] for row in info["layers"].values()] == [65, 86, 38, 180]
    more, _ = weights(graph, sparsity=0.6, method="random", seed=1)
    assert not (masks_of(more)["6"]["weight"] & ~masks_of(model)["6"]["weight"]).any()  # nested


def test_activation_aware_ranks_by_weight_times_norm_of_its_input():
    graph = by_hand()
    batches = [torch.tensor([[3.0, 0.0, 1.0, 0.0], [0.0, 0.1, 0.0, 2.0]]), torch.tensor([[4.0, 0.0, 1.0, 0.0]])]
    norms = input_norms(graph, graph.layers[:1], batches)["0"]
    assert torch.allclose(norms, torch.tensor([5.0, 0.1, 2**0.5, 2.0], dtype=torch.float64))
    spec = WeightPruning(sparsity=0.5, method="activation-aware", scope="output", choice=only("0"))
    new, _ = prune(graph, PruneSettings(weight=spec), batches)
    # 0.5 0.09 0.42 0.4 and 4.0 0.005 0.99 1.2
    assert kept(new.model) == [[1, 0, 1, 0], [1, 0, 0, 1]]
    assert masks_of(graph.model) == {}
    with pytest.raises(BadInput, match=r"needs calibration batches \(weight\.method\)"):
        prune(graph, PruneSettings(weight=spec))
    with pytest.raises(BadInput, match=r"'0' never ran.*weight\.batches"):
        prune(graph, PruneSettings(weight=spec), [])


def test_the_norms_of_a_convolution_are_those_of_its_channels_group_by_group():
    graph = convolutional()
    x = torch.randn(4, 3, 6, 6)
    with torch.no_grad():
        inner = graph.model.eval()[:3](x)
    norms = input_norms(graph, graph.layers, [x[:1], x[1:]])
    expected = inner.double().square().sum((0, 2, 3)).sqrt()
    assert torch.allclose(norms["3"], expected)
    spec = WeightPruning(sparsity=0.5, method="activation-aware", choice=only("3"))
    new, _ = prune(graph, PruneSettings(weight=spec), [x])
    weight = graph.model[3].weight.detach().double().abs()
    scores = torch.cat([weight[:4] * expected[:4].view(1, 4, 1, 1), weight[4:] * expected[4:].view(1, 4, 1, 1)])
    (mask,) = (masks["weight"] for masks in masks_of(new.model).values())
    assert scores[mask].min() >= scores[~mask].max() * (1 - 1e-6)
    assert mask.sum() == (~mask).sum()


# Exactness, for any input

PATTERNS = [(1, 2), (2, 4), (1, 4), (4, 8), (3, 3)]
floats = st.floats(-3, 3, width=16)
fractions = st.floats(0, 1)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(floats, min_size=1, max_size=12), min_size=1, max_size=4), fractions)
def test_over_several_tensors_exactly_the_smallest_go(rows, fraction):
    scores = [torch.tensor(row) for row in rows]
    flat = [value for row in rows for value in row]
    removed = round(fraction * len(flat))
    masks = keep_largest(scores, removed)
    gone = [i for i, stays in enumerate(torch.cat(masks).tolist()) if not stays]
    assert gone == sorted(sorted(range(len(flat)), key=lambda i: (flat[i], i))[:removed])


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5), st.integers(1, 9), fractions, st.integers(0, 2**31), st.booleans())
def test_of_every_row_exactly_the_smallest_go(rows, elements, fraction, seed, coarse):
    drawn = torch.randn(rows, elements, generator=torch.Generator().manual_seed(seed))
    scores = drawn.round() if coarse else drawn
    removed = round(fraction * elements)
    masks = keep_largest_in_rows(scores, removed).tolist()
    for row, mask in zip(scores.tolist(), masks, strict=True):
        gone = [i for i, stays in enumerate(mask) if not stays]
        assert gone == sorted(sorted(range(elements), key=lambda i: (row[i], i))[:removed])


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([(1, 2), (2, 4), (1, 4), (4, 8), (3, 3)]), st.booleans())
def test_of_every_m_neighbours_exactly_n_stay(rows, groups, pattern, ties):
    kept_of, group = pattern
    scores = torch.rand(groups * group, rows, 2)
    mask = keep_pattern(scores.round() if ties else scores, 0, kept_of, group)
    assert (mask.view(groups, group, rows, 2).sum(1) == kept_of).all()


@settings(deadline=None, max_examples=25)
@given(fractions, st.sampled_from(["l1-norm", "random"]), st.sampled_from(["local", "global", "output"]))
def test_the_number_of_zeros_is_that_asked_for(fraction, method, scope):
    graph = convolutional()
    model, info = weights(graph, sparsity=fraction, method=method, scope=scope)
    sizes = {path: graph.model.get_submodule(path).weight for path in ("0", "3", "4", "6")}
    if scope == "global":
        expected = round(fraction * sum(w.numel() for w in sizes.values()))
    elif scope == "local":
        expected = sum(round(fraction * w.numel()) for w in sizes.values())
    else:
        rows = [(8, 27), (8, 36), (4, 32), (6, 100)]
        expected = sum(n * round(fraction * length) for n, length in rows)
    assert sum(zeros_in(model.get_submodule(path).weight) for path in sizes) == info["zeros"] == expected
    assert sparsity_of(model) == {**{path: row["sparsity"] for path, row in info["layers"].items()}, "1": 0.0}


# Which layers


def test_a_table_of_sparsities_chooses_the_layers_itself():
    graph = convolutional()
    _, info = weights(graph, sparsity={"Conv2d": 0.25, "linear": 0.5})
    assert {path: row["zeros"] for path, row in info["layers"].items()} == {"0": 54, "3": 72, "6": 300}
    assert info["untouched"] == {"4": "not chosen"}
    with pytest.raises(BadInput, match=r"no layer.*weight\.sparsity\.lineer.*did you mean 'linear'"):
        weights(graph, sparsity={"lineer": 0.5})
    with pytest.raises(BadInput, match=r"'0' is chosen twice"):
        weights(graph, sparsity={"Conv2d": 0.25, "conv2d": 0.5})


def test_layers_are_skipped_by_name():
    _, info = weights(convolutional(), sparsity=0.5, choice=Choice(skip=("0", "6")))
    assert list(info["layers"]) == ["3", "4"]
    with pytest.raises(BadInput, match=r"weight\.skip.*'7'"):
        weights(convolutional(), sparsity=0.5, choice=Choice(skip=("7",)))
    with pytest.raises(BadInput, match="'1' is a BatchNorm2d, which cannot be pruned"):
        weights(convolutional(), sparsity=0.5, choice=only("1"))


def test_layers_that_cannot_be_pruned_are_listed():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Flatten(), nn.Bilinear(8, 8, 2))
    graph = trace(model[:3], torch.zeros(1, 2, dtype=torch.long))
    _, info = weights(graph, sparsity=0.5)
    assert info["untouched"] == {"0": "a Embedding cannot be pruned"}


def test_a_weight_of_two_layers_is_pruned_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    new, info = weights(trace(model, torch.zeros(1, 4)), sparsity=0.5)
    assert info["dense"] == {"2": "its weight is that of '0'"}
    assert info["elements"] == 16
    assert new[2].weight is new[0].weight
    assert zeros_in(new[2].weight) == 8


def test_the_linear_layer_of_transformers_lies_the_other_way_round():
    from transformers.pytorch_utils import Conv1D

    model = nn.Sequential(Conv1D(3, 4))  # weight (inputs 4, outputs 3)
    new, _ = weights(trace(model, torch.zeros(1, 4)), pattern="2:4")
    assert (masks_of(new)["0"]["weight"].sum(0) == 2).all()
    new, _ = weights(trace(model, torch.zeros(1, 4)), sparsity=1 / 3, granularity="channel", choice=only("0"))
    assert sorted(masks_of(new)["0"]["weight"].sum(0).tolist()) == [0, 4, 4]
    quantised = trace(model, torch.zeros(1, 4))
    instrument(model[0], TensorCache()).set_slots({"weight": Integer(8, 6)})
    new, _ = weights(quantised, pattern="2:4")
    assert (masks_of(new)["0"]["weight"].sum(0) == 2).all()
    assert sparsity_of(new) == {"0": 0.5}


# What was pruned before


def test_a_schedule_never_brings_weights_back():
    graph = convolutional()
    gone = torch.zeros(6, 100, dtype=torch.bool)
    for sparsity in (0.2, 0.5, 0.8):
        graph, info = prune(graph, PruneSettings(weight=WeightPruning(sparsity=sparsity)))
        assert info["layers"]["6"]["zeros"] == round(600 * sparsity)
        with torch.no_grad():
            graph.model[6].weight.add_(torch.randn(6, 100))  # training moves the ranks of what is left
        graph.model.eval()(torch.randn(1, 3, 6, 6))
        mask = masks_of(graph.model)["6"]["weight"]
        assert not (gone & mask).any()
        gone = ~mask
    with pytest.raises(BadInput, match=r"layer '0' is sparser already; revive.*weight\.sparsity.*43 to go"):
        weights(graph, sparsity=0.2)
    revived, info = weights(graph, sparsity=0.2, revive=True)
    assert info["removed"] == sum(round(0.2 * n) for n in (216, 288, 128, 600))
    assert info["zeros"] > info["removed"]  # they come back as zeros, and can be trained
    optimizer = torch.optim.SGD(revived.parameters(), lr=0.1)
    revived(torch.randn(2, 3, 6, 6)).square().sum().backward()
    optimizer.step()
    assert zeros_in(revived[6].weight) == round(0.2 * 600)


def test_a_pattern_after_a_pruning_keeps_at_most_n():
    graph, _ = prune(by_hand(), PruneSettings(weight=WeightPruning(sparsity=0.5, choice=only("0"))))
    model, info = weights(graph, pattern="2:4", choice=only("0"))
    assert kept(model) == [[0, 1, 0, 0], [1, 0, 1, 0]]
    assert info["removed"] == 5


# Whole channels


def test_channels_go_by_the_norm_of_their_weights_with_their_biases():
    model, info = weights(by_hand(), sparsity=0.3, granularity="channel", choice=only("2"))
    assert kept(model, "2") == [[1, 1], [0, 0], [1, 1]]
    assert info["layers"]["2"] == {"elements": 6, "zeros": 2, "sparsity": 1 / 3}
    model, _ = weights(by_hand(), sparsity=0.5, granularity="channel", choice=only("0"))
    assert kept(model) == [[0, 0, 0, 0], [1, 1, 1, 1]]
    assert (model[0].bias == 0).tolist() == [True, False]


def test_a_group_loses_the_same_channels_everywhere_norms_included():
    torch.manual_seed(1)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.norm = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
            self.inner, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 2)

        def forward(self, x):
            x = self.norm(self.stem(x))
            return self.head((x + self.inner(x)).mean((2, 3)))

    graph = trace(Block(), torch.zeros(1, 3, 4, 4))
    model, info = weights(graph, sparsity=0.5, granularity="channel", groups={"trunk": ["stem", "norm", "inner"]})
    score = sum(getattr(graph.model, n).weight.detach().abs().flatten(1).sum(1) for n in ("stem", "inner"))
    gone = score.argsort()[:4].sort().values
    assert list(info["layers"]) == ["stem", "inner"]
    for name in ("stem", "norm", "inner"):
        layer = getattr(model, name)
        dead = [i for i in range(8) if zeros_in(layer.weight[i]) == layer.weight[i].numel()]
        assert dead == gone.tolist()
        assert (layer.bias[gone] == 0).all()
    seen = []
    model.head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        model(torch.randn(4, 3, 4, 4)).square().sum().backward()
        optimizer.step()
    model(torch.randn(4, 3, 4, 4))
    assert (seen[-1][:, gone] == 0).all()  # nothing of these channels is left anywhere
    with pytest.raises(BadInput, match=r"group 'trunk' differ in channels.*weight\.groups"):
        weights(graph, sparsity=0.5, granularity="channel", groups={"trunk": ["stem", "head"]})


def test_channels_of_several_layers_can_be_ranked_together():
    graph = by_hand()
    model, _ = weights(graph, sparsity=0.4, granularity="channel", scope="global", choice=only("0", "2"))
    # means: 0.375 0.5375 and 1.5 0.5 1.75; two of five go
    assert kept(model) == [[0, 0, 0, 0], [1, 1, 1, 1]]
    assert kept(model, "2") == [[1, 1], [0, 0], [1, 1]]
    model, _ = weights(graph, sparsity=0.2, granularity="channel", scope="global", choice=only("0", "2"))
    assert kept(model, "2") == [[1, 1], [1, 1], [1, 1]]  # the smallest sum is there, the smallest mean is not
    model, _ = weights(graph, sparsity=0.4, granularity="channel", scope="global", choice=only("0", "2"))
    again, _ = weights(trace(model), sparsity=0.6, granularity="channel", scope="global", choice=only("0", "2"))
    assert kept(again) == [[0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("name", ["resnet20", "mobilenet-tiny", "densenet-tiny", "vgg7"])
def test_the_width_groups_of_a_model_lose_whole_channels_and_its_outputs_none(name):
    torch.manual_seed(0)
    graph = trace(build(name, (3, 32, 32), 10), torch.zeros(1, 3, 32, 32))
    model, info = weights(graph, sparsity=0.5, granularity="channel")
    assert any("output of the model" in reason for reason in info["dense"].values())
    groups = width_groups(graph)
    assert len(info["dense"]) == len(groups) - len(groups.free)
    for group in groups.free:
        alone = [p for p in group.producers if graph[p].output_shape[1] == group.width]
        dead = {p: [not w.any() for w in model.get_submodule(graph[p].owner).weight] for p in alone}
        assert all(sum(channels) == round(group.width / 2) for channels in dead.values())
        assert len({tuple(channels) for channels in dead.values()}) == 1
    silent = {}
    for path in info["layers"]:
        layer = model.get_submodule(path)
        layer.register_forward_hook(lambda module, args, y, path=path: silent.update({path: y}))
    model.train()(torch.randn(2, 3, 32, 32))
    for path, y in silent.items():
        dead = ~masks_of(model)[path]["weight"].flatten(1).any(1)
        assert dead.any()
        assert (y[:, dead] == 0).all()


def test_both_halves_of_a_split_lose_the_channels_that_are_added():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.both, self.left, self.right = nn.Linear(4, 12), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            a, b = self.both(x).chunk(2, dim=-1)
            return self.right(self.left(a) + b)

    graph = trace(Halves(), torch.zeros(2, 4))
    model, info = weights(graph, sparsity=0.5, granularity="channel")
    dead = (~masks_of(model)["both"]["weight"].any(1)).tolist()
    assert sum(dead[:6]) == 3
    assert dead[:6] == dead[6:] == (~masks_of(model)["left"]["weight"].any(1)).tolist()
    assert list(info["layers"]) == ["both", "left"]
    _, info = weights(graph, sparsity=0.5, granularity="channel", choice=Choice(skip=("left",)))
    assert info["layers"] == {}
    assert "skipped" in info["dense"].values()


def test_the_width_groups_of_bert_lose_channels_of_embeddings_too():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = BertForSequenceClassification(BertConfig(vocab_size=50, **sizes)).eval()
    graph = trace(model, {"input_ids": torch.arange(16).view(2, 8)})
    spec = WeightPruning(sparsity=0.25, granularity="channel", method="activation-aware")
    new, info = prune(graph, PruneSettings(spec), [{"input_ids": torch.arange(16).view(2, 8)}])
    assert info["dense"] == {"classifier": "an output of the model"}
    hidden = ~masks_of(new.model)["bert.encoder.layer.1.output.dense"]["weight"].any(1)
    assert hidden.sum() == 8
    states = new.model(torch.arange(16).view(2, 8), output_hidden_states=True).hidden_states
    assert all((state[..., hidden] == 0).all() and (state[..., ~hidden] != 0).any() for state in states)
    assert "bert_embeddings_word_embeddings" not in info["untouched"]


# Inputs at run time


def inputs(graph, **keys):
    new, info = prune(graph, PruneSettings(activation=ActivationPruning(InputPruning(**keys))))
    return new.model, info


def seen_by(model, path, x):
    caught = []
    model.get_submodule(path).register_forward_pre_hook(lambda module, args: caught.append(args[0]))
    model(x)
    return caught[0]


def test_the_smallest_inputs_of_every_sample_are_zero_at_run_time():
    model, info = inputs(by_hand(), sparsity=0.5)
    x = torch.tensor([[1.0, -4.0, 2.0, -3.0], [0.5, 0.5, 0.5, 0.5]])
    assert seen_by(model, "0", x.clone()).tolist() == [[0.0, -4.0, 0.0, -3.0], [0.0, 0.0, 0.5, 0.5]]
    assert info["activation"]["0"] == {"sparsity": 0.5, "method": "l1-norm", "per": "sample", "seed": 0}
    model, _ = inputs(by_hand(), sparsity=0.5, per="call")
    assert seen_by(model, "0", x).tolist() == [[1.0, -4.0, 2.0, -3.0], [0.0, 0.0, 0.0, 0.0]]
    model, _ = inputs(by_hand(), sparsity=0.25)
    assert seen_by(model, "0", x[0]).tolist() == [0.0, -4.0, 2.0, -3.0]


@pytest.mark.parametrize("method", ["l1-norm", "random"])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.33, 0.9, 1.0])
def test_exactly_so_many_inputs_go_whatever_the_rows_beside(method, sparsity):
    pruning = InputPruning(sparsity, method=method)
    x = torch.randn(6, 3, 5, 5).relu()  # with ties at zero
    keep = pruning.keep(x)
    assert (~keep).flatten(1).sum(1).tolist() == [round(sparsity * 75)] * 6
    assert torch.equal(pruning.keep(x[2:3]), keep[2:3])


def test_gradients_flow_through_the_inputs_that_stay():
    layer = nn.Linear(4, 1, bias=False)
    set_input_pruning(layer, InputPruning(0.5))
    x = torch.tensor([[1.0, -4.0, 2.0, -3.0]], requires_grad=True)
    layer(x).sum().backward()
    assert torch.equal(x.grad[0] != 0, torch.tensor([False, True, False, True]))
    assert torch.equal(layer.weight.grad, torch.tensor([[0.0, -4.0, 0.0, -3.0]]))
    set_input_pruning(layer, None)
    assert torch.equal(layer(x), x @ layer.weight.T)


def test_pruned_inputs_are_quantised_after():
    graph, _ = prune(by_hand(), PruneSettings(activation=ActivationPruning(InputPruning(0.5))))
    graph, _ = quantize(graph, QuantizeSettings("name", {"0": {"data_in": Integer(4, 1)}}))
    assert input_prunings_of(graph.model) == {"0": InputPruning(0.5), "2": InputPruning(0.5)}
    first = graph.model[0]
    x = torch.tensor([[1.2, -3.9, 2.1, -3.1]])
    expected = torch.tensor([[0.0, -4.0, 0.0, -3.0]])
    assert torch.equal(first(x), nn.functional.linear(expected, first.weight, first.bias))


# The table


def run(**table):
    return PASSES["prune"](by_hand(), table)


def test_the_reports_table_prunes_weights_and_activations():
    graph, info = run(
        weight={"sparsity": 0.5, "method": "l1-norm", "scope": "local", "granularity": "elementwise"},
        activation={"sparsity": 0.25, "method": "random", "scope": "local"},
    )
    assert info["sparsity"] == 0.5
    assert input_prunings_of(graph.model)["2"] == InputPruning(0.25, "random")
    _, info = run(activation={"sparsity": 0.5, "layers": "linear", "skip": ["0"]})
    assert list(info["activation"]) == ["2"]
    assert info["layers"] == {}


def test_the_keys_of_weight_may_stand_alone():
    _, info = run(by="name", layers=["0"], sparsity=0.5, scope="global")
    assert list(info["layers"]) == ["0"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, r"how much goes must be said once.*sparsity or pattern"),
        ({"sparsity": 0.5, "pattern": "2:4"}, "must be said once"),
        ({"sparsity": 1.5}, r"not a sparsity \(sparsity\): found 1.5.*0 to 1"),
        ({"sparsity": True}, "not a sparsity"),
        ({"sparsity": {"linear": -1}}, r"not a sparsity \(sparsity\.linear\)"),
        ({"sparsity": 0.5, "method": "l1"}, r"not one of the choices \(method\): found 'l1'; allowed: l1-norm"),
        ({"sparsity": 0.5, "scop": "local"}, r"unknown key.*did you mean 'scope'"),
        ({"sparsity": 0.5, "choice": {}}, "unknown key"),
        ({"weight": {"sparsity": 0.5, "scope": "locl"}}, r"not one of the choices \(weight\.scope\)"),
        ({"weight": {"sparsity": 0.5}, "sparsity": 0.5}, "beside 'weight' and 'activation'"),
        ({"weight": 0.5}, r"not a table \(weight\)"),
        ({"activation": {}}, r"missing key \(activation\.sparsity\)"),
        ({"activation": {"sparsity": 0.5, "scope": "global"}}, r"activation\.scope\).*'global'.*local"),
        ({"activation": {"sparsity": 0.5, "layers": ["relu"]}}, r"activation\.layers"),
        ({"pattern": "4:2"}, r"not an N:M pattern.*'4:2'"),
        ({"pattern": "2:4", "scope": "global"}, r"does not go with an N:M pattern \(scope\)"),
        ({"sparsity": {"linear": 0.5}, "scope": "global"}, "each layer's own"),
        ({"sparsity": {"linear": 0.5}, "layers": ["linear"]}, "which chooses layers"),
        ({"sparsity": 0.5, "groups": {"a": ["0"]}}, "granularity = 'channel'"),
        ({"sparsity": 0.5, "layers": 3}, r"not a list of names \(layers\)"),
        ({"sparsity": 0.5, "layers": ["lin"], "by": "typ"}, r"not one of the choices.*did you mean 'type'"),
        ({"sparsity": 0.5, "layers": ["liner"]}, r"\(layers\).*did you mean 'linear'"),
        ({"sparsity": 0.9, "floor": 0.5}, "may lose"),
        ({"sparsity": 0.5, "method": "activation-aware"}, r"calibration batches \(method\)"),
    ],
)
def test_bad_tables_are_refused(table, message):
    with pytest.raises(BadInput, match=message):
        run(**table)


def test_weights_that_cannot_be_ranked_are_refused():
    graph = by_hand()
    with torch.no_grad():
        graph.model[0].weight[0, 0] = torch.nan
    with pytest.raises(BadInput, match=r"layer '0': weights that are NaN"):
        weights(graph, sparsity=0.5)


def test_the_callers_model_is_not_changed():
    graph = by_hand()
    before = {name: value.clone() for name, value in graph.model.state_dict().items()}
    prune(graph, PruneSettings(WeightPruning(sparsity=0.5), ActivationPruning(InputPruning(0.5))))
    assert all(torch.equal(value, before[name]) for name, value in graph.model.state_dict().items())
    assert graph.model.state_dict().keys() == before.keys()
    assert input_prunings_of(graph.model) == {}


# What it costs


def accuracy(graph, split, settings_=None, batches=None):
    model = prune(graph, settings_, batches)[0].model if settings_ else graph.model
    return evaluate(model, split.x, split.y, 512).accuracy


def curve(graph, split, method, sparsities, **keys):
    made = [PruneSettings(WeightPruning(sparsity=s, method=method, **keys)) for s in sparsities]
    return [accuracy(graph, split, one) for one in made]


@pytest.fixture(scope="module")
def tagger(real_data):
    """`jsc-hls4ml`, trained on pendigits, and its data."""
    data = load_data(DataSettings(name=f"npz:{real_data / 'pendigits.npz'}", val_fraction=0.1, test_fraction=0.2))
    model = build("jsc-hls4ml", (16,), 10, 0)
    fit(model, (data.train.x, data.train.y), None, SCHEDULE)
    return trace(model, data.val.x[:1]), data


SCHEDULE = TrainSettings(max_epochs=10, batch_size=256, learning_rate=0.01)


def test_an_mlp_forgives_l1_long_after_it_has_not_forgiven_random(tagger):
    graph, data = tagger
    dense = accuracy(graph, data.test)
    l1 = curve(graph, data.test, "l1-norm", (0.1, 0.3, 0.5, 0.7))
    random = curve(graph, data.test, "random", (0.1, 0.3, 0.5, 0.7))
    assert dense > 0.97
    assert dense - l1[1] < 0.02
    assert l1[2] > 0.85
    assert l1[3] > 0.4 > 0.2 > random[3]
    assert all(a > b + 0.02 for a, b in zip(l1, random, strict=True))


def test_the_smallest_inputs_are_missed_less_than_random_ones(tagger):
    graph, data = tagger
    found = {}
    for method in ("l1-norm", "random"):
        spec = PruneSettings(activation=ActivationPruning(InputPruning(0.5, method)))
        found[method] = accuracy(graph, data.test, spec)
    assert found["l1-norm"] > 0.8 > 0.6 > found["random"]


def test_fine_tuning_recovers_a_pruned_model_and_revives_nothing(tagger):
    graph, data = tagger
    aware = PruneSettings(WeightPruning(sparsity=0.8, method="activation-aware"))
    pruned, _ = prune(graph, aware, data.train.x[:2048].split(256))
    before, zeros = accuracy(pruned, data.test), sparsity_of(pruned.model)
    fit(pruned.model, (data.train.x, data.train.y), None, SCHEDULE)
    assert accuracy(pruned, data.test) > max(0.9, before + 0.2)
    assert sparsity_of(pruned.model) == zeros
    assert zeros["seq_blocks.2"] == round(0.8 * 2048) / 2048


@pytest.mark.slow
def test_resnet20_forgives_half_its_weights_by_l1_and_a_fifth_at_random_ruins_it(real_data):
    stem = DataSettings(
        name=f"npz:{real_data / 'cifar10_lossless_subset.npz'}", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    images = load_data(stem).test
    model = build("resnet20", (3, 32, 32), 10)
    load_state(model, read_state(real_data / "resnet20-12fca82f_cifar10.th"), "resnet20")
    graph = trace(model.eval(), torch.zeros(1, 3, 32, 32))
    local, wide = curve(graph, images, "l1-norm", (0.5, 0.7))
    assert local > 0.88
    assert wide < curve(graph, images, "l1-norm", (0.7,), scope="global")[0]  # thin layers are spared
    assert curve(graph, images, "random", (0.2,)) < [0.3]
