"""What of a problem is cost, known beforehand, and what is quality, known once measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from paretobit.errors import BadInput
from paretobit.strategies.problem import Problem
from paretobit.wanted.objectives import Constraint, Metrics

_STRICT = 1e-9  # of a bound: what `<` asks for more than `<=`; costs are counts, or as exact as doubles


@dataclass(frozen=True)
class Goals:
    """A problem as the guided strategy sees it.

    Attributes:
        costs: Metrics known beforehand that are to be small or large, and which of them: -1 for large.
        bounds: Metric to `(low, high)`: what constraints say of metrics that are known beforehand.
        problem: The problem.
    """

    costs: Mapping[str, int]
    bounds: Mapping[str, tuple[float, float]]
    problem: Problem

    @classmethod
    def of(cls, problem: Problem, known: Metrics) -> Goals:
        """Tell cost and quality apart.

        Args:
            problem: The problem.
            known: Metrics of some configuration that need no model.

        Raises:
            BadInput: Nothing that is wanted is known beforehand, or nothing has to be measured.
        """
        costs: dict[str, int] = {}
        measured = [c for c in problem.constraints if c.metric not in known]
        for objective in problem.objectives:
            for metric, scale in objective.terms:
                smaller = (objective.direction == "minimize") == (scale > 0)
                if metric in known:
                    costs.setdefault(metric, 1 if smaller else -1)
        bounds: dict[str, tuple[float, float]] = {}
        for constraint in problem.constraints:
            if constraint.metric in known:
                low, high = bounds.get(constraint.metric, (-math.inf, math.inf))
                there = _interval(constraint, problem.baseline)
                bounds[constraint.metric] = (max(low, there[0]), min(high, there[1]))
        if not costs:
            costs = {metric: 1 if math.isfinite(high) else -1 for metric, (_, high) in bounds.items()}
        lacking = ""
        if not costs:
            lacking = "a cost that is known without running the model, as an objective or a constraint"
        elif not measured and not any(m not in known for o in problem.objectives for m in o.metrics):
            lacking = "a metric that is measured: without one the answer is known beforehand"
        if lacking:
            found = [o.label for o in problem.objectives]
            allowed = [n for n, metric in problem.vocabulary.metrics.items() if metric.cheap != bool(costs)]
            raise BadInput(f"guided needs {lacking}", key="strategy", found=found, allowed=allowed)
        return cls(costs, bounds, problem)

    @property
    def signs(self) -> dict[str, int]:
        """Metrics that are known beforehand and matter: 1 to be small, -1 to be large, 0 between bounds."""
        signs = dict(self.costs)
        for metric, (low, high) in self.bounds.items():
            wanted = 0 if math.isfinite(low) and math.isfinite(high) else 1 if math.isfinite(high) else -1
            signs[metric] = wanted if signs.get(metric, wanted) == wanted else 0
        return signs

    def harm(self, metrics: Metrics) -> float:
        """What is measured and unwanted: of the first objective that is measured, else of the constraints."""
        for objective in self.problem.objectives:
            parts = [(m, scale) for m, scale in objective.terms if m not in self.costs]
            if parts:
                total = sum(metrics[m] * scale for m, scale in parts)
                return -total if objective.direction == "maximize" else total
        return sum(
            constraint.violation(metrics, self.problem.baseline)
            for constraint in self.problem.constraints
            if constraint.metric not in self.bounds
        )

    def cost(self, metric: str, metrics: Metrics) -> float:
        """A cost on a logarithmic scale where it is positive; smaller is better."""
        value = metrics[metric]
        return self.costs[metric] * (math.log(value) if value > 0 else value)


def _interval(constraint: Constraint, baseline: Metrics) -> tuple[float, float]:
    bound = constraint.bound(baseline)
    margin = _STRICT * max(abs(bound), 1.0)
    return {
        "<=": (-math.inf, bound),
        "<": (-math.inf, bound - margin),
        ">=": (bound, math.inf),
        ">": (bound + margin, math.inf),
    }[constraint.relation]
