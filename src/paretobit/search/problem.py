"""The problem every strategy is built from: space, objectives, constraints, runners and the baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from paretobit.errors import BadInput
from paretobit.search.evidence.insight import Insight
from paretobit.search.knobs import Tree
from paretobit.search.objectives import (
    Constraint,
    Direction,
    Forgiving,
    Knee,
    Metrics,
    Objective,
    Question,
    parse_question,
    split_constraints,
)
from paretobit.search.runners import RUNNERS, FileRunner, FunctionRunner, Metric, Runner


@dataclass(frozen=True)
class Wanted:
    """What the user asked for, in the user's names of metrics.

    Attributes:
        objectives: What to optimise.
        constraints: What must hold.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        if not self.objectives:
            raise BadInput("no objective: name a metric to maximize or to minimize", key="objectives")
        labels = [objective.label for objective in self.objectives]
        for label in labels:
            if labels.count(label) > 1:
                raise BadInput("a metric is an objective twice", key="objectives", found=label)

    @classmethod
    def of(
        cls,
        maximize: str | Sequence[str] = (),
        minimize: str | Sequence[str] = (),
        subject_to: str | Sequence[str] = (),
        forgiving: tuple[str, Forgiving] | None = None,
    ) -> Wanted:
        """Metrics to maximise, to minimise, and constraints as text.

        Args:
            maximize: Also `accuracy forgiving 8% per halved bitops`.
            minimize: Likewise metrics.
            subject_to: Constraints.
            forgiving: A quality to maximise and the cost that is traded for it: the first objective.
        """
        objectives = [] if forgiving is None else [Objective(((forgiving[0], 1.0),), "maximize", forgiving[1])]
        objectives += [Objective.parse(text, "maximize") for text in _as_list(maximize)]
        objectives += [Objective.parse(text, "minimize") for text in _as_list(minimize)]
        texts = [part for text in _as_list(subject_to) for part in split_constraints(text)]
        return cls(tuple(objectives), tuple(map(Constraint.parse, texts)))

    @property
    def directions(self) -> dict[str, Direction]:
        """Direction of each metric that is an objective by itself."""
        return {o.metrics[0]: o.direction for o in self.objectives if len(o.terms) == 1}

    def resolved(self, resolve: Callable[[str], str]) -> Wanted:
        """The same with the full names of metrics.

        Raises:
            BadInput: A metric is unknown, or is an objective twice.
        """
        return Wanted(
            tuple(objective.resolved(resolve) for objective in self.objectives),
            tuple(constraint.resolved(resolve) for constraint in self.constraints),
        )


class Vocabulary:
    """The metrics that a set of runners provides.

    Raises:
        BadInput: Two runners provide a metric of the same name.
    """

    def __init__(self, runners: Sequence[Runner | type[Runner]]) -> None:
        self.metrics: dict[str, Metric] = {}
        providers: dict[str, str] = {}
        for runner in runners:
            provider = _named(runner)
            for metric in runner.metrics:
                if metric.name in self.metrics:
                    both = f"{providers[metric.name]} and {provider}"
                    raise BadInput(
                        f"two runners provide the same metric: {both}", key="runners", found=metric.name
                    )
                self.metrics[metric.name], providers[metric.name] = metric, provider

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


UNJUDGED = Judgement(None, 0.0)
"""Before it is known what is wanted."""


@dataclass(frozen=True)
class Problem:
    """What is searched, what is wanted of it, and what may be known beforehand.

    Attributes:
        tree: The knobs.
        objectives: What to optimise.
        constraints: What must hold.
        runners: What measures; none where finished trials are replayed.
        baseline: Metrics of the unmodified model.
        vocabulary: The metrics.
        insight: What a strategy can ask about the model, computed when asked; None where nothing is known.
    """

    tree: Tree
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    runners: tuple[Runner, ...]
    baseline: Metrics
    vocabulary: Vocabulary
    insight: Insight | None = None

    @classmethod
    def build(
        cls,
        tree: Tree,
        wanted: Wanted,
        runners: Sequence[Runner],
        baseline: Metrics,
        insight: Insight | None = None,
    ) -> Problem:
        """Resolve what was asked for against what the runners provide."""
        vocabulary = Vocabulary(runners)
        understood = wanted.resolved(vocabulary.resolve)
        for constraint in understood.constraints:
            constraint.bound(baseline)
        objectives = tuple(objective.against(baseline) for objective in understood.objectives)
        constraints = understood.constraints
        return cls(tree, objectives, constraints, tuple(runners), baseline, vocabulary, insight)

    def __getstate__(self) -> dict[str, Any]:
        """Without the insight: a worker judges metrics, and asks nothing about the model."""
        return {**self.__dict__, "insight": None}

    def question(self, text: str) -> Question | Knee:
        """A question with full metric names.

        Raises:
            BadInput: It is none, or one of these objectives cannot answer.
        """
        asked = parse_question(text).resolved(self.vocabulary.resolve)
        check_answerable(asked, len(self.objectives))
        return asked

    def judge(self, metrics: Metrics) -> Judgement:
        """Losses and violation of a trial's metrics, as far as they are known."""
        needed = [name for objective in self.objectives for name in objective.metrics]
        known = all(name in metrics for name in needed)
        losses = tuple(o.loss(metrics) for o in self.objectives) if known else None
        return Judgement(losses, self.violation(metrics))

    def violation(self, metrics: Metrics) -> float:
        """Sum of the violations of the constraints whose metric is known, each relative to its bound.

        Raises:
            MetricError: A cost that an objective trades for is not above zero.
        """
        total = 0.0
        for objective in self.objectives:
            if objective.forgiving is not None and objective.forgiving.cost in metrics:
                objective.forgiving.factor(metrics)
        for constraint in self.constraints:
            if constraint.metric in metrics:
                excess = constraint.violation(metrics, self.baseline)
                total += max(excess, 0.0) / max(abs(constraint.bound(self.baseline)), 1e-12)
        return total


def check_answerable(question: Question | Knee, objectives: int) -> None:
    """Refuse to look for the knee of a front that has one objective."""
    if isinstance(question, Knee) and objectives < 2:
        problem = "a knee needs a front of two objectives or more"
        raise BadInput(problem, key="best", found="knee", allowed="(min|max) METRIC")


def check_before_work(wanted: Wanted, runners: Sequence[Runner], best: str | None = None) -> None:
    """Refuse unknown metrics early; what a user's function returns is known only after the baseline.

    Args:
        wanted: Objectives and constraints.
        runners: What provides metrics.
        best: The question whose answer is kept.
    """
    question = None if best is None else parse_question(best)
    if question is not None:
        check_answerable(question, len(wanted.objectives))
    if not any(isinstance(runner, FunctionRunner) for runner in runners):
        resolve = Vocabulary(runners).resolve
        wanted.resolved(resolve)
        if question is not None:
            question.resolved(resolve)


def _named(runner: Runner | type[Runner]) -> str:
    """A runner as the user knows it."""
    if isinstance(runner, FileRunner):
        return runner.reference
    kind = runner if isinstance(runner, type) else type(runner)
    return next((e.name for e in RUNNERS if e.value is kind), "evaluate")


def _as_list(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)
