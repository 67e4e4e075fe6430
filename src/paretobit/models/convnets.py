"""Convolutional networks for small images of any size: plain, residual, depthwise separable, dense."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paretobit.models.zoo import model, relu


class _Convnet(nn.Module):
    """Features, then logits."""

    def __init__(self, features: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x))
        return logits


def _conv(channels: int, after: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size, divided by the stride and rounded up."""
    return nn.Conv2d(channels, after, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def _convolution(channels: int, after: int, **shape: int) -> tuple[nn.Module, ...]:
    return _conv(channels, after, **shape), nn.BatchNorm2d(after), relu()


def _pooled_classifier(channels: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def _initialised(net: nn.Module) -> nn.Module:
    """Convolutions as deep ReLU networks need them: normal, variance 2 / inputs (He et al. 2015)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return net


@model("digits-cnn", "image", "three 3x3 convolutions for small images of any size (15,418 parameters for digits)")
def _digits_cnn(shape: tuple[int, ...], classes: int) -> nn.Module:
    features = nn.Sequential(
        *_convolution(shape[0], 16),
        *_convolution(16, 32),
        nn.MaxPool2d(2),
        *_convolution(32, 32),
        nn.AdaptiveAvgPool2d(2),
    )
    return _Convnet(features, nn.Sequential(nn.Flatten(), nn.Linear(4 * 32, classes)))


@model("vgg7", "image", "six 3x3 convolutions in three stages, three linear layers (14 M parameters for CIFAR)")
def _vgg7(shape: tuple[int, ...], classes: int) -> nn.Module:
    channels, height, width = shape
    layers: list[nn.Module] = []
    for stage in (128, 256, 512):
        layers += [*_convolution(channels, stage), *_convolution(stage, stage), nn.MaxPool2d(2)]
        channels = stage
    classifier = nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * (height // 8) * (width // 8), 1024),
        relu(),
        nn.Linear(1024, 1024),
        relu(),
        nn.Linear(1024, classes),
    )
    return _initialised(_Convnet(nn.Sequential(*layers), classifier))


class _Residual(nn.Module):
    """Two convolutions beside a shortcut without parameters (option A of He et al. 2015, section 4.2).

    Where the block has more channels than its input, the shortcut takes every second pixel and puts
    half of the new channels, all zero, before the old ones and half behind them.
    """

    def __init__(self, channels: int, after: int) -> None:
        super().__init__()
        self.added = after - channels
        stride = 2 if self.added else 1
        self.conv1, self.bn1, self.relu1 = _convolution(channels, after, stride=stride)
        self.conv2, self.bn2, self.relu2 = _convolution(after, after)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.added:
            before = self.added // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.added - before))
        out: Tensor = self.relu2(y + x)
        return out


class _CifarResNet(nn.Module):
    """The residual network for 32×32 images; the names of its layers are those of published checkpoints."""

    def __init__(self, channels: int, classes: int, blocks: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = _convolution(channels, 16)
        self.layer1 = _residuals(16, 16, blocks)
        self.layer2 = _residuals(16, 32, blocks)
        self.layer3 = _residuals(32, 64, blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.pool(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.linear(torch.flatten(x, 1))
        return logits


def _residuals(channels: int, after: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(_Residual(channels, after), *(_Residual(after, after) for _ in range(blocks - 1)))


def _register_resnet(depth: int, parameters: str) -> None:
    """`depth` layers with weights: one convolution, three stages of blocks of two, one linear layer."""

    @model(f"resnet{depth}", "image", f"{depth} layers for CIFAR, option-A shortcuts ({parameters} parameters)")
    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        return _initialised(_CifarResNet(shape[0], classes, (depth - 2) // 6))


for _depth, _parameters in ((20, "0.27 M"), (32, "0.46 M"), (44, "0.66 M"), (56, "0.85 M")):
    _register_resnet(_depth, _parameters)


@model("mobilenet-tiny", "image", "depthwise separable, after MobileNet (37,162 parameters for CIFAR)")
def _mobilenet_tiny(shape: tuple[int, ...], classes: int) -> nn.Module:
    layers = [*_convolution(shape[0], 16)]
    channels = 16
    for after, stride in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        layers += _convolution(channels, channels, stride=stride, groups=channels)
        layers += _convolution(channels, after, kernel=1)
        channels = after
    return _initialised(_Convnet(nn.Sequential(*layers), _pooled_classifier(channels, classes)))


class _Dense(nn.Module):
    """BatchNorm, ReLU and a convolution whose result is put behind its input (DenseNet)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()  # not in place: the input goes on as it is
        self.conv = _conv(channels, growth)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(self.relu(self.norm(x)))], 1)


@model("densenet-tiny", "image", "concatenated features after DenseNet (46,306 parameters for CIFAR)")
def _densenet_tiny(shape: tuple[int, ...], classes: int) -> nn.Module:
    growth, channels = 12, 24
    layers: list[nn.Module] = [_conv(shape[0], channels)]
    for stage in range(3):
        if stage:
            layers += [nn.BatchNorm2d(channels), relu(), _conv(channels, channels // 2, kernel=1)]
            layers.append(nn.AvgPool2d(2))
            channels //= 2
        layers += [_Dense(channels + growth * i, growth) for i in range(3)]
        channels += 3 * growth
    layers += [nn.BatchNorm2d(channels), relu()]
    return _initialised(_Convnet(nn.Sequential(*layers), _pooled_classifier(channels, classes)))
