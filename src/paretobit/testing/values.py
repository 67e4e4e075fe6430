"""The values chosen: nearest, ordered, odd, unchanged when quantised again, as the traits declare."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from paretobit.formats import Format
from paretobit.testing.inputs import (
    EXACT,
    codes_of,
    edges,
    for_all,
    held,
    in_each,
    in_exact,
    moderate,
    neighbours,
    normal,
    same,
    tensors,
)


class Values:
    """What rounding does, in float32 and float64, where results lie on the grid."""

    part: ClassVar[int]
    powers: ClassVar[Sequence[int]]
    examples: ClassVar[int]

    def test_the_same_input_gives_the_same_output(self, number_format: Format) -> None:
        for x in (normal((6, 8)), normal((33, 34), seed=1)):
            if number_format.traits.deterministic:
                assert same(number_format.quantize(x), number_format.quantize(x.clone()))
                torch.manual_seed(1)  # whatever the random stream does
                assert same(number_format.quantize(x), number_format.quantize(x))
            with torch.random.fork_rng():
                torch.manual_seed(5)
                first = number_format.quantize(x)
                torch.manual_seed(5)
                assert same(number_format.quantize(x), first)

    def test_quantising_again_changes_nothing(self, number_format: Format) -> None:
        if not number_format.traits.idempotent:
            return

        def check(x: Tensor) -> None:
            y = number_format.quantize(x)
            assert same(number_format.quantize(y), y)

        for_all(tensors(3 * self.part), self.examples, check)
        for k in (-20, -3, 0, 3, 20):
            in_exact(normal((33, 34)) * 2.0**k, check)

    def test_negative_numbers_mirror_positive_ones(self, number_format: Format) -> None:
        if not number_format.traits.symmetric:
            return

        def check(x: Tensor) -> None:
            assert same(number_format.quantize(-x), -number_format.quantize(x))

        for_all(tensors(3 * self.part), self.examples, check)
        in_exact(normal((33, 34)) * 1e10, check)
        codes = codes_of(number_format)
        if codes is not None:
            assert torch.equal(-codes.flip(0), codes)
            for dtype in EXACT:
                check(edges(codes, dtype))

    def test_order_is_kept(self, number_format: Format) -> None:
        traits = number_format.traits
        if not (traits.deterministic and traits.monotone):
            return

        def check(x: Tensor) -> None:
            assert (number_format.quantize(x.sort().values).diff() >= 0).all()

        for_all(tensors(self.part), self.examples, check)
        if traits.scale == "none":
            in_exact(torch.cat([normal((500,)) * 10.0**k for k in range(-30, 35, 5)]), check)
        codes = codes_of(number_format)
        if codes is not None and traits.scale == "none":
            for dtype in EXACT:
                check(edges(codes, dtype))

    @in_each(EXACT)
    def test_values_are_codes(self, number_format: Format, dtype: torch.dtype) -> None:
        codes = codes_of(number_format)
        if codes is None:
            return
        members = held(codes, dtype).to(dtype)
        x = torch.cat([edges(codes, dtype), normal((200,), dtype), normal((200,), dtype) * 1e-3])
        assert torch.isin(number_format.quantize(x), members).all()
        if number_format.traits.idempotent:
            assert torch.equal(number_format.quantize(members), members)

    def test_the_value_chosen_is_the_nearest_code(self, number_format: Format) -> None:
        every_code, traits = codes_of(number_format), number_format.traits
        if every_code is None or not traits.nearest:
            return
        codes_of_dtype = {dtype: held(every_code, dtype) for dtype in EXACT}

        def check(x: Tensor) -> None:
            dtype, codes = x.dtype, codes_of_dtype[x.dtype]
            y = number_format.quantize(x)
            exact = x.double().clamp(codes[0], codes[-1])
            below, above = neighbours(exact, codes)
            down, up = exact - codes[below], codes[above] - exact
            if traits.scale != "none":  # the scale is divided by in the arithmetic of the dtype
                slack = 4 * torch.finfo(dtype).eps * codes.abs().max()
                assert ((y.double() - exact).abs() <= torch.minimum(down, up) + slack).all()
                return
            nearest = torch.where(down < up, below, above)
            if traits.has_zero:  # codes count from zero
                zero = int((codes == 0).nonzero())
                even = torch.where((above - zero) % 2 == 0, above, below)
                nearest = torch.where(down == up, even, nearest)
                assert same(y, codes[nearest].to(dtype))
            else:
                tied = (down == up) & (y == codes[below].to(dtype))
                assert ((y == codes[nearest].to(dtype)) | tied).all()

        for dtype in EXACT:
            check(edges(codes_of_dtype[dtype], dtype))
        for_all(tensors(20), self.examples, check)

    @in_each(EXACT)
    def test_the_value_chosen_is_at_most_a_step_away(self, number_format: Format, dtype: torch.dtype) -> None:
        codes = codes_of(number_format)
        if codes is None:
            return
        codes = held(codes, dtype)
        spread = torch.linspace(0, 1, 401, dtype=torch.float64) * (codes[-1] - codes[0]) + codes[0]
        x = torch.cat([edges(codes, dtype), spread.to(dtype), normal((200,), dtype)])
        x = x[(x.double() > codes[0]) & (x.double() < codes[-1])]
        below, above = neighbours(x.double(), codes)
        between = below != above
        assert between.any()
        y, low, high = (v[between] for v in (number_format.quantize(x), codes[below], codes[above]))
        assert ((y == low.to(dtype)) | (y == high.to(dtype))).all()

    def test_no_other_value_of_the_tensor_would_have_been_nearer(self, number_format: Format) -> None:
        if not number_format.traits.nearest:
            return

        def check(x: Tensor) -> None:
            y = number_format.quantize(x).double()
            error = (y - x.double()).abs()
            best = (y - x.double().unsqueeze(1)).abs().min(1).values
            slack = 4 * torch.finfo(x.dtype).eps * torch.maximum(x.double().abs(), y.abs()).max()
            assert (error <= best + slack).all()

        for seed in range(20):
            in_exact(normal((self.part,), seed=seed) / 3, check)
        for_all(tensors(self.part, moderate), self.examples, check)

    @in_each(EXACT)
    def test_given_the_largest_element_the_others_go_to_the_nearest_value(
        self, number_format: Format, dtype: torch.dtype
    ) -> None:
        if number_format.traits.scale != "max" or not number_format.traits.nearest or self.part < 3:
            return
        for largest in (1.0, 1.4, 1.99):
            places = torch.linspace(-largest, largest, 301, dtype=dtype)
            parts = [torch.stack([place.new_tensor(largest), place.new_tensor(-largest), place]) for place in places]
            values = torch.stack([number_format.quantize(part)[2] for part in parts]).double()
            error = (values - places.double()).abs()
            attained = torch.tensor(sorted(set(values.tolist())), dtype=torch.float64)
            best = (attained - places.double().unsqueeze(1)).abs().min(1).values
            assert (error <= best + 4 * torch.finfo(dtype).eps * largest).all()
            assert len(attained) > 1 or number_format.element_bits == 1

    @in_each(EXACT)
    def test_a_scale_from_the_data_follows_powers_of_two(self, number_format: Format, dtype: torch.dtype) -> None:
        traits = number_format.traits
        if traits.scale not in ("max", "mean", "search") or not traits.deterministic:
            return
        for shape in ((7,), (3, 5), (9, 21)):
            x = normal(shape, dtype)
            x[..., 0] = torch.where(x[..., 0] < 0, -1.0, 1.0)  # no part is far below the others
            y = number_format.quantize(x)
            for power in self.powers:
                assert same(number_format.quantize(x * 2.0**power), y * 2.0**power)

    def test_what_lies_beyond_the_range_saturates(self, number_format: Format) -> None:
        codes = codes_of(number_format)
        if codes is None or not number_format.traits.nearest:
            return
        codes = held(codes, torch.float64)
        x = torch.cat([codes[[0, -1]] * factor for factor in (1.0, 1.25, 2.0, 1e6)])
        beyond = (x <= codes[0]) | (x >= codes[-1])
        y = number_format.quantize(x)
        expected = torch.where(x <= codes[0], codes[0], codes[-1])
        assert torch.equal(y[beyond], expected[beyond])
