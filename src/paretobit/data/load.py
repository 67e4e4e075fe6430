"""Settings in, data set out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from paretobit.data import splits
from paretobit.data.augment import Augmentation
from paretobit.data.dataset import Data, Split
from paretobit.data.labels import encode
from paretobit.data.preprocess import Preprocessing
from paretobit.data.raw import Array, RawData
from paretobit.data.settings import DataSettings
from paretobit.data.sources import read
from paretobit.data.text import tokenised
from paretobit.errors import located


def load(settings: DataSettings) -> Data:
    """Read, check, split and preprocess.

    A test or validation set that came with the source is kept whole and as it is; otherwise it is drawn,
    stratified, by the seed. Everything fitted is fitted on the training split alone.

    Raises:
        BadInput: The source, its contents or the settings are not usable.
    """
    raw = read(settings).checked()
    parts = raw.parts()
    labels, classes = encode({part: y for part, (_, y) in parts.items()}, raw.classes, raw.source)
    with located(raw.source):
        rows = splits.draw(labels["train"], classes, settings, given=parts.keys() - {"train"})
    given = {part: (x, labels[part]) for part, (x, _) in parts.items() if part != "train"}
    arrays = given | {part: (raw.x[index], labels["train"][index]) for part, index in rows.items()}
    inputs, applied = _prepared({part: x for part, (x, _) in arrays.items()}, settings, raw)
    tensors = {part: Split(part, inputs[part], torch.from_numpy(y)) for part, (_, y) in arrays.items()}
    augmented = settings.crop_padding > 0 or settings.flip
    return Data(
        name=settings.name,
        train=tensors["train"],
        val=tensors["val"],
        test=tensors.get("test"),
        classes=classes,
        augment=Augmentation(settings.crop_padding, settings.flip) if augmented else None,
        preprocessing={**raw.notes, **applied},
    )


def _prepared(
    arrays: Mapping[str, Array], settings: DataSettings, raw: RawData
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Inputs of every split as tensors, and what was done to them; fitted on `train` alone."""
    if raw.is_text:
        return tokenised(arrays, settings, raw.source)
    steps = Preprocessing.fit(arrays["train"], settings, raw.source)
    return {part: steps.apply(x) for part, x in arrays.items()}, steps.describe()
