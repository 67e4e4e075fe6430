"""Optuna's samplers, in memory, behind ask and tell."""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState
from pydantic import Field, field_validator

from paretobit.errors import BadInput
from paretobit.runtime import optional
from paretobit.spaces.knobs import Config, Knob, Tree, Value
from paretobit.strategies.base import STRATEGIES, Strategy, StrategySettings
from paretobit.strategies.problem import Problem
from paretobit.studies.trial import Trial
from paretobit.wanted.wanted import Judgement

_VIOLATION = "violation"
_BEYOND = 1e100
"""More than any loss: what breaks a constraint comes after all that keep them, by its violation."""
Rejected = Literal["pruned", "worst", "evolved", "penalty", "unused"]


@dataclass(frozen=True)
class Sampler:
    """One of Optuna's samplers and what it can use.

    Attributes:
        kind: Its class.
        summary: One line.
        defaults: Arguments that differ from Optuna's.
        categorical: Whether it can use knobs that are not numbers.
        conditional: Whether it can use knobs that are active only under some option of another.
        several: Whether it takes several objectives.
        largest: Configurations it can list; None where it does not list them.
        package: An optional package it needs.
        rejected: How it is told of a trial that breaks a constraint. All but `penalty` and `unused` read
            the violation beside the losses. Where a trial was rejected before its losses were known it
            is `pruned`; or has the `worst` losses so far, once there are any; or is `evolved`: likewise,
            and from the first trial on, as the losses of what breaks constraints are not looked at.
            With `penalty`, its loss is beyond all others, by the violation. `unused`: what it proposes
            does not depend on results.
    """

    kind: type[optuna.samplers.BaseSampler]
    summary: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    categorical: bool = True
    conditional: bool = True
    several: bool = True
    largest: int | None = None
    package: str | None = None
    rejected: Rejected = "unused"


