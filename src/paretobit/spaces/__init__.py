"""Search spaces: what may vary."""

from paretobit.spaces.architecture import Architecture
from paretobit.spaces.base import SPACES, BoundSpace, Dropped, Space
from paretobit.spaces.channel_multiplier import ChannelMultiplier
from paretobit.spaces.correct import Correct
from paretobit.spaces.product import Product
from paretobit.spaces.prune import Prune
from paretobit.spaces.quantize import Quantize
from paretobit.spaces.training import Training
