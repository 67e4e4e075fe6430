"""Data sets as tensors in memory, split once and for all."""

from paretobit.data.dataset import Data, Split
from paretobit.data.load import load
from paretobit.data.settings import DataSettings
from paretobit.data.sources import SOURCES
