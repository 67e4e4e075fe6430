"""What a search is asked for: objectives and constraints, in the user's names of metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paretobit.errors import BadInput
from paretobit.wanted.metric import Direction
from paretobit.wanted.objectives import Constraint, Forgiving, Knee, Metrics, Objective, Question, split_constraints


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
Judge = Callable[[Metrics], Judgement]
"""Tells what the metrics of a trial, as far as they are known, mean for the search."""


def nothing_wanted(metrics: Metrics) -> Judgement:
    """The judge before it is known what is wanted: nothing is refused."""
    return UNJUDGED


def check_answerable(question: Question | Knee, objectives: int) -> None:
    """Refuse to look for the knee of a front that has one objective."""
    if isinstance(question, Knee) and objectives < 2:
        problem = "a knee needs a front of two objectives or more"
        raise BadInput(problem, key="best", found="knee", allowed="(min|max) METRIC")


def _as_list(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)
