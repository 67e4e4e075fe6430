"""The small models of the field, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from paretobit.errors import BadInput
from paretobit.registry import Registry

Layout = Literal["features", "image"]
Build = Callable[[tuple[int, ...], int], nn.Module]

SMALLEST_IMAGE = 8


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be built for any data of its layout.

    Args:
        build: `(input_shape, num_classes)` to a module with fresh weights that maps
            `(rows, *input_shape)` to logits `(rows, num_classes)`; BadInput where the shape does not fit.
        layout: What the model is fed: vectors `(features,)` or images `(channels, height, width)`.
    """

    build: Build
    layout: Layout


MODELS: Registry[ModelEntry] = Registry("model")


def _model(name: str, layout: Layout, summary: str) -> Callable[[Build], Build]:
    """Decorator that registers a builder behind a check of what it is asked for."""

    def file(builder: Build) -> Build:
        def build(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
            shape = tuple(input_shape)
            _check(name, layout, shape, num_classes)
            return builder(shape, num_classes)

        MODELS.register(name, summary=summary)(ModelEntry(build, layout))
        return builder

    return file


def _check(name: str, layout: Layout, shape: tuple[int, ...], num_classes: int) -> None:
    if num_classes < 1:
        raise BadInput(
            f"model '{name}' needs a class", key="num_classes", found=num_classes, allowed="1 or more"
        )
    if layout == "features":
        fits, allowed = len(shape) == 1, "(features,): flatten the data first"
    else:
        fits = len(shape) == 3 and min(shape[1:]) >= SMALLEST_IMAGE
        allowed = f"(channels, height, width), {SMALLEST_IMAGE}x{SMALLEST_IMAGE} or larger"
    if not fits or min(shape) < 1:
        raise BadInput(
            f"model '{name}' does not take this shape", key="input_shape", found=shape, allowed=allowed
        )


class _Tagger(nn.Module):
    """Layers in a row, numbered as the field numbers them: `seq_blocks.0`, `seq_blocks.1`, …"""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.seq_blocks = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.seq_blocks(x)
        return logits


def _relu() -> nn.ReLU:
    return nn.ReLU(inplace=True)


@_model("jsc-tiny", "features", "jet tagger of one linear layer (117 parameters for 16 inputs, 5 classes)")
def _jsc_tiny(shape: tuple[int, ...], classes: int) -> nn.Module:
    (width,) = shape
    return _Tagger(nn.BatchNorm1d(width), _relu(), nn.Linear(width, classes), _relu())


@_model(
    "jsc-custom", "features", "jet tagger 32-16 with BatchNorm and dropout (1,295 parameters for 16 inputs)"
)
def _jsc_custom(shape: tuple[int, ...], classes: int) -> nn.Module:
    (width,) = shape
    layers: list[nn.Module] = [nn.BatchNorm1d(width), _relu()]
    for hidden in (32, 16):
        layers += [nn.Linear(width, hidden), nn.BatchNorm1d(hidden), _relu(), nn.Dropout(0.2)]
        width = hidden
    return _Tagger(*layers, nn.Linear(width, classes), nn.BatchNorm1d(classes), _relu())


@_model(
    "jsc-three-linear", "features", "jet tagger 16-16 of three linear layers (661 parameters for 16 inputs)"
)
def _jsc_three_linear(shape: tuple[int, ...], classes: int) -> nn.Module:
    (width,) = shape
    layers: list[nn.Module] = [nn.BatchNorm1d(width), _relu()]
    for after in (16, 16, classes):
        layers += [nn.Linear(width, after), _relu()]
        width = after
    return _Tagger(*layers)


@_model("jsc-hls4ml", "features", "the field's reference tagger 64-32-32 (4,389 parameters for 16 inputs)")
def _jsc_hls4ml(shape: tuple[int, ...], classes: int) -> nn.Module:
    (width,) = shape
    layers: list[nn.Module] = []
    for hidden in (64, 32, 32):
        layers += [nn.Linear(width, hidden), _relu()]
        width = hidden
    return _Tagger(*layers, nn.Linear(width, classes))


class _DigitsCNN(nn.Module):
    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(channels, 16),
            *_convolution(16, 32),
            nn.MaxPool2d(2),
            *_convolution(32, 32),
            nn.AdaptiveAvgPool2d(2),
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(4 * 32, classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x))
        return logits


def _convolution(channels: int, after: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), _relu()


@_model(
    "digits-cnn", "image", "three 3x3 convolutions for small images of any size (15,418 parameters for digits)"
)
def _digits_cnn(shape: tuple[int, ...], classes: int) -> nn.Module:
    return _DigitsCNN(shape[0], classes)
