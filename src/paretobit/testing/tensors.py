"""Any tensor: every dtype, shape, layout and special value goes in; gradients pass straight through."""

import dataclasses
import math
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from paretobit.formats import Format, LossyFormat
from paretobit.testing.inputs import DTYPES, EMPTY, EXACT, HALF, SHAPES, in_each, normal, same


def seeded(number_format: Format, x: Tensor) -> Tensor:
    """The result, with the random stream always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return number_format.quantize(x)


class Tensors:
    """Shapes and dtypes are kept, the input is left alone, NaN and infinity are what they should be."""

    part: ClassVar[int]

    @in_each(DTYPES)
    def test_shape_and_dtype_are_kept(self, number_format: Format, dtype: torch.dtype) -> None:
        for shape in (*SHAPES, *EMPTY):
            y = number_format.quantize(normal(shape, dtype))
            assert y.shape == shape
            assert y.dtype == dtype
            assert y.isfinite().all()

    @in_each([torch.int32, torch.int64, torch.bool, torch.complex64])
    def test_what_is_not_floating_point_is_refused(self, number_format: Format, dtype: torch.dtype) -> None:
        with pytest.raises(TypeError):
            number_format.quantize(torch.zeros(3, dtype=dtype))

    @in_each(DTYPES)
    def test_layout_does_not_matter(self, number_format: Format, dtype: torch.dtype) -> None:
        x = normal((6, 8), dtype)
        views = [x.t(), x[::2, 1::3], x.expand(2, 6, 8), x[0, 0], x[:, 2], x.view(2, 3, 8).permute(2, 0, 1)]
        for view in views:
            before = view.clone(memory_format=torch.contiguous_format)
            y = seeded(number_format, view)
            assert y.shape == view.shape
            assert y.is_contiguous() or not view.is_contiguous()
            if number_format.traits.deterministic:
                assert same(y, number_format.quantize(before))
            assert same(view.contiguous(), before)

    @in_each(DTYPES)
    def test_the_input_is_neither_modified_nor_part_of_the_result(
        self, number_format: Format, dtype: torch.dtype
    ) -> None:
        special = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, 3e38], dtype=dtype)
        on_grid = number_format.quantize(normal((3, 5), dtype))
        for x in (normal((3, 5), dtype), on_grid, torch.zeros(4, dtype=dtype), special, normal((), dtype)):
            before = x.clone()
            y = number_format.quantize(x)
            assert same(x, before)
            y.fill_(17)
            assert same(x, before)

    @in_each(DTYPES)
    def test_nan_stays_where_it_is_and_disturbs_no_other(self, number_format: Format, dtype: torch.dtype) -> None:
        for size in range(1, self.part):
            x = torch.cat([torch.tensor([math.nan]), torch.arange(1.0, size + 1) - 1.5]).to(dtype)
            y = number_format.quantize(x)
            assert torch.equal(y.isnan(), x.isnan())
            if number_format.traits.deterministic:
                assert same(y[1:], number_format.quantize(x[1:]))
        full = torch.full((3, 5), math.nan, dtype=dtype)
        assert number_format.quantize(full).isnan().all()
        assert number_format.quantize(full[0, 0]).isnan()
        large = torch.where(normal((33, 34)) > 3, math.nan, normal((33, 34), seed=1)).to(dtype)
        assert torch.equal(number_format.quantize(large).isnan(), large.isnan())

    @in_each(DTYPES)
    def test_infinity_becomes_finite(self, number_format: Format, dtype: torch.dtype) -> None:
        infinite = torch.tensor([math.inf, -math.inf], dtype=dtype)
        for x in (infinite, infinite[0], infinite[1], torch.cat([infinite, normal((2,), dtype)])):
            assert number_format.quantize(x).isfinite().all()
        large = normal((33, 34), dtype)
        large[::3, ::5] = math.inf
        assert number_format.quantize(large).isfinite().all()

    @in_each(DTYPES)
    def test_infinity_saturates_where_huge_numbers_do(self, number_format: Format, dtype: torch.dtype) -> None:
        traits = number_format.traits
        if traits.scale in ("mean", "search") or (dtype in HALF and traits.scale == "max"):
            return  # huge numbers count in means, and half types have none
        limit, computed = torch.finfo(dtype).max, dtype if dtype in EXACT else torch.float32
        huge = torch.finfo(computed).max
        for sign in (1, -1):
            infinite = seeded(number_format, torch.tensor([0.0, 0.25, sign * math.inf], dtype=dtype))
            finite = seeded(number_format, torch.tensor([0.0, 0.25, sign * huge], dtype=computed))
            assert same(infinite, finite.clamp(-limit, limit).to(dtype))

    @in_each(DTYPES)
    def test_the_largest_and_smallest_numbers_give_finite_values(
        self, number_format: Format, dtype: torch.dtype
    ) -> None:
        limits = torch.finfo(dtype)
        tiny = limits.smallest_normal
        numbers = [limits.max, limits.min, 3e38, -3e38, tiny, -tiny, tiny * limits.eps, -tiny * limits.eps]
        numbers += [1e-45, 1e-40, -1e-38]
        x = torch.tensor([n for n in numbers if abs(n) <= limits.max], dtype=dtype)
        assert number_format.quantize(x).isfinite().all()
        for one in x:
            assert number_format.quantize(one).isfinite()
        assert number_format.quantize(x[x.abs() < 1]).isfinite().all()

    @in_each(DTYPES)
    def test_zero_stays_zero(self, number_format: Format, dtype: torch.dtype) -> None:
        if not number_format.traits.has_zero:
            return
        for shape in SHAPES:
            assert (number_format.quantize(torch.zeros(shape, dtype=dtype)) == 0).all()
            assert (number_format.quantize(-torch.zeros(shape, dtype=dtype)) == 0).all()
        x = normal((6, 8), dtype)
        x[::2, 1::3] = 0
        x[3] = 0
        assert (number_format.quantize(x)[x == 0] == 0).all()
        assert (number_format.quantize(x * 1e-2)[x == 0] == 0).all()

    @in_each(HALF)
    def test_half_types_are_computed_in_float32_and_rounded(self, number_format: Format, dtype: torch.dtype) -> None:
        limit = torch.finfo(dtype).max
        edges = torch.tensor([limit, -limit, math.inf, -math.inf, math.nan, 0.0, 1e-7, 0.1], dtype=dtype)
        for x in (normal((6, 8), dtype), normal((6, 8), dtype) * 1e4, normal((33, 34), dtype) / 100, edges):
            expected = seeded(number_format, x.float()).clamp(-limit, limit).to(dtype)
            assert same(seeded(number_format, x), expected)

    @in_each(DTYPES)
    def test_autocast_changes_nothing(self, number_format: Format, dtype: torch.dtype) -> None:
        for x in (normal((6, 8), dtype), normal((6, 8), dtype).requires_grad_()):
            expected = seeded(number_format, x)
            for other in HALF:
                with torch.autocast("cpu", dtype=other):
                    assert same(seeded(number_format, x).detach(), expected.detach())

    @in_each(DTYPES)
    def test_a_parameter_in_training_keeps_shape_and_dtype(self, number_format: Format, dtype: torch.dtype) -> None:
        for gradient in ("pass", "mask"):
            if isinstance(number_format, LossyFormat):
                number_format = dataclasses.replace(number_format, gradient=gradient)
            parameter = normal((6, 8), dtype).requires_grad_()
            latent = number_format.quantize_latent(parameter)
            assert (latent.shape, latent.dtype) == (parameter.shape, dtype)
            (arrived,) = torch.autograd.grad(latent.sum(), parameter)
            assert arrived.dtype == dtype
            assert arrived.isfinite().all()


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

    @in_each(DTYPES)
    def test_a_masked_gradient_is_zero_where_values_saturate(self, number_format: Format, dtype: torch.dtype) -> None:
        if not isinstance(number_format, LossyFormat):
            return
        number_format = dataclasses.replace(number_format, gradient="mask")
        x, upstream = normal((6, 8), dtype) * 10, normal((6, 8), dtype, seed=1)
        masked = gradient_of(number_format, x, upstream)
        assert ((masked == upstream) | (masked == 0)).all()
        if dtype in HALF:
            assert same(masked, gradient_of(number_format, x.float(), upstream.float()).to(dtype))
        infinite = gradient_of(number_format, x, torch.full_like(upstream, math.inf))
        assert torch.equal(infinite == 0, masked == 0)  # and no NaN
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
