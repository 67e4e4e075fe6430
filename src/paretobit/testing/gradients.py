"""Gradients pass straight through, and every format trains."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from paretobit.formats import Format, LossyFormat
from paretobit.testing.inputs import DTYPES, EXACT, in_each, normal, same
from paretobit.testing.tensors import seeded


def gradient_of(number_format: Format, x: Tensor, upstream: Tensor) -> Tensor:
    """What arrives at `x` when `upstream` comes in behind the format."""
    leaf = x.clone().requires_grad_()
    y = number_format.quantize(leaf)
    assert y.requires_grad
    (gradient,) = torch.autograd.grad(y, leaf, upstream)
    return gradient


class Gradients:
    """The straight-through gradient: that of the identity, or none where values saturate."""

    @in_each(DTYPES)
    def test_the_gradient_is_that_of_the_identity(self, number_format: Format, dtype: torch.dtype) -> None:
        if isinstance(number_format, LossyFormat):
            number_format = dataclasses.replace(number_format, gradient="pass")
        for shape in ((), (7,), (3, 5), (2, 3, 5), (0, 3)):
            x, upstream = normal(shape, dtype) * 10, normal(shape, dtype, seed=1)
            assert same(gradient_of(number_format, x, upstream), upstream)
        x = torch.tensor([-30000.0, 0.0, 1e-6, 30000.0], dtype=dtype)
        assert same(gradient_of(number_format, x, x + 1), x + 1)

    def test_values_are_the_same_whether_or_not_a_gradient_is_asked_for(self, number_format: Format) -> None:
        x = normal((6, 8))
        leaf = x.clone().requires_grad_()
        assert same(seeded(number_format, leaf).detach(), seeded(number_format, x))
        with torch.no_grad():
            assert not number_format.quantize(leaf).requires_grad

    @in_each(EXACT)
    def test_a_masked_gradient_is_zero_where_values_saturate(
        self, number_format: Format, dtype: torch.dtype
    ) -> None:
        if not isinstance(number_format, LossyFormat):
            return
        number_format = dataclasses.replace(number_format, gradient="mask")
        x, upstream = normal((6, 8), dtype) * 10, normal((6, 8), dtype, seed=1)
        masked = gradient_of(number_format, x, upstream)
        assert ((masked == upstream) | (masked == 0)).all()
        if number_format.traits.scale not in ("none", "fixed"):
            return
        described = number_format.describe()
        reach = max(abs(described.minimum), abs(described.maximum))
        inside = torch.tensor([described.maximum / 2], dtype=dtype)
        if inside.isfinite():
            assert gradient_of(number_format, inside, torch.ones_like(inside)) == 1
        beyond = torch.tensor([-16 * reach - 16, 16 * reach + 16], dtype=dtype)
        if beyond.isfinite().all():
            assert (gradient_of(number_format, beyond, torch.ones_like(beyond)) == 0).all()

    def test_it_trains(self, number_format: Format) -> None:
        x = normal((64, 4))
        target = x @ torch.tensor([[0.5], [-1.0], [0.25], [2.0]]) + 3.0
        weight = normal((1, 4), seed=1).div(3).requires_grad_()
        bias = torch.zeros(1, requires_grad=True)
        optimizer = torch.optim.Adam([weight, bias], lr=0.1)
        losses, moved = [], False
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for _ in range(30):
                optimizer.zero_grad()
                predicted = number_format.quantize(x) @ number_format.quantize_latent(weight).t() + bias
                loss = (predicted - target).square().mean()
                torch.autograd.backward(loss)
                assert weight.grad is not None
                assert weight.grad.isfinite().all()
                moved = moved or bool(weight.grad.any())
                optimizer.step()
                losses.append(loss.item())
        assert moved
        assert min(losses) < losses[0]
        assert weight.isfinite().all()
