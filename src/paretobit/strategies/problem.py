"""The problem every strategy is built from: space, objectives, constraints, runners and the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paretobit.spaces.knobs import Tree
from paretobit.strategies.insight.insight import Insight
from paretobit.trials.runners import Runner
from paretobit.trials.vocabulary import Vocabulary
from paretobit.wanted.objectives import Constraint, Knee, Metrics, Objective, Question, parse_question
from paretobit.wanted.wanted import Judgement, Wanted, check_answerable


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
        cls, tree: Tree, wanted: Wanted, runners: Sequence[Runner], baseline: Metrics, insight: Insight | None = None
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
