"""One strategy with one seed, against anything that answers configurations: a table, or a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, fields, replace
from typing import Any

from paretobit.spaces.knobs import Config
from paretobit.strategies import Strategy
from paretobit.strategies.insight.insight import Insight, ScoreTable
from paretobit.strategies.problem import Problem
from paretobit.studies.trial import State, Trial
from paretobit.trials.outcome import Outcome
from paretobit.wanted.objectives import Metrics

Point = tuple[float, ...]
Answer = Callable[[Config], Outcome]
Asked = tuple[str, str, str | None]
"""A score table that was asked for: its name, the outer knobs, and the configuration around which, as JSON."""


@dataclass(frozen=True)
class Play:
    """What a strategy did.

    Attributes:
        points: For every unique expensive evaluation in turn: its losses; None where it was infeasible or
            failed.
        configs: The configurations evaluated, in the same order.
        proposals: Configurations asked for.
        duplicates: Of these, those that had been answered before.
        rejected: Of these, those that broke a constraint on cheap metrics, so that nothing was evaluated.
        ended: Why it stopped before its budget was spent; None where it did not.
        seconds: Time the strategy took to propose and to learn, all together.
        evidence: Cost of the evidence it asked for, in evaluations.
    """

    points: tuple[Point | None, ...]
    configs: tuple[Config, ...]
    proposals: int
    duplicates: int
    rejected: int
    ended: str | None
    seconds: float
    evidence: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values, the configurations aside."""
        return {**{f.name: getattr(self, f.name) for f in fields(self)}, "configs": []}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Play:
        """What `to_json` gave."""
        points = tuple(None if point is None else tuple(point) for point in plain["points"])
        return cls(**{**plain, "points": points, "configs": ()})


class MeteredInsight:
    """An insight that knows what was asked of it, and what that cost.

    Args:
        insight: What answers.
        seconds: What the tables cost that were computed before; those computed now are added.
    """

    def __init__(self, insight: Insight, seconds: MutableMapping[Asked, float]) -> None:
        self._insight, self._seconds = insight, seconds
        self._asked: set[Asked] = set()
        self.tables, self.outer, self.choices = insight.tables, insight.outer, insight.choices

    def table(self, name: str, outer: Config, around: Config | None = None) -> ScoreTable:
        """One table, and note it."""
        key = (name, outer.to_json(), None if around is None else around.to_json())
        start = time.perf_counter()
        table = self._insight.table(name, outer, around)
        self._seconds.setdefault(key, time.perf_counter() - start)
        self._asked.add(key)
        return table

    def costs(self, config: Config) -> Metrics:
        """The metrics that need no model: free."""
        return self._insight.costs(config)

    @property
    def spent(self) -> float:
        """Seconds that the tables cost that were asked for."""
        return sum(self._seconds[key] for key in self._asked)


def play(
    make: Callable[[Problem], Strategy],
    problem: Problem,
    answer: Answer,
    budget: int,
    *,
    evidence_seconds: MutableMapping[Asked, float] | None = None,
    evaluation_seconds: float = 1.0,
) -> Play:
    """Ask and tell until the budget is spent.

    The strategy is told what it would be told in a search: duplicates are answered from their first
    trial, and a configuration that breaks a constraint on cheap metrics costs nothing. It ends early
    where the strategy has no more to propose, or as many proposals in a row as the budget has
    evaluations cost nothing.

    Args:
        make: Builds the strategy; its time counts as the strategy's.
        problem: Objectives, constraints and evidence.
        answer: Evaluates a configuration.
        budget: Unique expensive evaluations.
        evidence_seconds: What the evidence cost, table by table, where it was computed before.
        evaluation_seconds: What an evaluation costs, in which the evidence is counted.
    """
    insight = None
    if problem.insight is not None:
        insight = MeteredInsight(problem.insight, {} if evidence_seconds is None else evidence_seconds)
        problem = replace(problem, insight=insight)
    start = time.perf_counter()
    strategy = make(problem)
    spent = time.perf_counter() - start
    first: dict[Config, Trial] = {}
    evaluated: list[Trial] = []
    number = duplicates = idle = 0
    ended = None
    while len(evaluated) < budget and ended is None:
        start = time.perf_counter()
        asked = strategy.ask(1)
        spent += time.perf_counter() - start
        if not asked:
            ended = "it had no more to propose"
            break
        trial = _finished(number, asked[0], first, answer)
        number, idle = number + 1, idle + 1
        if trial.duplicate_of is not None:
            duplicates += 1
        elif _ran(problem, trial):
            evaluated.append(trial)
            idle = 0
        start = time.perf_counter()
        strategy.tell([trial])
        spent += time.perf_counter() - start
        if idle >= budget:
            ended = f"{idle} proposals in a row cost nothing"
    return Play(
        points=tuple(problem.judge(t.metrics).losses if t.state == "complete" else None for t in evaluated),
        configs=tuple(trial.config for trial in evaluated),
        proposals=number,
        duplicates=duplicates,
        rejected=number - duplicates - len(evaluated),
        ended=ended,
        seconds=spent,
        evidence=0.0 if insight is None else insight.spent / evaluation_seconds,
    )


def _finished(number: int, config: Config, first: dict[Config, Trial], answer: Answer) -> Trial:
    """The trial of a configuration, as a search records it."""
    known = first.get(config)
    if known is not None:
        state: State = "failed" if known.state == "failed" else "duplicate"
        return Trial(number, config, state, known.metrics, known.error, known.number, asked_after=number)
    outcome = answer(config)
    trial = Trial(number, config, outcome.state, outcome.metrics, outcome.error, asked_after=number)
    first[config] = trial
    return trial


def _ran(problem: Problem, trial: Trial) -> bool:
    """Whether anything expensive ran: all but what cheap metrics rejected."""
    if trial.state != "infeasible":
        return True
    return any(not problem.vocabulary.metrics[name].cheap for name in trial.metrics)
