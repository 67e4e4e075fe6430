"""What is wanted: objectives, constraints, and questions to a study, in one small language.

maximize accuracy
accuracy >= baseline - 0.01
min bitops s.t. accuracy >= baseline - 0.01 and model_size <= 4096
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from paretobit.errors import BadInput

Direction = Literal["maximize", "minimize"]
Metrics = Mapping[str, float]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_CONSTRAINT = re.compile(
    rf"^\s*(?P<metric>[A-Za-z_]\w*)\s*(?P<relation><=|>=|<|>)\s*"
    rf"(?:(?P<baseline>baseline)\s*(?:(?P<operator>[-+*/])\s*(?P<operand>{_NUMBER}))?|(?P<number>{_NUMBER}))\s*$"
)
_QUESTION = re.compile(
    r"^\s*(?P<direction>min|max|minimi[sz]e|maximi[sz]e)\s+(?P<metric>[A-Za-z_]\w*)"
    r"(?:\s+(?:s\.?t\.?|subject to|where)\s+(?P<constraints>.+?))?\s*$",
    re.IGNORECASE,
)
_GRAMMAR = "METRIC (<=|>=|<|>) (NUMBER | baseline [(+|-|*|/) NUMBER])"


@dataclass(frozen=True)
class Objective:
    """What is optimised: one metric, or several scaled and summed as in the reports.

    Attributes:
        terms: Metric and factor of each summand.
        direction: Which way the sum is better.

    >>> Objective.of("accuracy", "maximize").label
    'accuracy'
    >>> Objective((("accuracy", 1.0), ("total_bitops", -5e-10)), "maximize").label
    '1*accuracy + -5e-10*total_bitops'
    """

    terms: tuple[tuple[str, float], ...]
    direction: Direction

    @classmethod
    def of(cls, metric: str, direction: Direction, scale: float = 1.0) -> Objective:
        """One metric."""
        return cls(((metric, scale),), direction)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics it reads."""
        return tuple(metric for metric, _ in self.terms)

    @property
    def label(self) -> str:
        """The metric, or the sum written out."""
        if len(self.terms) == 1 and self.terms[0][1] == 1.0:
            return self.terms[0][0]
        return " + ".join(f"{_exact(scale)}*{metric}" for metric, scale in self.terms)

    def scaled(self, metrics: Metrics) -> dict[str, float]:
        """Each metric times its factor."""
        return {metric: metrics[metric] * scale for metric, scale in self.terms}

    def value(self, metrics: Metrics) -> float:
        """The sum of the scaled metrics."""
        return sum(self.scaled(metrics).values())

    def loss(self, metrics: Metrics) -> float:
        """The value to minimise."""
        return -self.value(metrics) if self.direction == "maximize" else self.value(metrics)

    def resolved(self, resolve: Callable[[str], str]) -> Objective:
        """The same objective with the full names of its metrics."""
        return Objective(tuple((resolve(metric), scale) for metric, scale in self.terms), self.direction)


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric, absolute or relative to the baseline.

    >>> Constraint.parse("accuracy >= baseline - 0.01").violation({"accuracy": .9}, {"accuracy": .95})
    0.04
    """

    metric: str
    relation: Literal["<=", ">=", "<", ">"]
    number: float
    relative: Literal["", "+", "-", "*", "/"] = ""

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read `accuracy >= baseline - 0.01`.

        Raises:
            BadInput: The text has another form.
        """
        match = _CONSTRAINT.match(text)
        if match is None:
            raise BadInput("not a constraint", found=text, allowed=_GRAMMAR)
        relation = match["relation"]
        if match["baseline"] is None:
            return cls(match["metric"], relation, float(match["number"]))  # type: ignore[arg-type]
        operator, operand = match["operator"] or "+", float(match["operand"] or 0)
        if operator == "/" and operand == 0:
            raise BadInput("division by zero", found=text)
        return cls(match["metric"], relation, operand, operator)  # type: ignore[arg-type]

    def bound(self, baseline: Metrics) -> float:
        """The number the metric is held against.

        Raises:
            BadInput: The baseline lacks the metric.
        """
        if not self.relative:
            return self.number
        if self.metric not in baseline:
            raise BadInput("the baseline has no such metric", found=self.metric, allowed=list(baseline))
        reference = baseline[self.metric]
        return {
            "+": lambda: reference + self.number,
            "-": lambda: reference - self.number,
            "*": lambda: reference * self.number,
            "/": lambda: reference / self.number,
        }[self.relative]()

    def violation(self, metrics: Metrics, baseline: Metrics) -> float:
        """How far beyond the bound; zero or less where the constraint holds.

        Differences below 1e-12 of the bound are rounding, not violations.
        """
        value, bound = metrics[self.metric], self.bound(baseline)
        excess = value - bound if self.relation in ("<=", "<") else bound - value
        tolerance = 1e-12 * max(abs(bound), 1.0)
        if abs(excess) <= tolerance:
            return 0.0 if self.relation in ("<=", ">=") else tolerance
        return round(excess, 12) or excess

    def holds(self, metrics: Metrics, baseline: Metrics) -> bool:
        """Whether the metrics satisfy it."""
        return self.violation(metrics, baseline) <= 0

    def resolved(self, resolve: Callable[[str], str]) -> Constraint:
        """The same constraint with the full name of its metric."""
        return replace(self, metric=resolve(self.metric))

    def __str__(self) -> str:
        if not self.relative:
            return f"{self.metric} {self.relation} {_exact(self.number)}"
        suffix = "" if self.relative == "+" and self.number == 0 else f" {self.relative} {_exact(self.number)}"
        return f"{self.metric} {self.relation} baseline{suffix}"


@dataclass(frozen=True)
class Question:
    """An objective and constraints, asked of finished trials."""

    objective: Objective
    constraints: tuple[Constraint, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Question:
        """Read `min bitops s.t. accuracy >= baseline - 0.01 and model_size <= 4096`.

        Raises:
            BadInput: The text has another form.
        """
        match = _QUESTION.match(text)
        if match is None:
            raise BadInput("not a question", found=text, allowed="(min|max) METRIC [s.t. CONSTRAINT [and ...]]")
        direction: Direction = "minimize" if match["direction"].lower().startswith("min") else "maximize"
        constraints = split_constraints(match["constraints"] or "")
        return cls(Objective.of(match["metric"], direction), tuple(map(Constraint.parse, constraints)))

    def resolved(self, resolve: Callable[[str], str]) -> Question:
        """The same question with the full names of its metrics."""
        constraints = tuple(constraint.resolved(resolve) for constraint in self.constraints)
        return Question(self.objective.resolved(resolve), constraints)


def _exact(number: float) -> str:
    """The shortest text that reads back as the same number."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)


def split_constraints(text: str) -> list[str]:
    """The parts of `a >= 1 and b <= 2`; a comma separates as well.

    >>> split_constraints("a >= 1 and b <= 2, c < 3")
    ['a >= 1', 'b <= 2', 'c < 3']
    """
    return re.split(r"\s+and\s+|\s*,\s*", text.strip()) if text.strip() else []
