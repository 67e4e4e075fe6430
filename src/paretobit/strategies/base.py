"""What a strategy is: a deterministic machine of its arguments and the sequence of asks and tells."""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from paretobit.registry import Registry
from paretobit.spaces.knobs import Config, Tree
from paretobit.strategies.problem import Problem
from paretobit.studies.trial import Trial


class StrategySettings(BaseModel):
    """Base of every strategy's settings: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Strategy(abc.ABC):
    """Proposes configurations.

    The same arguments and the same sequence of asks and tells give the same proposals: resume
    builds a fresh strategy and replays the recorded sequence.

    Args:
        problem: What is searched.
        seed: Of its random numbers.
        settings: An instance of `Settings`.

    Attributes:
        predicted: Of what it asked for, the increase of the loss that it expects, where it expects one.
        notes: What the user should know of how it went.
    """

    Settings: ClassVar[type[StrategySettings]] = StrategySettings

    def __init__(self, problem: Problem, seed: int, settings: Any) -> None:
        self.problem, self.seed, self.settings = problem, seed, settings
        self.predicted: dict[Config, float] = {}
        self.notes: list[str] = []

    @classmethod  # noqa: B027 (most can use everything)
    def check(cls, settings: Any, tree: Tree, objectives: int) -> None:
        """Refuse, before any work, a space or a number of objectives that the strategy cannot use.

        Raises:
            BadInput: It cannot; what would be able to is listed.
        """

    @classmethod
    def draws(cls, settings: Any) -> bool:
        """Whether another seed is expected to give other proposals."""
        return False

    @abc.abstractmethod
    def ask(self, n: int) -> list[Config]:
        """At most `n` configurations to evaluate; fewer only when there are no more."""

    @abc.abstractmethod
    def learn(self, trials: Sequence[Trial]) -> None:
        """Trials that came from another study, before the first ask."""

    @abc.abstractmethod
    def tell(self, trials: Sequence[Trial]) -> None:
        """Results, in the order of the trials' numbers."""


STRATEGIES: Registry[type[Strategy]] = Registry("strategy")
