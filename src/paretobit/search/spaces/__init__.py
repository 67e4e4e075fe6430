"""Search spaces: what may vary."""

from paretobit.search.spaces.architecture import Architecture
from paretobit.search.spaces.base import SPACES, BoundSpace, Dropped, Space
from paretobit.search.spaces.channel_multiplier import ChannelMultiplier
from paretobit.search.spaces.correct import Correct
from paretobit.search.spaces.product import Product
from paretobit.search.spaces.prune import Prune
from paretobit.search.spaces.quantize import Quantize
from paretobit.search.spaces.training import Training

__all__ = [
    "SPACES",
    "Architecture",
    "BoundSpace",
    "ChannelMultiplier",
    "Correct",
    "Dropped",
    "Product",
    "Prune",
    "Quantize",
    "Space",
    "Training",
]
