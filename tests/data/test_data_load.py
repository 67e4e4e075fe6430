"""Loading: what every data set promises, whatever it came from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from paretobit.data import Data, DataSettings, load
from paretobit.errors import BadInput


@pytest.fixture
def npz(tmp_path: Path) -> Any:
    """Loads arrays by way of an npz file: `npz(arrays, **settings)`."""

    def through_file(arrays: dict[str, Any], **settings: Any) -> Data:
        path = tmp_path / "data.npz"
        np.savez(path, **arrays)
        return load(DataSettings(name=f"npz:{path}", **settings))

    return through_file


@pytest.fixture
def real() -> Path:
    folder = os.environ.get("PARETOBIT_TEST_DATA")
    if not folder:
        pytest.skip("PARETOBIT_TEST_DATA names no folder with real data")
    return Path(folder)


def features(rows: int = 200, classes: int = 4, width: int = 3, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(rows, width)) * 5 + 2).astype(np.float32)
    return {"X": x, "y": np.arange(rows) % classes}


def images(*shape: int) -> dict[str, Any]:
    pixels = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
    return {"X": pixels, "y": np.arange(shape[0]) % 2}


def test_digits_are_images_between_zero_and_one() -> None:
    data = load(DataSettings())
    assert data.input_shape == (1, 8, 8)
    assert data.num_classes == 10
    assert sum(map(len, data.splits)) == 1797
    assert data.train.x.dtype == torch.float32
    assert data.train.y.dtype == torch.int64
    assert data.train.x.min() == 0
    assert data.train.x.max() == 1
    assert "1,257 train + 270 val + 270 test" in data.summary()


def test_flattening_changes_the_shape_and_never_a_value() -> None:
    data = load(DataSettings())
    flat = data.flattened()
    assert flat.input_shape == (64,)
    assert torch.equal(flat.val.x, data.val.x.reshape(-1, 64))
    assert flat.preprocessing["flattened_from"] == [1, 8, 8]
    assert flat.flattened() is flat


def test_flattening_refuses_to_lose_augmentation() -> None:
    with pytest.raises(BadInput, match="need images"):
        load(DataSettings(flip=True)).flattened()


def test_the_fingerprint_is_that_of_the_bytes() -> None:
    first, again = load(DataSettings()), load(DataSettings())
    assert first.fingerprint == again.fingerprint
    assert len(first.fingerprint) == 16
    assert load(DataSettings(seed=1)).fingerprint != first.fingerprint
    changed = load(DataSettings())
    changed.split("test").x[-1, 0, 0, 0] += 1
    assert changed.fingerprint != first.fingerprint


def test_preprocessing_survives_json(npz: Any) -> None:
    found = npz(features()).preprocessing
    assert json.loads(json.dumps(found)) == found


def test_splits_are_reached_by_name() -> None:
    data = load(DataSettings(test_fraction=0))
    assert data.test is None
    assert data.split("val") is data.val
    with pytest.raises(BadInput, match="allowed: train, val"):
        data.split("test")


def test_features_are_standardised_by_the_training_split_alone(npz: Any) -> None:
    data = npz(features())
    assert torch.allclose(data.train.x.mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(data.train.x.std(0, correction=0), torch.ones(3), atol=1e-5)
    assert not torch.allclose(data.val.x.mean(0), torch.zeros(3), atol=1e-3)


def test_a_constant_feature_becomes_zero_not_infinite(npz: Any) -> None:
    arrays = features()
    arrays["X"][:, 1] = 0.1
    data = npz(arrays)
    assert torch.allclose(data.train.x[:, 1], torch.zeros(len(data.train)), atol=1e-5)
    assert data.preprocessing["std"][1] == 1


def test_a_given_test_set_is_kept_as_it_is_and_fits_nothing(npz: Any) -> None:
    train, test = features(), features(rows=12, seed=9)
    given = {"X_train": train["X"], "y_train": train["y"], "X_test": test["X"] + 100, "y_test": test["y"]}
    data = npz(given, limit=100)
    assert len(data.train) + len(data.val) == 100
    assert torch.equal(data.test.y, torch.from_numpy(test["y"]))
    assert data.test.x.mean() > 10
    other = npz(given | {"X_test": test["X"]}, limit=100)
    assert other.preprocessing == data.preprocessing
    assert torch.equal(other.train.x, data.train.x)


def test_a_given_validation_set_is_not_redrawn(npz: Any) -> None:
    train, val = features(), features(rows=8, seed=9)
    data = npz({**train, "X_val": val["X"], "y_val": val["y"]}, test_fraction=0, standardize=False)
    assert torch.equal(data.train.x, torch.from_numpy(train["X"]))
    assert torch.equal(data.val.x, torch.from_numpy(val["X"]))


@pytest.mark.parametrize(
    ("stored", "loaded"),
    [((40, 6, 6), (1, 6, 6)), ((40, 6, 7, 3), (3, 6, 7)), ((40, 3, 6, 6), (3, 6, 6)), ((40, 4, 4, 4), (4, 4, 4))],
)
def test_uint8_images_become_channels_first_between_zero_and_one(npz: Any, stored: Any, loaded: Any) -> None:
    data = npz(images(*stored))
    assert data.input_shape == loaded
    assert data.train.x.max() == 1
    assert data.train.x.is_contiguous()


def test_float_images_with_channels_first_stay(npz: Any) -> None:
    data = npz({"X": np.full((40, 16, 4, 4), 7.0), "y": np.arange(40) % 2})
    assert data.input_shape == (16, 4, 4)
    assert data.train.x.max() == 7


def test_mean_and_std_apply_per_channel_after_scaling(npz: Any) -> None:
    arrays = images(40, 5, 5, 3)
    plain = npz(arrays).val.x
    data = npz(arrays, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    expected = (plain - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.5, 0.6, 0.7])[:, None, None]
    assert torch.allclose(data.val.x, expected, atol=1e-6)


def test_images_are_standardised_per_channel_on_request(npz: Any) -> None:
    data = npz(images(40, 5, 5, 3), standardize=True)
    assert torch.allclose(data.train.x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert len(data.preprocessing["std"]) == 3


def test_whole_numbers_are_token_ids_unless_told_otherwise(npz: Any) -> None:
    arrays = {"X": np.arange(400).reshape(100, 4), "y": np.arange(100) % 2}
    assert npz(arrays).train.x.dtype == torch.int64
    assert npz(arrays).preprocessing["kind"] == "tokens"
    assert npz(arrays, standardize=True).train.x.dtype == torch.float32


def test_augmentation_is_only_there_when_asked_for(npz: Any) -> None:
    assert npz(images(40, 5, 5)).augment is None
    assert npz(images(40, 5, 5), crop_padding=2).augment.crop_padding == 2


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        ({"X": np.full((20, 2), np.nan)}, {}, "40 places, the first at row 0, column 0"),
        ({"X": np.full((20, 2), 1e300)}, {}, "infinity"),
        ({"X": np.zeros((0, 2)), "y": np.zeros(0)}, {}, "empty"),
        ({"X": np.zeros((19, 2))}, {}, "19 and 20"),
        ({"X": np.zeros(20)}, {}, "shape of the inputs"),
        ({"X": np.array([["a", "b"]] * 20)}, {}, "not numbers"),
        ({"y": np.zeros(20, int)}, {}, "single class"),
        ({"X_test": np.zeros((4, 3)), "y_test": np.arange(4) % 2}, {}, "samples of the test set differ"),
        ({"X_test": np.zeros((4, 2)), "y_test": np.arange(4)}, {}, "training lacks.*found \\[2, 3\\]"),
        ({}, {"mean": [0.5], "std": [0.5]}, "mean needs images"),
        ({}, {"flip": True}, "flip needs images"),
        ({}, {"crop_padding": 4}, "crop_padding needs images"),
        ({"X": np.zeros((20, 3, 8, 8))}, {"mean": [0.5], "std": [0.5]}, "one number per channel: 3"),
        ({}, {"val_fraction": 0.01}, "data.npz, data.val_fraction"),
        ({}, {"limit": 2}, "data.limit"),
    ],
)
def test_bad_input_is_refused(npz: Any, arrays: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        npz({"X": np.zeros((20, 2)), "y": np.arange(20) % 2} | arrays, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave no rows"),
        ({"mean": [0.5]}, "together"),
        ({"mean": [0.5], "std": [0.5], "standardize": True}, "already give"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        DataSettings(**settings)


@pytest.mark.parametrize("settings", [{"val_fraction": 0}, {"std": [0.0], "mean": [0.0]}, {"nmae": "digits"}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DataSettings(**settings)


def test_pendigits(real: Path) -> None:
    data = load(DataSettings(name=f"npz:{real}/pendigits.npz", val_fraction=0.1, test_fraction=0.2))
    assert (data.input_shape, data.num_classes) == ((16,), 10)
    assert [len(split) for split in data.splits] == [7695, 1099, 2198]


def test_mnist_keeps_its_test_set(real: Path) -> None:
    data = load(DataSettings(name=f"npz:{real}/mnist.npz", limit=1000))
    assert (data.input_shape, len(data.test), len(data.val)) == ((1, 28, 28), 10_000, 150)


def test_cifar_names_its_classes(real: Path) -> None:
    data = load(DataSettings(name=f"npz:{real}/cifar10_lossless_subset.npz", crop_padding=4, flip=True))
    assert (data.input_shape, len(data.test)) == ((3, 32, 32), 1017)
    assert data.classes[0] == "airplane"
    assert data.augment is not None
