"""Strategies: what to try next."""

from paretobit.strategies.base import STRATEGIES, Strategy, StrategySettings
from paretobit.strategies.brute_force import BruteForce
from paretobit.strategies.guided import Guided
from paretobit.strategies.optuna_samplers import OptunaStrategy