SAMPLERS: Mapping[str, Sampler] = {
    "tpe": Sampler(
        optuna.samplers.TPESampler,
        "tree-structured Parzen estimator, multivariate",
        {"multivariate": True},
        rejected="pruned",
    ),
    "random": Sampler(optuna.samplers.RandomSampler, "uniform"),
    "nsgaii": Sampler(optuna.samplers.NSGAIISampler, "evolution by non-dominated sorting", rejected="evolved"),
    "nsgaiii": Sampler(
        optuna.samplers.NSGAIIISampler, "the same with reference points, for many objectives", rejected="evolved"
    ),
    "qmc": Sampler(
        optuna.samplers.QMCSampler,
        "quasi-random low-discrepancy sequence",
        {"scramble": True, "warn_independent_sampling": False, "warn_asynchronous_seeding": False},
        categorical=False,
        conditional=False,
    ),
    "grid": Sampler(
        optuna.samplers.GridSampler, "every configuration, in random order", conditional=False, largest=10**6
    ),
    "bruteforce": Sampler(
        optuna.samplers.BruteForceSampler, "every configuration, in random order, conditions respected"
    ),
    "cmaes": Sampler(
        optuna.samplers.CmaEsSampler,
        "covariance matrix adaptation",
        {"warn_independent_sampling": False},
        categorical=False,
        conditional=False,
        several=False,
        package="cmaes",
        rejected="penalty",
    ),
    "gp": Sampler(
        optuna.samplers.GPSampler,
        "Gaussian process, for few trials that cost much",
        {"warn_independent_sampling": False},
        conditional=False,
        rejected="worst",
    ),
}
"""Samplers by name."""


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
    """Optuna's samplers, seeded: see `paretobit list samplers`.

    Numbers go to the sampler as positions in their list and come back as values; everything else
    is categorical. A sampler is told of broken constraints in the way it understands: as violations, or
    for `cmaes` as a loss beyond all others. A trial that a constraint rejected before it ran counts as
    one of the search's trials.
    """

    Settings: ClassVar[type[StrategySettings]] = OptunaSettings

    def __init__(self, problem: Problem, seed: int, settings: OptunaSettings) -> None:
        super().__init__(problem, seed, settings)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.check(settings, problem.tree, len(problem.objectives))
        self._study = optuna.create_study(
            sampler=_sampler(settings, seed, problem.tree), directions=["minimize"] * len(problem.objectives)
        )
        # These two end Optuna's own loop through `study.stop()`, which ask and tell have no use for.
        self._ends = settings.sampler in ("grid", "bruteforce")
        self._rejected = SAMPLERS[settings.sampler].rejected
        self._reads_violations = bool(problem.constraints) and self._rejected not in ("penalty", "unused")
        self._worst: list[float] = []
        self._running: dict[Config, list[optuna.Trial]] = {}
        self._seen: set[Config] = set()

    @classmethod
    def check(cls, settings: Any, tree: Tree, objectives: int) -> None:
        name, sampler = settings.sampler, SAMPLERS[settings.sampler]
        reason = _cannot_use(sampler, tree, objectives)
        if reason is not None:
            able = [other for other, s in SAMPLERS.items() if _cannot_use(s, tree, objectives) is None]
            raise BadInput(f"the sampler '{name}' {reason}", key="sampler", found=name, allowed=able)
        if sampler.package is not None:
            optional(sampler.package, extra="cmaes", purpose=f"the sampler '{name}'")
        _sampler(settings, 0, tree)

    @classmethod
    def draws(cls, settings: Any) -> bool:
        return True

    def ask(self, n: int) -> list[Config]:
        proposals: list[Config] = []
        for _ in range(n):
            if self._ends and len(self._seen) >= self.problem.tree.size:
                break
            trial = self._study.ask()
            config = self.problem.tree.walk(_suggest(trial))
            self._running.setdefault(config, []).append(trial)
            self._seen.add(config)
            proposals.append(config)
        return proposals

    def learn(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            judged = self.problem.judge(trial.metrics)
            values = self._values(judged)
            if values is not None:
                violations = {_VIOLATION: judged.violation} if self._reads_violations else None
                self._study.add_trial(_frozen(self.problem.tree, trial.config, values, violations))
                self._seen.add(trial.config)

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            asked = self._running[trial.config].pop(0)
            judged = self.problem.judge(trial.metrics)
            if not trial.metrics:
                self._tell(asked, state=TrialState.FAIL)
                continue
            if self._reads_violations:
                asked.set_constraint(_VIOLATION, judged.violation)
            values = self._values(judged)
            if values is None:
                self._tell(asked, state=TrialState.PRUNED)
            else:
                self._tell(asked, values=values)

    def _values(self, judged: Judgement) -> list[float] | None:
        """What the sampler is told as losses; None where it is told that the trial was pruned."""
        losses = None if judged.losses is None else list(judged.losses)
        if losses is not None:
            self._worst = [max(pair) for pair in zip(self._worst or losses, losses, strict=True)]
        if judged.violation > 0 and self._rejected == "penalty":
            return [_BEYOND * (1 + judged.violation)] * len(self.problem.objectives)
        if losses is None and self._rejected in ("worst", "evolved"):
            nothing_yet = [0.0] * len(self.problem.objectives) if self._rejected == "evolved" else None
            return list(self._worst) or nothing_yet
        return losses

    def _tell(self, asked: optuna.Trial, **result: Any) -> None:
        try:
            self._study.tell(asked, **result)
        except RuntimeError:
            if not self._ends:
                raise
            # `study.stop()` outside of `optimize`: the trial is told, the sampler has listed the space


def _suggest(trial: optuna.Trial) -> Callable[[Knob], Value]:
    def choose(knob: Knob) -> Value:
        if knob.ordered:
            return knob.values[trial.suggest_int(knob.name, 0, len(knob.values) - 1)]
        chosen: Value = trial.suggest_categorical(knob.name, knob.values)
        return chosen

    return choose


def _frozen(
    tree: Tree, config: Config, losses: Sequence[float], violations: dict[str, float] | None
) -> optuna.trial.FrozenTrial:
    """A finished trial as Optuna keeps them."""
    distributions: dict[str, BaseDistribution] = {}
    parameters: dict[str, Any] = {}

    def note(knob: Knob) -> Value:
        value = config[knob.name]
        listed = IntDistribution(0, len(knob.values) - 1) if knob.ordered else CategoricalDistribution(knob.values)
        distributions[knob.name] = listed
        parameters[knob.name] = knob.values.index(value) if knob.ordered else value
        return value

    tree.walk(note)
    return optuna.trial.create_trial(
        params=parameters, distributions=distributions, values=list(losses), constraints=violations
    )


def _cannot_use(sampler: Sampler, tree: Tree, objectives: int) -> str | None:
    """What a sampler cannot use, as the end of a sentence; None where it can use everything."""
    for knob in tree.all_knobs():
        if not sampler.categorical and not knob.ordered:
            return f"cannot use the knob '{knob.name}': its options are not numbers"
        if not sampler.conditional and any(option.knobs for option in knob.options):
            return f"cannot use the knob '{knob.name}': it decides which others are active"
    if sampler.largest is not None and tree.size > sampler.largest:
        return f"lists the space, which has {tree.size:,} configurations: {sampler.largest:,} at most"
    return "takes one objective" if objectives > 1 and not sampler.several else None


def _check_arguments(sampler: Sampler, given: Mapping[str, Any]) -> None:
    """Refuse arguments that a sampler lacks, and values unlike its defaults, which Optuna would meet late."""
    known = inspect.signature(sampler.kind).parameters
    for name, value in given.items():
        key = f"sampler_settings.{name}"
        if name not in known:
            allowed = [argument for argument in known if argument != "search_space"]
            raise BadInput(f"{sampler.kind.__name__} has no such setting", key=key, found=name, allowed=allowed)
        kind = type(known[name].default)
        fits = isinstance(value, int | float if kind is float else kind) and isinstance(value, bool) == (kind is bool)
        if kind in (bool, int, float, str) and not fits:
            raise BadInput("a value of another type", key=key, found=value, allowed=kind.__name__)


def _sampler(settings: OptunaSettings, seed: int, tree: Tree) -> optuna.samplers.BaseSampler:
    sampler = SAMPLERS[settings.sampler]
    _check_arguments(sampler, settings.sampler_settings)
    arguments = {"seed": seed, **sampler.defaults}
    if settings.sampler == "grid":
        arguments["search_space"] = {
            knob.name: list(range(len(knob.values))) if knob.ordered else list(knob.values) for knob in tree.all_knobs()
        }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return sampler.kind(**{**arguments, **settings.sampler_settings})
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"Optuna's {settings.sampler} sampler refuses its settings: {error}",
            key="sampler_settings",
            found=settings.sampler_settings,
        ) from None
