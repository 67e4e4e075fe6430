"""Augmentation: each image on its own, the input untouched, the generator in charge."""

from __future__ import annotations

import torch

from paretobit.data.augment import Augmentation

X = torch.arange(1.0, 64 * 2 * 3 * 4 + 1).reshape(64, 2, 3, 4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nothing_to_do_changes_nothing() -> None:
    assert torch.equal(Augmentation()(X, generator()), X)


def test_the_input_is_never_modified() -> None:
    before = X.clone()
    out = Augmentation(2, True)(X, generator())
    out.zero_()
    assert torch.equal(X, before)


def test_the_generator_alone_decides() -> None:
    change = Augmentation(2, True)
    assert torch.equal(change(X, generator(1)), change(X, generator(1)))
    assert not torch.equal(change(X, generator(1)), change(X, generator(2)))


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    out = Augmentation(flip=True)(X, generator())
    mirrored = (out == X.flip(3)).flatten(1).all(1)
    kept = (out == X).flatten(1).all(1)
    assert (mirrored | kept).all()
    assert 16 < mirrored.sum() < 48


def test_every_crop_is_a_window_of_the_padded_image() -> None:
    out = Augmentation(crop_padding=1)(X, generator())
    padded = torch.nn.functional.pad(X, [1] * 4)
    windows = torch.stack([padded[..., r : r + 3, c : c + 4] for r in range(3) for c in range(3)])
    matches = (windows == out).flatten(2).all(2)
    assert (matches.sum(0) == 1).all()
    assert (matches.sum(1) > 0).all()
