"""The strategy `guided`: what evidence says about each layer decides what is measured next."""

from paretobit.strategies.guided.strategy import Guided, GuidedSettings
