"""One evaluated configuration, as the study records it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from paretobit.errors import ParetoBitError
from paretobit.spaces.knobs import Config
from paretobit.training import Epoch

State = Literal["complete", "infeasible", "duplicate", "stopped", "failed"]


GIVEN = -1
"""`asked_after` of a trial that no strategy asked for: it came from another study."""


@dataclass(frozen=True)
class Trial:
    """One evaluated configuration.

    Attributes:
        number: From 0, in the order in which configurations were asked for.
        config: Its active knobs.
        state: `complete`; `infeasible` (breaks a constraint); `duplicate` (answered from an
            earlier trial of the same configuration, or of the same network); `stopped` (its training
            fell behind that of others); `failed`.
        metrics: What was measured; only the cheap metrics where those broke a constraint; of a stopped
            trial what was known after its last epoch.
        error: The traceback of a failed trial.
        duplicate_of: Number of the trial that answered it.
        seed: Of its random numbers; depends on the study's seed and the configuration.
        asked_after: How many trials had been told to the strategy when this one was asked for.
        seconds: Time it took.
        curve: Every epoch that it trained.
    """

    number: int
    config: Config
    state: State
    metrics: Mapping[str, float]
    error: str | None = None
    duplicate_of: int | None = None
    seed: int = 0
    asked_after: int = 0
    seconds: float = 0.0
    curve: tuple[Epoch, ...] = ()
    _build: Callable[[Trial], nn.Module] | None = field(default=None, repr=False, compare=False)

    def model(self) -> nn.Module:
        """The trial's model: a copy of the caller's with the configuration applied, or the one it trained.

        Raises:
            ParetoBitError: The trial was read from disk without the model it belongs to, or the weights
                that it trained were not kept.
        """
        if self._build is None:
            raise ParetoBitError("the study was opened without its model: use paretobit.load on the run's best/")
        return self._build(self)

    def __getstate__(self) -> dict[str, Any]:
        """A plain value: whoever reads it elsewhere has not the model."""
        return {**self.__dict__, "_build": None}
