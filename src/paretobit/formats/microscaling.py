"""The OCP microscaling formats, and NVIDIA's NVFP4."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from paretobit.formats.base import FORMATS, Description, Traits
from paretobit.formats.block import BlockFormat, SharedExponentFormat
from paretobit.formats.checks import check_bool
from paretobit.formats.grid import FixedGrid, FloatGrid, Grid
from paretobit.formats.minifloat import FP4E2M1, FP6E2M3, FP6E3M2, FP8E4M3, FP8E5M2, StandardFloat
from paretobit.formats.partition import SCALED_REACH, BlockSize, as_float32


@dataclass(frozen=True)
class Microscaling(SharedExponentFormat):
    """An OCP microscaling format: standard elements and one E8M0 scale a block.

    The scale is `2^(floor(log2 max|block|) - emax)`, emax the exponent of the largest element
    (section 6.3 of the specification); elements beyond the largest saturate.

    Args:
        block_size: Elements of a block along `axis`; the specification has 32.
        axis: The dimension that blocks of one number lie along.
    """

    block_size: BlockSize = field(default=32, kw_only=True)
    source: ClassVar[str] = "OCP Microscaling Formats Specification 1.0"
    element: ClassVar[StandardFloat]

    @property
    def element_bits(self) -> int:
        return self.element.element_bits

    @property
    def shared_bits(self) -> int:
        """8: E8M0."""
        return 8

    @property
    def exponent_range(self) -> tuple[int, int]:
        """E8M0 reaches from 2^-127 to 2^127; its last code is NaN."""
        return self._highest - 127, self._highest + 127

    @property
    def _highest(self) -> int:
        """Exponent of the largest element."""
        return self.element.grid.highest

    def _make_elements(self) -> Grid:
        grid, highest = self.element.grid, self._highest
        return FloatGrid(grid.fraction, grid.lowest - highest, grid.maximum * 2.0**-highest)


@FORMATS.register("mxint8")
@dataclass(frozen=True)
class MXINT8(Microscaling):
    """Microscaling with 8-bit two's complement elements, six bits behind the binary point."""

    name: ClassVar[str] = "mxint8"
    formula: ClassVar[str] = "2^S · c/64, c from -128 to 127, S = floor(log2 max|block|) shared"

    @property
    def traits(self) -> Traits:
        """-2 is an element, 2 is not; a block rounded to -2 has the next scale when quantised again."""
        return replace(super().traits, symmetric=False, idempotent=False)

    def describe(self) -> Description:
        """Over all scales that float32 holds, without -2 times the largest one, which it does not."""
        return replace(super().describe(), minimum=-_LARGEST_MXINT8)

    @property
    def element_bits(self) -> int:
        return 8

    @property
    def _highest(self) -> int:
        return 0

    def _make_elements(self) -> Grid:
        return FixedGrid(-128, 127, 2.0**-6)

    def _round(self, x: Tensor) -> Tensor:
        return super()._round(x).clamp_(min=-_LARGEST_MXINT8)


def _microscaling(name: str, element: StandardFloat) -> type[Microscaling]:
    """The class of a microscaling format, `MXFP4` for `mxfp4`."""
    members = {
        "__module__": __name__,
        "__doc__": f"Microscaling with `{element.name}` elements.",
        "name": name,
        "formula": f"2^S · {element.name}, S = floor(log2 max|block|) - {element.grid.highest} shared",
        "element": element,
    }
    made: type[Microscaling] = dataclass(frozen=True)(type(name.replace("_", "").upper(), (Microscaling,), members))
    FORMATS.register(name)(made)
    return made


MXFP8E4M3 = _microscaling("mxfp8_e4m3", FP8E4M3())
MXFP8E5M2 = _microscaling("mxfp8_e5m2", FP8E5M2())
MXFP6E3M2 = _microscaling("mxfp6_e3m2", FP6E3M2())
MXFP6E2M3 = _microscaling("mxfp6_e2m3", FP6E2M3())
MXFP4 = _microscaling("mxfp4", FP4E2M1())


@FORMATS.register("nvfp4")
@dataclass(frozen=True)
class NVFP4(BlockFormat):
    """`fp4_e2m1` elements, an `fp8_e4m3` scale a block, and a float32 scale the tensor.

    The tensor's scale `g = max|x| / (6 · 448)` lets the largest block scale use the top of its
    range; a block's scale is the `fp8_e4m3` value nearest `max|block| / (6 g)`.

    Args:
        block_size: Elements of a block along `axis`; NVIDIA's hardware has 16.
        axis: The dimension that blocks of one number lie along.
        tensor_scale: Whether the tensor has a scale; without it, block scales alone must reach.
    """

    name: ClassVar[str] = "nvfp4"
    formula: ClassVar[str] = "g · s · fp4_e2m1, s = fp8_e4m3(max|block| / 6g) of the block, g of the tensor"
    source: ClassVar[str] = "NVIDIA, Introducing NVFP4 (2025); cuDNN and Transformer Engine documentation"
    tensor_scale: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bool("tensor_scale", self.tensor_scale)

    @property
    def traits(self) -> Traits:
        """Rounded scales of rounded values need not be the same scales."""
        return replace(super().traits, idempotent=False)

    @property
    def element_bits(self) -> int:
        return 4

    @property
    def shared_bits(self) -> int:
        """8: `fp8_e4m3`."""
        return 8

    def bits(self, shape: Sequence[int]) -> int:
        """Bits of elements, block scales and the tensor's scale."""
        return super().bits(shape) + (32 if self.tensor_scale else 0)

    def describe(self) -> Description:
        largest = torch.finfo(torch.float32).max if self.tensor_scale else self._top * _BLOCK_SCALE.maximum
        smallest = 2.0**-149 if self.tensor_scale else self.elements.smallest * _BLOCK_SCALE.smallest
        return Description(-largest, largest, smallest, smallest, self.elements.count())

    def _make_elements(self) -> Grid:
        return FP4E2M1().grid

    @property
    def _top(self) -> float:
        return self.elements.maximum

    def _scales(self, largest: Tensor) -> Tensor:
        largest = largest.clamp(max=SCALED_REACH)
        tensor_scale: Tensor | float = 1.0
        if self.tensor_scale:
            tensor_scale = as_float32(largest.amax() / (self._top * _BLOCK_SCALE.maximum))
        scales = _BLOCK_SCALE.round(largest.div_(self._top * tensor_scale)).mul_(tensor_scale)
        return torch.where(scales > 0, scales, SCALED_REACH)  # a block whose scale is zero is zero


_BLOCK_SCALE = FP8E4M3().grid
_LARGEST_MXINT8 = 127 * 2.0**121
