"""Models, data and spaces on which strategies are compared; a case is a function of a seed.

A case gives a mapping: `model`; `calibration`, `val` and `test`, each `(x, y)`; `space`. It may give
`low` and `high`, the range of mean BitOPs per multiply-accumulate that counts; `worst_accuracy` and
`worst_loss`, at which a point is worth nothing; `guided_trials`, where these are not 24. The seed draws
what is calibrated and validated on.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

import paretobit as pb
from paretobit.models import build, load_state, read_state
from paretobit.training import TrainSettings, fit

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def resnet20_wa(seed: int) -> dict[str, Any]:
    """Protocol `resnet20-wa`: the published ResNet-20 on CIFAR-10, weights per channel, inputs per tensor.

    512 training images calibrate, the next 2,000 choose; the 1,017 test images judge.
    """
    folder = real_data()
    images = np.load(folder / "cifar10_lossless_subset.npz")
    x, y = _normalised(images["X_train"]), _labels(images["y_train"])
    order = np.random.default_rng(seed).permutation(len(x))
    calibration, validation = order[:512], order[512:2512]
    model = build("resnet20", (3, 32, 32), 10).eval()
    checkpoint = str(folder / "resnet20-12fca82f_cifar10.th")
    load_state(model, read_state(checkpoint), checkpoint)
    weights = {"weight_width": [2, 3, 4, 5, 6, 8], "weight_per": "channel", "weight_calibration": "mse"}
    inputs = {"data_in_width": [3, 4, 6, 8], "data_in_calibration": "mse"}
    signed = {"name": "scaled_integer", **weights, **inputs}
    after_relu = {**signed, "data_in_signed": False}
    layers = {"conv2d": after_relu, "linear": after_relu}
    return {
        "model": model,
        "calibration": (x[calibration], y[calibration]),
        "val": (x[validation], y[validation]),
        "test": (_normalised(images["X_test"]), _labels(images["y_test"])),
        "space": pb.Quantize(by="type", seed=layers, first=signed) * pb.Correct(),
        "low": 6.0,
        "high": 64.0,
        "worst_accuracy": 0.1,
        "worst_loss": math.log(10),
    }


def pendigits(seed: int) -> dict[str, Any]:
    """`jsc-hls4ml`, trained here on pendigits: 10 options for each of 4 layers, 10,000 configurations."""
    rows = np.load(real_data() / "pendigits.npz")
    order = np.random.default_rng(seed).permutation(len(rows["X"]))
    x = torch.from_numpy(rows["X"][order].astype(np.float32) / 100)
    y = _labels(rows["y"][order])
    parts = {"calibration": slice(512), "val": slice(6000, 8500), "test": slice(8500, None)}
    model = _trained(build("jsc-hls4ml", (16,), 10, seed), x[:6000], y[:6000], seed)
    data = [_integer(*pair) for pair in ((8, 3), (6, 2), (6, 1), (5, 0), (4, 0))]
    weight = [_integer(4, 4), _integer(2, 2)]
    layer = {"name": "integer", "data_in": data, "weight": weight, "bias": _integer(16, 10)}
    return {
        "model": model,
        **{name: (x[part], y[part]) for name, part in parts.items()},
        "space": pb.Quantize(by="type", seed={"linear": layer}),
        "guided_trials": 200,
        "low": 8.0,
        "high": 32.0,
        "worst_accuracy": 0.1,
        "worst_loss": math.log(10),
    }


def real_data() -> Path:
    """The folder of real data.

    Raises:
        SystemExit: `PARETOBIT_TEST_DATA` names none.
    """
    folder = os.environ.get("PARETOBIT_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        raise SystemExit("this case needs PARETOBIT_TEST_DATA")
    return Path(folder)


def _normalised(images: np.ndarray) -> torch.Tensor:
    scaled = (images.astype(np.float32) / 255 - np.array(_MEAN, np.float32)) / np.array(_STD, np.float32)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))


def _labels(labels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(labels.astype(np.int64))


def _integer(width: int, frac_width: int) -> dict[str, int]:
    return {"width": width, "frac_width": frac_width}


def _trained(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, seed: int) -> torch.nn.Module:
    settings = TrainSettings(max_epochs=30, batch_size=128, learning_rate=1e-2, scheduler="onecycle", seed=seed)
    fit(model, (x, y), None, settings)
    return model.eval()
