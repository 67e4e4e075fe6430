"""The convolutional networks have their published sizes, take images of any size, and compute what they say."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from paretobit.models import MODELS, build

CONVNETS = ["vgg7", "resnet20", "resnet32", "resnet44", "resnet56", "mobilenet-tiny", "densenet-tiny"]
CIFAR = (3, 32, 32)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", CONVNETS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 9, 17)], ids=str)
def test_any_image_gives_finite_logits_and_gradients(name, shape):
    model = MODELS[name].build(shape, 7)
    logits = model(torch.randn(2, *shape))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_a_resnet_has_the_layers_and_parameters_of_its_paper(depth):
    """He et al. 2015, section 4.2: 6n + 2 layers, widths 16, 32, 64, shortcuts without parameters."""
    model = build(f"resnet{depth}", CIFAR, 10)
    n = (depth - 2) // 6
    convs = [(3, 16), *[(16, 16)] * 2 * n]
    for width in (32, 64):
        convs += [(width // 2, width), *[(width, width)] * (2 * n - 1)]
    assert parameters(model) == sum(9 * a * b + 2 * b for a, b in convs) + 64 * 10 + 10
    weighted = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) == depth


@pytest.mark.parametrize(("name", "millions"), [("resnet20", 0.27), ("resnet56", 0.85), ("vgg7", 14.0)])
def test_sizes_round_to_those_that_are_published(name, millions):
    assert parameters(build(name, CIFAR, 10)) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("name", ["mobilenet-tiny", "densenet-tiny"])
def test_the_summary_states_the_size(name):
    summary = next(entry.summary for entry in MODELS if entry.name == name)
    assert f"{parameters(build(name, CIFAR, 10)):,} parameters" in summary


def test_a_resnet_20_has_forty_million_macs():
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build("resnet20", CIFAR, 10).eval()(torch.zeros(1, *CIFAR))
    assert counter.get_total_flops() == 2 * 40_551_040


def test_the_shortcut_takes_every_second_pixel_and_adds_zeros():
    model = build("resnet20", CIFAR, 10).eval()
    block = model.layer2[0]
    nn.init.zeros_(block.conv2.weight)  # nothing but the shortcut is left
    x = torch.rand(2, 16, 8, 8)
    with torch.no_grad():
        y = block(x.clone())
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


def test_a_depthwise_layer_has_one_filter_per_channel():
    model = build("mobilenet-tiny", CIFAR, 10)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    depthwise = [conv for conv in convs if conv.groups > 1]
    assert len(depthwise) == 5
    assert all(conv.weight.shape[1] == 1 and conv.groups == conv.in_channels for conv in depthwise)
    assert all(conv.kernel_size == (1, 1) for conv in convs[1:] if conv.groups == 1)


def test_a_dense_layer_passes_its_input_on():
    model = build("densenet-tiny", CIFAR, 10).eval()
    layer = model.features[1]
    x = torch.randn(2, layer.conv.in_channels, 5, 5)
    with torch.no_grad():
        y = layer(x)
        norm = layer.norm
        normed = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        new = F.conv2d(normed.relu(), layer.conv.weight, padding=1)
    assert torch.equal(y[:, : x.shape[1]], x)
    torch.testing.assert_close(y[:, x.shape[1] :], new)
