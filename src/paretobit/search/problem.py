"""The problem every strategy is built from: space, objectives, constraints, runners and the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from paretobit.errors import BadInput
from paretobit.search.knobs import Tree
from paretobit.search.objectives import (
    AnyObjective,
    Constraint,
    Metrics,
    Objective,
    Question,
    ScaledSum,
    metrics_of,
    objectives_from,
    resolve_constraints,
)
from paretobit.search.runners import RUNNERS, FunctionRunner, Metric, Runner
from paretobit.search.spaces import BoundSpace


@dataclass(frozen=True)
class Wanted:
    """What the user asked for, in the user's names of metrics.

    Attributes:
        maximize: Metrics to maximise.
        minimize: Metrics to minimise.
        subject_to: Constraints as text.
        scaled: Factors of one summed objective, in place of `maximize` and `minimize`.
        scaled_direction: Which way that sum is better.
    """

    maximize: tuple[str, ...] = ()
    minimize: tuple[str, ...] = ()
    subject_to: tuple[str, ...] = ()
    scaled: Mapping[str, float] = field(default_factory=dict)
    scaled_direction: str = "maximize"

    @property
    def directions(self) -> dict[str, str]:
        """Direction of each metric that is named as an objective."""
        return dict.fromkeys(self.maximize, "maximize") | dict.fromkeys(self.minimize, "minimize")


class Vocabulary:
    """The metrics that a set of runners provides.

    Raises:
        BadInput: Two runners provide a metric of the same name.
    """

    def __init__(self, runners: Sequence[Runner]) -> None:
        self.metrics: dict[str, Metric] = {}
        for runner in runners:
            for metric in runner.metrics:
                if metric.name in self.metrics:
                    raise BadInput("two runners provide the same metric", found=metric.name)
                self.metrics[metric.name] = metric

    def resolve(self, name: str) -> str:
        """The full name of a metric; short names are accepted.

        Raises:
            BadInput: No runner provides it; the runner that would is named.
        """
        for metric in self.metrics.values():
            if name in (metric.name, metric.short):
                return metric.name
        known = [*self.metrics, *(m.short for m in self.metrics.values() if m.short)]
        provider = next(
            (e.name for e in RUNNERS if any(name in (m.name, m.short) for m in e.value.metrics)), None
        )
        problem = f"no runner in use provides this metric: add '{provider}'" if provider else "unknown metric"
        raise BadInput(problem, key="metric", found=name, allowed=known)


@dataclass(frozen=True)
class Judgement:
    """What metrics mean for the search.

    Attributes:
        losses: One number per objective, smaller is better; None while a metric is missing.
        violation: Sum of relative constraint violations; 0 where all known constraints hold.
    """

    losses: tuple[float, ...] | None
    violation: float


@dataclass(frozen=True)
class Problem:
    """Space, objectives, constraints, and what measures them."""

    space: BoundSpace
    objectives: tuple[AnyObjective, ...]
    constraints: tuple[Constraint, ...]
    runners: tuple[Runner, ...]
    baseline: Metrics

    @classmethod
    def build(cls, space: BoundSpace, wanted: Wanted, runners: Sequence[Runner], baseline: Metrics) -> Problem:
        """Resolve what was asked for against what the runners provide."""
        vocabulary = Vocabulary(runners)
        objectives, constraints = understand(wanted, vocabulary)
        for constraint in constraints:
            constraint.bound(baseline)
        return cls(space, objectives, constraints, tuple(runners), baseline)

    @property
    def tree(self) -> Tree:
        """The knobs."""
        return self.space.tree

    @property
    def vocabulary(self) -> Vocabulary:
        """The metrics."""
        return Vocabulary(self.runners)

    def question(self, text: str) -> Question:
        """A question with full metric names."""
        return Question.parse(text).resolved(self.vocabulary.resolve)

    def judge(self, metrics: Metrics) -> Judgement:
        """Losses and violation of a trial's metrics, as far as they are known."""
        needed = [name for objective in self.objectives for name in metrics_of(objective)]
        known = all(name in metrics for name in needed)
        losses = tuple(o.loss(metrics) for o in self.objectives) if known else None
        return Judgement(losses, self.violation(metrics))

    def violation(self, metrics: Metrics) -> float:
        """Sum of the violations of the constraints whose metric is known, each relative to its bound."""
        total = 0.0
        for constraint in self.constraints:
            if constraint.metric in metrics:
                excess = constraint.violation(metrics, self.baseline)
                total += max(excess, 0.0) / max(abs(constraint.bound(self.baseline)), 1e-12)
        return total


def understand(
    wanted: Wanted, vocabulary: Vocabulary
) -> tuple[tuple[AnyObjective, ...], tuple[Constraint, ...]]:
    """Objectives and constraints with the full names of their metrics.

    Raises:
        BadInput: A metric is unknown, or the objectives contradict each other.
    """
    constraints = resolve_constraints(map(Constraint.parse, wanted.subject_to), vocabulary.resolve)
    if not wanted.scaled:
        return objectives_from(wanted.maximize, wanted.minimize, vocabulary.resolve), constraints
    if wanted.maximize or wanted.minimize:
        raise BadInput("objectives are given both one by one and as a scaled sum", key="objectives")
    if wanted.scaled_direction not in ("maximize", "minimize"):
        allowed = ("maximize", "minimize")
        raise BadInput("unknown direction", key="direction", found=wanted.scaled_direction, allowed=allowed)
    scales = tuple((vocabulary.resolve(name), float(scale)) for name, scale in wanted.scaled.items())
    return (ScaledSum(scales, wanted.scaled_direction),), constraints  # type: ignore[arg-type]


def check_before_work(wanted: Wanted, runners: Sequence[Runner]) -> None:
    """Refuse unknown metrics early; what a user's function returns is known only after the baseline."""
    if not any(isinstance(runner, FunctionRunner) for runner in runners):
        understand(wanted, Vocabulary(runners))
    else:
        for text in wanted.subject_to:
            Constraint.parse(text)


def metric_names(objectives: Iterable[AnyObjective]) -> list[str]:
    """Labels of objectives."""
    return [o.metric for o in objectives if isinstance(o, Objective | ScaledSum)]
