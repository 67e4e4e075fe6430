"""Search spaces: what may vary."""

from paretobit.search.spaces.base import SPACES, BoundSpace, Dropped, Space
from paretobit.search.spaces.quantize import Quantize

__all__ = ["SPACES", "BoundSpace", "Dropped", "Quantize", "Space"]
