"""Scaled integers: `scale × (code - zero_point)`, the INT8 and INT4 that hardware runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from paretobit.errors import BadInput
from paretobit.formats.base import ENUMERABLE_WIDTH, FORMATS, Description, Traits, WidthFormat, computed
from paretobit.formats.checks import check_bool, check_choice, check_int, check_number
from paretobit.formats.grid import limited_
from paretobit.formats.partition import (
    SCALED_REACH,
    Per,
    as_float32,
    count,
    extremes,
    join,
    largest_magnitude,
    parts,
    shared_extents,
    split,
)
from paretobit.formats.scaled import ScaledFormat

Calibration = Literal["max", "percentile", "mse"]
MAX_WIDTH = 24  # codes are exact in float32
SCALE_BITS = 32
CLIPPINGS = 100  # that the search for the smallest squared error compares


class _Scales(NamedTuple):
    """Of each part, in the shape that broadcasts; the zero point only where the format has one."""

    scale: Tensor
    zero_point: Tensor | None


@FORMATS.register("scaled_integer")
@dataclass(frozen=True)
class ScaledInteger(WidthFormat, ScaledFormat[_Scales]):
    """Integers times a float32 scale, with a zero point where `symmetric` is false.

    `code = clamp(round(x / scale) + zero_point)`, rounding half to even, in the arithmetic of the
    dtype: ONNX's QuantizeLinear and DequantizeLinear.

    Args:
        width: Bits of a code, 1 … 24 (at least 2 where signed and symmetric).
        signed: Codes of two's complement (symmetric: without the lowest, so as many below zero as
            above); otherwise from 0.
        symmetric: Zero has code 0. Otherwise zero has the code `zero_point`: affine.
        per: What shares a scale: the `tensor`, each `channel` (index along `axis`; a tensor of fewer
            than two dimensions is one channel), or a `group` of `group_size` along `axis`.
        axis: Unset: 0 for channels, the last for groups.
        group_size: Elements of a group.
        calibration: Where the range comes from: `max` of the data, the `percentile` of its
            magnitudes (affine: of both ends), or the clipping with the smallest squared error (`mse`).
        percentile: For `calibration = "percentile"`, above 50, up to 100.
        scale: Fixed: one number, or one for each part, first dimension slowest.
        zero_point: Goes with a fixed scale of an affine format.
    """

    name: ClassVar[str] = "scaled_integer"
    formula: ClassVar[str] = "s · (c - z), c an integer of `width` bits; symmetric: z = 0"
    source: ClassVar[str] = "Jacob et al. 2018, arXiv 1712.05877; ONNX QuantizeLinear"
    signed: bool = True
    symmetric: bool = True
    per: Per = "tensor"
    axis: int | None = None
    group_size: int = 128
    calibration: Calibration = "max"
    percentile: float = 99.9
    scale: float | tuple[float, ...] | None = None
    zero_point: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bool("signed", self.signed)
        check_bool("symmetric", self.symmetric)
        check_int("width", self.width, 2 if self.signed and self.symmetric else 1, MAX_WIDTH)
        check_choice("per", self.per, Per)
        if self.axis is not None:
            check_int("axis", self.axis, -8, 7)
        check_int("group_size", self.group_size, 1, 2**31)
        check_choice("calibration", self.calibration, Calibration)
        check_number("percentile", self.percentile, 50, 100)
        self._check_fixed()

    def _check_fixed(self) -> None:
        for key in ("scale", "zero_point"):
            if isinstance(getattr(self, key), list):
                object.__setattr__(self, key, tuple(getattr(self, key)))
        for value in _several(self.scale):
            check_number("scale", value, 2.0**-126, 2.0**104)
        for value in _several(self.zero_point):
            check_int("zero_point", value, *self.code_range)
        needed = len(_several(self.scale)) if not self.symmetric else 0
        if len(_several(self.zero_point)) != needed:
            raise BadInput(
                "an affine format with a fixed scale has one zero point a scale, any other format none",
                key="zero_point",
                found=self.zero_point,
            )

    @property
    def traits(self) -> Traits:
        """Symmetric formats are odd; only a fixed scale stays what it is."""
        kind = "max" if self.calibration == "max" else "search"
        return Traits(
            has_zero=True,
            symmetric=self.symmetric and self.signed,
            idempotent=self.scale is not None,
            scale=kind if self.scale is None else "fixed",  # type: ignore[arg-type]
        )

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code."""
        if not self.signed:
            return 0, 2**self.width - 1
        top = 2 ** (self.width - 1) - 1
        return (-top if self.symmetric else -top - 1), top

    def extents(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The extents of the part of a tensor that shares a scale."""
        axis = self.axis if self.axis is not None else -1 if self.per == "group" else 0
        return shared_extents(shape, self.per, axis, self.group_size)

    def bits(self, shape: Sequence[int]) -> int:
        """Bits of the codes, and of the scale and zero point of each part."""
        shared = SCALE_BITS + (0 if self.symmetric else self.width)
        return super().bits(shape) + shared * count(shape, self.extents(shape))

    def describe(self) -> Description:
        """In numbers where the scale is fixed (over all parts); otherwise in units of the scale."""
        low, high = self.code_range
        scales = [_float32(s) for s in _several(self.scale)] or [1.0]
        points = _several(self.zero_point) or (0,) * len(scales)
        pairs = list(zip(scales, points, strict=True))
        top = max(s * (high - z) for s, z in pairs)
        return Description(min(s * (low - z) for s, z in pairs), top, min(scales), min(scales), high - low + 1)

    def codes(self) -> Tensor:
        """Every value, ascending, float64, where one scale is fixed; up to 12 bits."""
        if self.scale is None or len(_several(self.scale)) > 1 or self.width > ENUMERABLE_WIDTH:
            return super().codes()
        low, high = self.code_range
        (scale,), (point,) = _several(self.scale), _several(self.zero_point) or (0,)
        codes: Tensor = torch.arange(low - point, high + 1 - point, dtype=torch.float64)
        return codes * _float32(scale)

    def calibrated(self, x: Tensor) -> ScaledInteger:
        """The same format with the scales that `x` needs, fixed.

        >>> ScaledInteger(8).calibrated(torch.tensor([1.0, -2.54])).scale
        0.019999999552965164
        """
        with torch.no_grad():
            scales = replace(self, scale=None, zero_point=None).scales(x.float())
        points = None if scales.zero_point is None else _plain(scales.zero_point.long())
        return replace(self, scale=_plain(scales.scale), zero_point=points)

    def scales(self, x: Tensor) -> _Scales:
        """Fixed, or from the data; of each part, in the shape that broadcasts over the parts."""
        extents = self.extents(x.shape)
        blocked, inside = split(computed(x), extents)
        if self.scale is not None:
            return self._fixed(blocked, inside)
        if self.calibration == "max":
            return self._fit(*self._extremes(blocked, inside))
        rows = parts(computed(x), extents)
        fitted = self._fit(*self._percentiles(rows)) if self.calibration == "percentile" else self._least(rows)
        shape = [1 if dim in inside else size for dim, size in enumerate(blocked.shape)]
        point = fitted.zero_point
        return _Scales(fitted.scale.view(shape), None if point is None else point.view(shape))

    def with_scales(self, x: Tensor, scales: _Scales) -> Tensor:
        """Codes, limited to their range, times the scale."""
        extents = self.extents(x.shape)
        return join(self._on_grid(split(x, extents)[0], scales), x.shape, extents)

    def _on_grid(self, blocked: Tensor, scales: _Scales) -> Tensor:
        low, high = self.code_range
        codes = (blocked / scales.scale).round_()
        if scales.zero_point is None:
            return limited_(codes, low, high).mul_(scales.scale)
        codes = limited_(codes.add_(scales.zero_point), low, high)
        return codes.sub_(scales.zero_point).mul_(scales.scale)

    def _inside(self, x: Tensor) -> Tensor:
        extents = self.extents(x.shape)
        scale, zero_point = self.scales(x)
        codes = (split(x, extents)[0] / scale).round_() + (0 if zero_point is None else zero_point)
        low, high = self.code_range
        return join((codes >= low) & (codes <= high), x.shape, extents)

    def _fixed(self, blocked: Tensor, inside: tuple[int, ...]) -> _Scales:
        shape = [1 if dim in inside else size for dim, size in enumerate(blocked.shape)]

        def laid_out(values: tuple[float, ...]) -> Tensor:
            tensor = torch.tensor(values, dtype=torch.float32, device=blocked.device).to(blocked.dtype)
            if tensor.numel() not in (1, math.prod(shape)):
                raise BadInput(
                    "the number of fixed scales is not that of the parts that share one",
                    key="scale",
                    found=tensor.numel(),
                    allowed=f"1 or {math.prod(shape)}",
                )
            return tensor.view(shape if tensor.numel() > 1 else [1] * len(shape))

        points = _several(self.zero_point)
        return _Scales(laid_out(_several(self.scale)), laid_out(points) if points else None)

    def _extremes(self, blocked: Tensor, inside: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        if self.symmetric and self.signed:
            high = largest_magnitude(blocked, inside)
            return high, high
        return extremes(blocked, inside)

    def _percentiles(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        values = rows.abs() if self.symmetric and self.signed else rows
        valid = (~values.isnan()).sum(1, keepdim=True)
        ascending = values.sort(1).values  # NaN comes last

        def at(percent: float) -> Tensor:
            place = (valid.double() * percent / 100).ceil().long() - 1
            return ascending.gather(1, place.clamp_(min=0)).nan_to_num(nan=0.0)

        return at(100 - self.percentile), at(self.percentile)

    def _least(self, rows: Tensor) -> _Scales:
        low, high = self._extremes(rows, (1,))
        best = torch.ones_like(high)
        smallest = torch.full_like(high, math.inf, dtype=torch.float64)
        for clipping in range(CLIPPINGS, 0, -1):
            tried = self._fit(low * (clipping / CLIPPINGS), high * (clipping / CLIPPINGS))
            error = (self._on_grid(rows, tried) - rows).double().square().nansum(1, keepdim=True)
            best = best.where(error >= smallest, clipping / CLIPPINGS)
            smallest = torch.minimum(smallest, error)
        return self._fit(low * best, high * best)

    def _fit(self, low: Tensor, high: Tensor) -> _Scales:
        """The scales that express `low` to `high`, zero included."""
        bottom, top = self.code_range
        if self.symmetric:
            return _Scales(as_float32(high.clamp(0.0, SCALED_REACH) / top), None)
        levels = top - bottom
        reach = SCALED_REACH * levels / (levels + 1)  # rounding the zero point moves the range by half a step
        low, high = low.clamp(-reach, 0.0), high.clamp(0.0, reach)
        scale = as_float32(high / levels - low / levels)
        return _Scales(scale, (bottom - low / scale).round_().clamp_(bottom, top))


def _several(value: Any) -> tuple[Any, ...]:
    """One value or many, as many."""
    return () if value is None else value if isinstance(value, tuple) else (value,)


def _plain(values: Tensor) -> Any:
    return values.item() if values.numel() == 1 else tuple(values.flatten().tolist())


def _float32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))
