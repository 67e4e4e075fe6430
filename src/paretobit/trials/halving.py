"""Successive halving: a trial that is behind the others after the same number of epochs is ended.

After Li et al., "A System for Massively Parallel Hyperparameter Tuning" (ASHA), MLSys 2020, in the form
that stops: nothing is paused. What a trial is compared with is fixed when it is asked for, so that a
search does not depend on timing and resumes as it went.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from paretobit.wanted.front import dominates

Losses = tuple[float, ...]


class HalvingSettings(BaseModel):
    """Settings of `[search.pipeline.stop]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reduction: int = Field(3, ge=2, description="one in so many trials goes on beyond a rung")
    min_epochs: int = Field(1, ge=1, description="epochs before the first rung; each further one so many times")

    def is_rung(self, epochs: int) -> bool:
        """Whether trials are compared after so many epochs.

        >>> [e for e in range(1, 30) if HalvingSettings(reduction=3, min_epochs=1).is_rung(e)]
        [1, 3, 9, 27]
        """
        rung = self.min_epochs
        while rung < epochs:
            rung *= self.reduction
        return rung == epochs


@dataclass(frozen=True)
class Bar:
    """What a trial is compared with.

    Attributes:
        settings: When, and how strictly.
        seen: Epochs to what earlier trials lost by each objective after so many.
    """

    settings: HalvingSettings
    seen: Mapping[int, Sequence[Losses]] = field(default_factory=dict)

    def ends(self, epochs: int, losses: Losses) -> bool:
        """Whether a trial with these losses after so many epochs is ended.

        It goes on where it is among the best one in `reduction` of all that came so far: by its
        loss, or with several objectives by the number of points on the fronts before its own.
        """
        if not self.settings.is_rung(epochs):
            return False
        others = self.seen.get(epochs, ())
        places = math.ceil((len(others) + 1) / self.settings.reduction)
        return _ahead(losses, others) >= places


def _ahead(losses: Losses, others: Sequence[Losses]) -> int:
    """How many of the others stand on a front before that of `losses`.

    >>> _ahead((2.0,), [(1.0,), (3.0,), (2.0,)]), _ahead((2, 2), [(1, 3), (3, 1), (1, 1)])
    (1, 1)
    """
    left, ahead = [*others], 0
    while any(dominates(other, losses) for other in left):
        first = [p for p in left if not any(dominates(other, p) for other in left)]
        ahead += len(first)
        left = [p for p in left if p not in first]
    return ahead


class Rungs:
    """What the trials of a search lost at each rung, as they are told."""

    def __init__(self, settings: HalvingSettings) -> None:
        self._settings = settings
        self._seen: dict[int, list[Losses]] = {}

    def add(self, by_epoch: Sequence[Losses]) -> None:
        """A trial: its losses after one epoch, after two, and so on."""
        for epochs, losses in enumerate(by_epoch, 1):
            if self._settings.is_rung(epochs):
                self._seen.setdefault(epochs, []).append(losses)

    def bar(self) -> Bar:
        """What the next trial is compared with."""
        return Bar(self._settings, {epochs: tuple(losses) for epochs, losses in self._seen.items()})
