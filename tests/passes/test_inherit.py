"""Models keep working with other widths, on ten kinds of network, and `net2wider` keeps what they compute."""

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from paretobit.errors import BadInput
from paretobit.graph import trace
from paretobit.graph.widths import width_groups
from paretobit.models import MODELS
from paretobit.passes.analysis import cost
from paretobit.passes.transform.inherit import resize as resize_graph


def resize(*arguments, **more):
    """The model alone."""
    return resize_graph(*arguments, **more).model


def plain_cnn():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(8 * 4, 12),
        nn.PReLU(12),
        nn.Linear(12, 4),
    )


def vgg():
    layers, channels = [], 3
    for block in ((8, 8), (12, 12)):
        for width in block:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 4)]
    return nn.Sequential(*layers, *head)


class Residual(nn.Module):
    def __init__(self, before, after, stride, option):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.option = option if before != after else None
        self.extra = (after - before) // 2
        if self.option == "B":
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.option == "A":
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))
        elif self.option == "B":
            x = self.shortcut(x)
        return F.relu(y + x)


class ResNet(nn.Module):
    def __init__(self, option):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.blocks = nn.Sequential(Residual(4, 4, 1, option), Residual(4, 8, 2, option), Residual(8, 8, 1, option))
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.fc(F.avg_pool2d(x, x.size()[3]).view(x.size(0), -1))


