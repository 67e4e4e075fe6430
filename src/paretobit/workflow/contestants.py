"""Which strategies take part in a comparison, and what it is asked to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from paretobit.comparing.comparison import RANDOM, SHUFFLED
from paretobit.comparing.replay import Answer, Play, play
from paretobit.document import Document, parse_value
from paretobit.errors import BadInput, located
from paretobit.strategies import STRATEGIES, Strategy, StrategySettings
from paretobit.strategies.optuna_samplers import SAMPLERS
from paretobit.strategies.problem import Problem
from paretobit.wanted.wanted import Wanted
from paretobit.workflow.assemble import choose_strategy

SEEDS, BUDGET = 20, 200
_NEED_EVIDENCE = ("guided",)
_SHORTER = {"gp": "gp:trials=50"}
"""What one proposal of it takes grows with the trials: 200 of them took 200 s, 50 took 7 s."""
_BRUTE_FORCE, _SHUFFLED = "brute_force", {"name": "brute_force", "order": "shuffled"}


@dataclass(frozen=True)
class Asking:
    """What a comparison is asked to do.

    Attributes:
        strategies: `tpe`, `brute_force`, `guided`, `tpe:n_startup_trials=20`, `gp:trials=50` (which stops
            sooner than the others); None: all that can use the space. Random and shuffled brute force always
            join them.
        seeds: How many, from 0 on.
        budget: Unique expensive evaluations of each.
        within: What counts as close to the best; None: the noise of the validation rows.
        workers: Processes.
        charge_evidence: Whether the evidence that a strategy asks for counts as evaluations, by its time.
    """

    strategies: Sequence[str] | None = None
    seeds: int = SEEDS
    budget: int = BUDGET
    within: float | None = None
    workers: int = 1
    charge_evidence: bool = False

    def __post_init__(self) -> None:
        for key in ("seeds", "budget", "workers"):
            if getattr(self, key) < 1:
                raise BadInput("not a number of them", key=key, found=getattr(self, key), allowed="1 or more")
        if self.within is not None and not self.within >= 0:
            raise BadInput("not a distance", key="within", found=self.within, allowed="0 or more")


@dataclass(frozen=True)
class Contestant:
    """A strategy as it takes part."""

    label: str
    name: str
    settings: StrategySettings
    trials: int | None = None

    def play(self, seed: int, problem: Problem, answer: Answer, budget: int, **costs: Any) -> Play:
        """One play, of fewer evaluations where so many were asked for."""
        allowed = budget if self.trials is None else min(budget, self.trials)

        def make(problem: Problem) -> Strategy:
            return STRATEGIES[self.name](problem, seed, self.settings)

        one = play(make, problem, answer, allowed, **costs)
        if allowed == budget or one.ended is not None:
            return one
        return replace(one, ended=f"stopped after {allowed} evaluations, as it was asked to")


def line_up(
    asked: Sequence[str] | None, problem: Problem, evidence_absent: str | None
) -> tuple[list[Contestant], dict[str, str]]:
    """The strategies of a comparison, and those left out with the reason.

    Raises:
        BadInput: One that was asked for by name is unknown, or cannot be used here.
    """
    wanted = Wanted(problem.objectives, problem.constraints)

    def contestant(label: str, table: Mapping[str, Any], trials: int | None = None) -> Contestant:
        name, settings, _ = choose_strategy(table, None, problem.tree, wanted, Document())
        if name in _NEED_EVIDENCE and (problem.insight is None or not problem.insight.tables):
            raise BadInput(
                f"'{label}' needs evidence about the model, and there is none: {evidence_absent}", found=label
            )
        return Contestant(label, name, settings, trials)

    found = [contestant(RANDOM, {"name": "random"}), contestant(SHUFFLED, _SHUFFLED)]
    left_out: dict[str, str] = {}
    for text in default_strategies() if asked is None else asked:
        label, table, trials = parse_spec(text)
        if any(label == one.label for one in found):
            continue
        try:
            with located(key="--strategies"):
                found.append(contestant(label, table, trials))
        except BadInput as refused:
            if asked is not None:
                raise
            left_out[label.partition(":")[0]] = refused.problem
    return found, left_out


def default_strategies() -> list[str]:
    """All samplers, those that grow slow stopping sooner, and the strategies that learn from evidence."""
    samplers = [_SHORTER.get(name, name) for name in SAMPLERS]
    return [*samplers, *(name for name in _NEED_EVIDENCE if name in STRATEGIES)]


def parse_spec(text: str) -> tuple[str, dict[str, Any], int | None]:
    """Label, table and own budget of `name:key=value:key=value`; settings of a sampler are by Optuna's names.

    >>> parse_spec("tpe:n_startup_trials=20:trials=50")[1:]
    ({'name': 'tpe', 'sampler_settings': {'n_startup_trials': 20}}, 50)
    >>> parse_spec("brute_force")
    ('shuffled brute force', {'name': 'brute_force', 'order': 'shuffled'}, None)
    """
    name, *pairs = text.strip().split(":")
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BadInput("not a setting", key="--strategies", found=pair, allowed="name:key=value")
        settings[key] = parse_value(value)
    trials = settings.pop("trials", None)
    if trials is not None and (type(trials) is not int or trials < 1):
        raise BadInput("not a number of trials", key="--strategies", found=trials, allowed="1 or more")
    if name in SAMPLERS:
        return text.strip(), {"name": name, **({"sampler_settings": settings} if settings else {})}, trials
    if name == _BRUTE_FORCE and settings.get("order", "shuffled") == "shuffled":
        return SHUFFLED, {**_SHUFFLED, **settings}, None
    return text.strip(), {"name": name, **settings}, trials
