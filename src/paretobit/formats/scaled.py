"""Formats whose scales the data decide: first the scales, then the rounding."""

import abc
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from paretobit.formats.base import LossyFormat
from paretobit.formats.compiled import outside_graph

Scales = TypeVar("Scales")


@dataclass(frozen=True)
class ScaledFormat(LossyFormat, Generic[Scales]):
    """A format with scales that come from the data, or are fixed."""

    @abc.abstractmethod
    def scales(self, x: Tensor) -> Scales:
        """The scales for `x`, in shapes that broadcast and the type of `x`; for half types, which may not
        hold them, in float32."""

    @abc.abstractmethod
    def with_scales(self, x: Tensor, scales: Scales) -> Tensor:
        """`x` (float32 or float64) rounded, given its scales."""

    def _round(self, x: Tensor) -> Tensor:
        # Means and searches are not compiled: another order of their sums would give other bits.
        eager = self.traits.scale in ("mean", "search")
        return self.with_scales(x, outside_graph(self.scales, x) if eager else self.scales(x))
