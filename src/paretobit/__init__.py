"""ParetoBit: the trade-off front between how well a PyTorch model works and what it costs."""

from paretobit._version import __version__

__all__ = ["__version__"]
