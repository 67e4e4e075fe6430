"""What formats are tried on, how results are compared, and what a suite asks for."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from paretobit.errors import BadInput
from paretobit.formats import Format

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
EXACT = (torch.float64, torch.float32)  # the dtypes whose results lie on the grid
HALF = (torch.float16, torch.bfloat16)
SHAPES = ((), (1,), (7,), (3, 5), (2, 3, 5), (2, 3, 2, 5), (2, 1, 3, 2, 5), (33, 34))
EMPTY = ((0,), (0, 3), (3, 0), (2, 0, 3))

moderate = st.floats(-8, 8, width=32).map(lambda value: value if abs(value) >= 2**-10 else 0.0)
any_float = st.one_of(moderate, st.floats(width=32, allow_nan=False))


def asked_for(name: str, what: str) -> Any:
    """A fixture that every class of tests must write; until then its tests say so."""

    @pytest.fixture(name=name)
    def fixture(self: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `{name}` that returns {what}")

    return fixture


def normal(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Normal numbers, the same each time."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).mul(3).to(dtype)


def tensors(size: int, elements: st.SearchStrategy[float] = any_float) -> st.SearchStrategy[Tensor]:
    """Vectors of 1 to `size` elements, float32."""
    return st.lists(elements, min_size=1, max_size=size).map(lambda v: torch.tensor(v, dtype=torch.float32))


def for_all(strategy: st.SearchStrategy[Tensor], examples: int, check: Callable[[Tensor], None]) -> None:
    """Hypothesis' `given` without a decorator, for classes to inherit; every input in every exact dtype."""

    @settings(deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
    @given(strategy)
    def holds(x: Tensor) -> None:
        in_exact(x, check)

    holds()


def in_exact(x: Tensor, check: Callable[[Tensor], None]) -> None:
    """Check one input in every exact dtype."""
    for dtype in EXACT:
        check(x.to(dtype))


def in_each(dtypes: Sequence[torch.dtype]) -> Callable[[Callable[..., None]], Callable[[Any, Format], None]]:
    """Make a test of a format and a dtype one of the format alone: tries all, and notes which dtypes fail."""

    def decorate(test: Callable[..., None]) -> Callable[[Any, Format], None]:
        def of_all(self: Any, number_format: Format) -> None:
            failed: dict[torch.dtype, BaseException] = {}
            for dtype in dtypes:
                try:
                    test(self, number_format, dtype)
                except (Exception, pytest.fail.Exception) as error:
                    failed[dtype] = error
            for first in failed.values():
                first.add_note(f"fails with {', '.join(map(str, failed))}")
                raise first

        of_all.__name__, of_all.__qualname__ = test.__name__, test.__qualname__
        return of_all

    return decorate


def same(left: Tensor, right: Tensor) -> bool:
    """Equal in shape, dtype and values, NaN equal to NaN."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    return bool(((left == right) | (left.isnan() & right.isnan())).all())


def codes_of(number_format: Format) -> Tensor | None:
    """`codes()`, or None where the format says that it has none."""
    try:
        return number_format.codes()
    except BadInput:
        return None


def held(codes: Tensor, dtype: torch.dtype) -> Tensor:
    """The codes that a dtype holds, still float64: a grid may reach beyond its largest number."""
    return codes[codes.abs() <= torch.finfo(dtype).max]


def edges(codes: Tensor, dtype: torch.dtype) -> Tensor:
    """Codes, the midpoints between them, what lies beyond, and all their neighbours in the dtype."""
    codes = held(codes, dtype)
    beyond = torch.tensor([math.inf, -math.inf], dtype=torch.float64)
    points = torch.cat([codes, (codes[1:] + codes[:-1]) / 2, codes[[0, -1]] * 1.5, beyond]).to(dtype)
    up, down = torch.tensor(math.inf, dtype=dtype), torch.tensor(-math.inf, dtype=dtype)
    return torch.cat([points, points.nextafter(up), points.nextafter(down)])


def neighbours(x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Places of the codes at or below and at or above `x`, which is clamped to their range."""
    inside = x.clamp(codes[0], codes[-1])
    above = torch.searchsorted(codes, inside)
    below = torch.searchsorted(codes, inside, right=True) - 1
    return below, above