def mobilenet():
    def separable(before, after):
        return [
            nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False),
            nn.BatchNorm2d(before),
            nn.ReLU6(),
            nn.Conv2d(before, after, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU6(),
        ]

    stem = [nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6()]
    multiplied = [nn.Conv2d(12, 24, 3, groups=12), nn.ReLU()]  # two filters a channel
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)]
    return nn.Sequential(*stem, *separable(8, 12), *separable(12, 12), *multiplied, *head)


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.norm, self.fc = nn.BatchNorm2d(18), nn.Linear(18, 4)

    def forward(self, x):
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        return self.fc(F.relu(self.norm(x)).mean([2, 3]))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.SiLU())
        self.down2 = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(6, 10, 3, padding=1), nn.SiLU())
        self.up = nn.ConvTranspose2d(10, 6, 2, stride=2)
        self.mix = nn.Conv2d(12, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.up(self.down2(a))
        return self.head(F.silu(self.mix(torch.cat((a, b), dim=1))) + a)


class Encoder(nn.Module):
    """Attention written out, the number of heads following the projections; a learned position."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(5, 16)
        self.position = nn.Parameter(torch.randn(1, 6, 16))
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.embed(x) + self.position
        y = self.norm1(x)
        q, k, v = (p(y).view(x.size(0), x.size(1), -1, 4).transpose(1, 2) for p in (self.q, self.k, self.v))
        a = (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
        x = x + self.o(a.transpose(1, 2).flatten(2))
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return self.head(x.mean(1))


def grouped():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 16, 3, padding=1, groups=4),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.ChannelShuffle(4),
        nn.Conv2d(16, 8, 1, groups=2),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 4),
    )


TINY = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}


def bert():
    config = BertConfig(**TINY, intermediate_size=24, max_position_embeddings=12, num_labels=3)
    return BertForSequenceClassification(config)


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=30, n_positions=12, n_embd=16, n_layer=2, n_head=4))


IMAGE = (2, 3, 8, 8)
NETWORKS = {
    "jsc-custom": (lambda: MODELS["jsc-custom"].build((16,), 5), (2, 16)),
    "plain cnn": (plain_cnn, IMAGE),
    "vgg": (vgg, IMAGE),
    "resnet with projections": (lambda: ResNet("B"), IMAGE),
    "resnet with padded shortcuts": (lambda: ResNet("A"), IMAGE),
    "mobilenet": (mobilenet, IMAGE),
    "densenet": (DenseNet, IMAGE),
    "u-net": (UNet, IMAGE),
    "encoder": (Encoder, (2, 6, 5)),
    "grouped": (grouped, IMAGE),
    "bert": (bert, "indices"),
    "gpt2": (gpt2, "indices"),
}
MULTIPLIERS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3)


def build(name):
    """A network in evaluation mode, its statistics as after training, and an input."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    model = make().double().eval()
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
    x = torch.randint(0, 30, (2, 7)) if shape == "indices" else torch.randn(shape, dtype=torch.float64)
    return model, x


def result(model, x):
    value = model(x)
    return value if isinstance(value, torch.Tensor) else value.logits


def flops(model, x):
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops()


def width_of(module):
    """Channels a layer makes, as its attributes say it."""
    names = ("out_features", "out_channels", "nf", "embedding_dim")
    return next(getattr(module, name) for name in names if hasattr(module, name))


def drawn(groups, generator):
    """Random widths of all free groups."""
    widths = {}
    for group in groups.free:
        units = group.width // group.divisor
        widths[group.name] = max(1, round(units * generator.choice(MULTIPLIERS))) * group.divisor
    return widths


@pytest.mark.parametrize("name", NETWORKS)
def test_twenty_random_draws_run_forward_and_backward(name):
    model, x = build(name)
    before = copy.deepcopy(model.state_dict())
    graph = trace(model, x)
    groups, generator = width_groups(graph), random.Random(0)
    expected = result(model, x).shape
    assert groups.free
    for draw in range(20):
        widths = drawn(groups, generator)
        inherit = ("scratch", "slice", "l1")[draw % 3]
        again = resize_graph(graph, widths, inherit, draw, groups=groups)
        out = result(again.model, x)
        assert out.shape == expected
        assert torch.isfinite(out).all()
        out.square().sum().backward()
        made = {node.name: again.module(node) for node in again.layers}
        for group in groups.free:
            for producer in group.producers:
                if group.width == width_of(graph.module(graph[producer])):
                    assert width_of(made[producer]) == widths[group.name], producer
        assert flops(again.model, x) == 2 * 2 * cost(again).total("macs")  # a batch of two
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


WIDENS = {
    "encoder": ["fc1"],
    "u-net": ["down2_1"],
    "bert": [f"bert_encoder_layer_{i}_intermediate_dense" for i in range(2)],
    "gpt2": [f"transformer_h_{i}_mlp_c_fc" for i in range(2)],
}
"""Groups that no normalisation sees, in the networks that normalise over channels."""


@pytest.mark.parametrize("name", NETWORKS)
def test_wider_copies_compute_the_same(name):
    model, x = build(name)
    graph = trace(model, x)
    groups, generator = width_groups(graph), random.Random(1)
    expected = result(model, x)
    for draw in range(20):
        chosen = [group for group in groups.free if group.name in WIDENS.get(name, [group.name])]
        widths = {g.name: round(g.width // g.divisor * generator.uniform(1, 3)) * g.divisor for g in chosen}
        wider = resize(graph, widths, "net2wider", draw, groups=groups)
        error = (result(wider, x) - expected).abs().max() / expected.abs().max()
        assert error < 1e-9, widths
    wider.double().float()
    assert (result(wider, x if not x.is_floating_point() else x.float()) - expected).abs().max() < 1e-4


def test_the_groups_of_the_networks_are_those_that_their_wiring_asks_for():
    """By hand: what is added shares a width, what is concatenated does not, and heads come in fours."""
    wanted = {
        "resnet with projections": {
            ("conv", "blocks_0_conv2"): (4, 1),
            ("blocks_0_conv1",): (4, 1),
            ("blocks_1_conv1",): (8, 1),
            ("blocks_1_conv2", "blocks_1_shortcut_0", "blocks_2_conv2"): (8, 1),
            ("blocks_2_conv1",): (8, 1),
        },
        "densenet": {("stem",): (6, 1), ("convs_0",): (4, 1), ("convs_1",): (4, 1), ("convs_2",): (4, 1)},
        "mobilenet": {("0", "3"): (8, 1), ("6", "9"): (12, 1), ("12", "15"): (12, 1)},
        "encoder": {("embed", "o", "fc2"): (16, 1), ("q", "k", "v"): (16, 4), ("fc1",): (32, 1)},
        "grouped": {("0",): (8, 4), ("1",): (16, 8), ("5",): (8, 2)},
        "u-net": {("down1_0", "mix"): (6, 2), ("down2_1",): (10, 1), ("up",): (6, 1)},
    }
    for name, expected in wanted.items():
        groups = width_groups(trace(*build(name)))
        assert {g.producers: (g.width, g.divisor) for g in groups.free} == expected, name


def test_of_gpt2_the_attribute_by_which_it_splits_follows_the_width():
    model, x = build("gpt2")
    groups = width_groups(trace(model, x))
    attention = [f"transformer_h_{i}_attn_c_attn" for i in range(2)]
    assert sorted(g.name for g in groups.free) == sorted(["transformer_wte", *attention, *WIDENS["gpt2"]])
    group = groups[attention[0]]
    wider = resize(trace(model, x), {group.name: group.width + group.divisor})
    assert wider.get_submodule("transformer.h.0.attn").split_size == (group.width + group.divisor) // 3


class Fixed(nn.Module):
    """Sizes that stand in the code."""

    def __init__(self, late=False):
        super().__init__()
        self.conv, self.fc, self.late = nn.Conv2d(1, 4, 3), nn.Linear(16, 2), late

    def forward(self, x):
        x = self.conv(x)
        if self.late and x.sum() > 1e9:  # fx cannot look past this
            return x
        return self.fc(x.view(-1, 16))


def test_a_size_in_the_code_freezes_the_width():
    groups = width_groups(trace(Fixed(), torch.randn(2, 1, 4, 4)))
    assert groups.free == ()
    assert groups["conv"].frozen == "view asks for the fixed size 16"
    with pytest.raises(BadInput, match=r"this width cannot change: view asks for the fixed size 16 \(conv\)"):
        resize(trace(Fixed(), torch.randn(2, 1, 4, 4)), {"conv": 8})


def test_a_size_in_the_code_that_the_graph_does_not_show_is_found_by_the_trial_run():
    graph = trace(Fixed(late=True), torch.randn(2, 1, 4, 4))
    assert graph.method == "run"
    with pytest.raises(BadInput, match=r"this width cannot change: view asks for the fixed size 16 \(conv\)"):
        resize(graph, {"conv": 8})


def test_normalisation_over_channels_lets_only_whole_copies_pass():
    model, x = build("encoder")
    graph = trace(model, x)
    wider = resize(graph, {"embed": 32, "q": 24}, "net2wider")
    torch.testing.assert_close(wider(x), model(x), rtol=1e-9, atol=1e-9)
    with pytest.raises(BadInput, match=r"through 'norm1' \(layer_norm\).*found 24; allowed: a multiple of 16"):
        resize(graph, {"embed": 24}, "net2wider")


def test_group_norm_lets_only_whole_copies_pass():
    model, x = build("u-net")
    graph = trace(model, x)
    torch.testing.assert_close(resize(graph, {"down1_0": 12}, "net2wider")(x), model(x), rtol=1e-9, atol=1e-9)
    with pytest.raises(BadInput, match=r"through 'down1_1' \(group_norm\)"):
        resize(graph, {"down1_0": 8}, "net2wider")


class Scores(nn.Module):
    """Queries and keys meet over their channels."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(4, 3)

    def forward(self, x):
        return F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))


def test_copies_that_a_product_of_activations_would_count_twice_are_refused():
    graph = trace(Scores(), torch.randn(2, 5, 4))
    assert resize(graph, {"q": 3})(torch.randn(1, 5, 4)).shape == (1, 5, 3)
    with pytest.raises(BadInput, match="cannot keep the function through 'scaled_dot_product_attention'"):
        resize(graph, {"q": 12}, "net2wider")


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.embed(x))


def test_tied_weights_stay_tied_and_cannot_be_copied():
    graph = trace(Tied(), torch.zeros(2, 3, dtype=torch.long))
    model = resize(graph, {"embed": 7})
    assert model.head.weight is model.embed.weight
    assert model.head.weight.shape == (10, 7)
    assert (model.head.in_features, model.embed.embedding_dim) == (7, 7)
    with pytest.raises(BadInput, match="used as two kinds of weight"):
        resize(graph, {"embed": 8}, "net2wider")


def mlp():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def test_a_slice_keeps_the_first_channels_and_l1_the_largest():
    model = mlp()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 5, 0], [0.5, 0, 0], [-3, -3, 0]]))
    graph = trace(model, torch.zeros(2, 3))
    for inherit, kept in (("slice", [0, 1]), ("l1", [1, 3])):
        small = resize(graph, {"0": 2}, inherit)
        assert torch.equal(small[0].weight, model[0].weight[kept])
        assert torch.equal(small[0].bias, model[0].bias[kept])
        assert torch.equal(small[1].running_var, model[1].running_var[kept])
        assert torch.equal(small[3].weight, model[3].weight[:, kept])
        assert torch.equal(small[3].bias, model[3].bias)
    wide = resize(graph, {"0": 6}, "slice")
    assert torch.equal(wide[0].weight[:4], model[0].weight)
    assert torch.equal(wide[3].weight[:, :4], model[3].weight)
    assert (wide[0].weight[4:].abs() > 0).all()
    fresh = resize(graph, {"0": 6}, "scratch")
    assert not torch.isin(fresh[0].weight, model[0].weight).any()


def test_a_seed_gives_the_same_weights_and_leaves_the_generator_alone():
    graph = trace(mlp(), torch.zeros(2, 3))
    state = torch.get_rng_state()
    first, same, other = (resize(graph, {"0": 9}, "scratch", seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first[0].weight, same[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)


def test_copies_do_not_stay_copies_in_training():
    model = mlp()
    wide = resize(trace(model, torch.zeros(2, 3)), {"0": 8}, "net2wider")
    wide(torch.randn(16, 3)).square().sum().backward()
    gradients = wide[0].weight.grad
    assert len({tuple(row) for row in wide[0].weight.tolist()}) == 4
    assert not any(torch.allclose(gradients[i], gradients[j]) for i in range(8) for j in range(i) if gradients[i].any())


def test_type_mode_and_frozen_parameters_are_kept():
    model = mlp().to(torch.bfloat16).train()
    model[3].weight.requires_grad_(False)
    new = resize(trace(model, torch.zeros(2, 3, dtype=torch.bfloat16)), {"0": 8}, "net2wider")
    assert all(p.dtype == torch.bfloat16 for p in new.parameters())
    assert new.training
    assert new[1].training
    assert [p.requires_grad for p in new.parameters()] == [True] * 4 + [False, True]


@pytest.mark.parametrize("width", [0, -4, 2.0, "8", True])
def test_a_width_is_a_positive_whole_number(width):
    with pytest.raises(BadInput, match="not a width of this group"):
        resize(trace(mlp(), torch.zeros(2, 3)), {"0": width})


def test_a_width_that_groups_of_channels_do_not_allow_is_refused():
    model, x = build("encoder")
    with pytest.raises(BadInput, match=r"not a width of this group \(q\): found 18; allowed: a multiple of 4"):
        resize(trace(model, x), {"q": 18})
