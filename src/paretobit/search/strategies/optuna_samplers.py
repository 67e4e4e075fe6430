"""Optuna's samplers, in memory, behind ask and tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import optuna
from pydantic import Field, field_validator

from paretobit.errors import BadInput
from paretobit.search.knobs import Config, Knob, Value
from paretobit.search.problem import Problem
from paretobit.search.strategies.base import STRATEGIES, Strategy, StrategySettings
from paretobit.search.trial import Trial

_VIOLATION = "violation"

SAMPLERS: Mapping[str, tuple[type[optuna.samplers.BaseSampler], dict[str, Any]]] = {
    "tpe": (optuna.samplers.TPESampler, {"multivariate": True}),
    "random": (optuna.samplers.RandomSampler, {}),
}
"""Samplers by name, with the arguments that differ from Optuna's defaults."""


class OptunaSettings(StrategySettings):
    """Settings of `optuna`."""

    sampler: str = Field("tpe", description="which sampler: see `paretobit list samplers`")
    sampler_settings: dict[str, Any] = Field({}, description="its further arguments, by Optuna's names")

    @field_validator("sampler")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SAMPLERS:
            raise BadInput("unknown sampler", key="sampler", found=name, allowed=SAMPLERS)
        return name


@STRATEGIES.register("optuna")
class OptunaStrategy(Strategy):
    """Optuna's samplers: `tpe` (multivariate) and `random`, seeded.

    Numbers go to the sampler as positions in their list and come back as values; everything else
    is categorical. Constraint violations reach the samplers that can use them.
    """

    Settings: ClassVar[type[StrategySettings]] = OptunaSettings

    def __init__(self, problem: Problem, seed: int, settings: OptunaSettings) -> None:
        super().__init__(problem, seed, settings)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            sampler=_sampler(settings, seed),
            directions=["minimize"] * len(problem.objectives),
        )
        self._running: dict[Config, list[optuna.Trial]] = {}

    def ask(self, n: int) -> list[Config]:
        """The sampler's next `n` proposals."""
        proposals = []
        for _ in range(n):
            trial = self._study.ask()
            config = self.problem.tree.walk(_suggest(trial))
            self._running.setdefault(config, []).append(trial)
            proposals.append(config)
        return proposals

    def tell(self, trials: Sequence[Trial]) -> None:
        """Hand losses and violations to the sampler; a trial without losses is pruned or failed."""
        for trial in trials:
            asked = self._running[trial.config].pop(0)
            judged = self.problem.judge(trial.metrics)
            if not trial.metrics:
                self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
                continue
            if self.problem.constraints:
                asked.set_constraint(_VIOLATION, judged.violation)
            if judged.losses is None:
                self._study.tell(asked, state=optuna.trial.TrialState.PRUNED)
            else:
                self._study.tell(asked, list(judged.losses))


def _suggest(trial: optuna.Trial) -> Callable[[Knob], Value]:
    def choose(knob: Knob) -> Value:
        if knob.ordered:
            return knob.values[trial.suggest_int(knob.name, 0, len(knob.values) - 1)]
        chosen: Value = trial.suggest_categorical(knob.name, knob.values)
        return chosen

    return choose


def _sampler(settings: OptunaSettings, seed: int) -> optuna.samplers.BaseSampler:
    kind, defaults = SAMPLERS[settings.sampler]
    arguments = {"seed": seed, **defaults}
    try:
        return kind(**{**arguments, **settings.sampler_settings})
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"Optuna's {settings.sampler} sampler refuses its settings: {error}",
            key="sampler_settings",
            found=settings.sampler_settings,
        ) from None
