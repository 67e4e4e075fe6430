"""Search spaces: what may vary."""

from paretobit.search.spaces.base import SPACES, BoundSpace, Dropped, Space
from paretobit.search.spaces.channel_multiplier import ChannelMultiplier
from paretobit.search.spaces.correct import Correct
from paretobit.search.spaces.product import Product
from paretobit.search.spaces.prune import Prune
from paretobit.search.spaces.quantize import Quantize

__all__ = [
    "SPACES",
    "BoundSpace",
    "ChannelMultiplier",
    "Correct",
    "Dropped",
    "Product",
    "Prune",
    "Quantize",
    "Space",
]
