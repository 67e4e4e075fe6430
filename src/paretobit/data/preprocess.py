"""From arrays as they come to tensors as a model wants them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from paretobit.data.raw import Array
from paretobit.data.settings import DataSettings
from paretobit.errors import BadInput

Kind = Literal["features", "image", "tokens"]
CHANNEL_COUNTS = (1, 3, 4)
_BLOCK = 4096


@dataclass(frozen=True)
class Preprocessing:
    """How inputs are arranged and normalised; decided and fitted on training rows, applied to all.

    Args:
        kind: Feature vectors N×F, images, or token ids N×T.
        channels_last: Images come as N×H×W×C.
        scale: Factor on the raw values.
        mean, std: Per feature or per channel, after scaling; None for no normalisation.
        fitted: Whether mean and std come from the training rows.
    """

    kind: Kind
    channels_last: bool = False
    scale: float = 1.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fitted: bool = False

    @classmethod
    def fit(cls, train: Array, settings: DataSettings, source: str | None = None) -> Preprocessing:
        """Decide from the training rows and the settings.

        Raises:
            BadInput: Settings for images meet other data, or mean and std are of the wrong length.
        """
        kind = kind_of(train, settings.standardize)
        _refuse_image_settings(kind, settings, source)
        scaled = kind == "image" and train.dtype == np.uint8
        found = cls(kind, _channels_last(train), 1 / 255 if scaled else 1.0)
        if settings.mean is not None and settings.std is not None:
            channels = found.arranged(train[:1]).shape[1]
            for key, values in (("mean", settings.mean), ("std", settings.std)):
                if len(values) != channels:
                    allowed = f"one number per channel: {channels}"
                    raise BadInput("wrong length", key=f"data.{key}", found=values, allowed=allowed)
            return replace(found, mean=settings.mean, std=settings.std)
        wanted = settings.standardize if settings.standardize is not None else kind == "features"
        if not wanted:
            return found
        mean, std = _statistics(found.arranged(train))
        return replace(found, mean=mean, std=std, fitted=True)

    def arranged(self, x: Array) -> Array:
        """A scaled float32 copy, channels first for images; int64 for token ids."""
        if self.kind == "tokens":
            return x.astype(np.int64, order="C")
        if self.kind == "image" and x.ndim == 3:
            x = x[:, None]
        if self.channels_last:
            x = x.transpose(0, 3, 1, 2)
        arranged = x.astype(np.float32, order="C")
        if self.scale != 1.0:
            arranged *= np.float32(self.scale)
        return arranged

    def apply(self, x: Array) -> Tensor:
        """Inputs as a tensor of their own: float32 N×F or N×C×H×W, or int64 N×T."""
        out = self.arranged(x)
        if self.mean is not None and self.std is not None:
            shape = (1, -1) + (1,) * (out.ndim - 2)
            out -= np.asarray(self.mean, np.float32).reshape(shape)
            out /= np.asarray(self.std, np.float32).reshape(shape)
        return torch.from_numpy(out)

    def describe(self) -> dict[str, Any]:
        """What is applied, JSON-able, without what is not."""
        found: dict[str, Any] = {"kind": self.kind}
        if self.channels_last:
            found["layout"] = "NHWC to NCHW"
        if self.scale != 1.0:
            found["scale"] = self.scale
        if self.mean is not None and self.std is not None:
            found |= {"mean": list(self.mean), "std": list(self.std)}
            found["statistics"] = "training split" if self.fitted else "settings"
        return found


def kind_of(x: Array, standardize: bool | None = None) -> Kind:
    """What the inputs are: three or four axes are images, two are feature vectors or token ids.

    Token ids are whole numbers of 32 or 64 bits, none negative, that nobody asked to standardise.

    >>> kind_of(np.zeros((5, 3))), kind_of(np.zeros((5, 3), np.int64)), kind_of(np.zeros((5, 8, 8)))
    ('features', 'tokens', 'image')
    """
    if x.ndim > 2:
        return "image"
    whole = x.dtype in (np.int32, np.int64)
    return "tokens" if whole and not standardize and x.min() >= 0 else "features"


def _channels_last(x: Array) -> bool:
    if x.ndim != 4 or x.shape[3] not in CHANNEL_COUNTS:
        return False
    a, b, c = x.shape[1:]
    # Most images are square: that settles what the channel count alone leaves open.
    if (a == b) != (b == c):
        return bool(a == b)
    return a not in CHANNEL_COUNTS or x.dtype == np.uint8


def _refuse_image_settings(kind: Kind, settings: DataSettings, source: str | None) -> None:
    if kind == "image":
        return
    for key in ("mean", "std", "crop_padding", "flip"):
        if getattr(settings, key):
            raise BadInput(f"{key} needs images", source=source, key=f"data.{key}", found=kind)


def _statistics(x: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per feature or channel, in double precision; constants get 1."""
    axes = (0, *range(2, x.ndim))
    blocks = [x[start : start + _BLOCK] for start in range(0, len(x), _BLOCK)]
    count = x.size / x.shape[1]
    mean = sum(block.sum(axes, dtype=np.float64) for block in blocks) / count
    centre = mean.reshape((1, -1) + (1,) * (x.ndim - 2))
    variance = sum(((block - centre) ** 2).sum(axes) for block in blocks) / count
    std = np.where(x.max(axes) == x.min(axes), 1.0, np.sqrt(variance))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())
