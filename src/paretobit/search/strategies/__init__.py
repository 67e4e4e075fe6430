"""Strategies: what to try next."""

from paretobit.search.strategies.base import STRATEGIES, Strategy, StrategySettings
from paretobit.search.strategies.brute_force import BruteForce
from paretobit.search.strategies.guided import Guided
from paretobit.search.strategies.optuna_samplers import OptunaStrategy

__all__ = ["STRATEGIES", "BruteForce", "Guided", "OptunaStrategy", "Strategy", "StrategySettings"]
