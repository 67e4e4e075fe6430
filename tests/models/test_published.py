"""Published CIFAR ResNets in few bits, against what was measured (as floats: `tests/cli/test_networks`)."""

import pytest
import torch
from torch import nn

from paretobit.data import DataSettings
from paretobit.data import load as load_data
from paretobit.errors import CheckpointMismatch
from paretobit.formats import ScaledInteger
from paretobit.graph import trace
from paretobit.models import build, load_state, read_state
from paretobit.passes.transform import QuantizeSettings, quantize

CHECKPOINT = "resnet20-12fca82f_cifar10.th"


@pytest.fixture(scope="module")
def images(real_data):
    return load_data(
        DataSettings(
            name=f"npz:{real_data / 'cifar10_lossless_subset.npz'}",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
    )


def published(real_data):
    model = build("resnet20", (3, 32, 32), 10)
    load_state(model, read_state(real_data / CHECKPOINT), "resnet20")
    return model.eval()


@torch.no_grad()
def accuracy(model, split):
    right = [(model(x).argmax(1) == y).sum() for x, y in zip(split.x.split(256), split.y.split(256), strict=True)]
    return float(sum(right)) / len(split)


def test_the_settings_give_the_official_test_images_and_split_the_others(images):
    assert (len(images.train), len(images.val), len(images.test)) == (4322, 763, 1017)
    assert images.input_shape == (3, 32, 32)
    assert images.classes[:2] == ("airplane", "automobile")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "figure"), [(8, 0.915), (6, 0.918), (5, 0.917), (4, 0.906), (3, 0.730), (2, 0.093)])
def test_weights_in_few_bits_lose_what_was_measured(width, figure, images, real_data):
    graph = trace(published(real_data), torch.zeros(1, 3, 32, 32))
    entry = {"weight": str(ScaledInteger(width, per="channel"))}
    quantised, _ = quantize(graph, QuantizeSettings("type", {"conv2d": entry, "linear": entry}))
    assert accuracy(quantised.model, images.test) == pytest.approx(figure, abs=0.015)


def test_the_weights_are_those_of_the_definition(images, real_data):
    """Largest magnitude per output channel / 7, round half to even, BatchNorm not folded."""
    by_hand = published(real_data)
    graph = trace(by_hand, torch.zeros(1, 3, 32, 32))
    entry = {"weight": "scaled_integer(width=4, per=channel)"}
    quantised, _ = quantize(graph, QuantizeSettings("type", {"conv2d": entry, "linear": entry}))
    x = images.val.x[:16]
    with torch.no_grad():
        for module in by_hand.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                scale = module.weight.abs().flatten(1).amax(1) / 7
                scale = scale.reshape(-1, *[1] * (module.weight.dim() - 1))
                module.weight.copy_(torch.round(module.weight / scale) * scale)
        torch.testing.assert_close(quantised.model(x), by_hand(x))


def test_a_checkpoint_of_another_depth_is_refused(real_data):
    model = build("resnet32", (3, 32, 32), 10)
    before = model.conv1.weight.clone()
    with pytest.raises(CheckpointMismatch, match=r"missing: layer1\.3\.conv1\.weight"):
        load_state(model, read_state(real_data / CHECKPOINT), "resnet20")
    assert torch.equal(model.conv1.weight, before)
