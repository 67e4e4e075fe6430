"""Every configuration, once."""

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar, Literal

from pydantic import Field

from paretobit.spaces.knobs import Config
from paretobit.strategies.base import STRATEGIES, Strategy, StrategySettings
from paretobit.strategies.problem import Problem
from paretobit.studies.trial import Trial


class BruteForceSettings(StrategySettings):
    """Settings of `brute_force`."""

    order: Literal["nested", "shuffled"] = Field(
        "nested",
        description="nested: like nested loops, the last layer's knobs innermost, so that neighbours share "
        "what comes first in the model; shuffled: drawn by the seed, so that a search cut short has seen a "
        "fair sample",
    )


@STRATEGIES.register("brute_force")
class BruteForce(Strategy):
    """Every configuration once, nested or shuffled; never lists the space."""

    Settings: ClassVar[type[StrategySettings]] = BruteForceSettings

    def __init__(self, problem: Problem, seed: int, settings: BruteForceSettings) -> None:
        super().__init__(problem, seed, settings)
        size = problem.tree.size
        shuffled = settings.order == "shuffled"
        self._indices: Iterator[int] = permutation(size, seed) if shuffled else iter(range(size))
        self._done: set[Config] = set()

    @classmethod
    def draws(cls, settings: Any) -> bool:
        return bool(settings.order == "shuffled")

    def ask(self, n: int) -> list[Config]:
        configs = (self.problem.tree.at(index) for index in self._indices)
        return list(islice((config for config in configs if config not in self._done), n))

    def learn(self, trials: Sequence[Trial]) -> None:
        self._done.update(trial.config for trial in trials if trial.state != "failed")

    def tell(self, trials: Sequence[Trial]) -> None:
        """Results change nothing."""


def permutation(size: int, seed: int) -> Iterator[int]:
    """The numbers 0 … size-1 in an order drawn by `seed`, in constant memory for any size.

    A balanced Feistel network permutes the next power of four; what falls outside the range is
    permuted again until it falls inside (cycle walking, Black and Rogaway 2002).

    >>> sorted(permutation(10, seed=1)) == list(range(10))
    True
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    draw = random.Random(seed)
    keys = [(draw.getrandbits(128) | 1, draw.getrandbits(128)) for _ in range(6)]

    def permute(index: int) -> int:
        left, right = index >> half, index & mask
        for multiplier, addend in keys:
            mixed = (right + 1) * multiplier + addend
            mixed ^= mixed >> 61
            left, right = right, left ^ ((mixed * multiplier >> 40) & mask)
        return left << half | right

    for index in range(size):
        image = permute(index)
        while image >= size:
            image = permute(image)
        yield image
