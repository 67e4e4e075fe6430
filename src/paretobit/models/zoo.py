"""The models of the field by name: the registry, and the check of what a model is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

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


def model(name: str, layout: Layout, summary: str) -> Callable[[Build], Build]:
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
        raise BadInput(f"model '{name}' needs a class", key="num_classes", found=num_classes, allowed="1 or more")
    if layout == "features":
        fits, allowed = len(shape) == 1, "(features,): flatten the data first"
    else:
        fits = len(shape) == 3 and min(shape[1:]) >= SMALLEST_IMAGE
        allowed = f"(channels, height, width), {SMALLEST_IMAGE}x{SMALLEST_IMAGE} or larger"
    if not fits or min(shape) < 1:
        raise BadInput(f"model '{name}' does not take this shape", key="input_shape", found=shape, allowed=allowed)


def relu() -> nn.ReLU:
    """The activation of these models: in place, it keeps no copy of its input."""
    return nn.ReLU(inplace=True)
