"""Rows that the search learns from: cut into even batches, and known by what they hold."""

import pytest
import torch

from paretobit.data.calibration import Calibration

X, Y = torch.arange(40.0).reshape(20, 2), torch.arange(20)


@pytest.mark.parametrize(("rows", "sizes"), [(1000, [20]), (20, [20]), (8, [7, 7, 6]), (1, [1] * 20), (0, [1] * 20)])
def test_batches_are_of_nearly_the_same_size_and_keep_their_targets(rows, sizes):
    calibration = Calibration.of_rows(X, Y, rows)
    assert [len(batch) for batch in calibration.batches] == sizes
    assert torch.equal(torch.cat(calibration.batches), X)
    assert torch.equal(torch.cat(calibration.targets), Y)
    assert Calibration.of_rows(X, None, rows).targets is None


def squared(output, target):
    return (output - target).square().mean()


def test_the_fingerprint_follows_what_matters():
    def of(x=X, y=Y, rows=8, loss=None):
        return Calibration.of_rows(x, y, rows, loss).fingerprint

    changed = X.clone()
    changed[3, 1] += 1
    assert of() == of(X.clone())
    assert of() == of(y=Y + 1)  # drawn labels do not look at targets
    assert len({of(), of(changed), of(X.double()), of(rows=5), of(loss=squared), of(y=Y + 1, loss=squared)}) == 6


def test_batches_of_names_and_of_positions_have_fingerprints():
    named = [Calibration(({"x": X, "mask": Y + i},)).fingerprint for i in (0, 0, 1)]
    placed = [Calibration(([X, Y + i],)).fingerprint for i in (0, 0, 1)]
    assert named[0] == named[1] != named[2]
    assert placed[0] == placed[1] != placed[2]
