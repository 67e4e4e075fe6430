"""What is wanted: objectives, constraints, and questions to a study, in one small language.

maximize accuracy
accuracy >= baseline - 0.01
min bitops s.t. accuracy >= baseline - 0.01 and model_size <= 4096
max accuracy forgiving 8% per halved bitops
knee s.t. accuracy >= baseline - 0.01
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from paretobit.errors import BadInput, MetricError
from paretobit.wanted.metric import Direction

Metrics = Mapping[str, float]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_CONSTRAINT = re.compile(
    rf"^\s*(?P<metric>[A-Za-z_]\w*)\s*(?P<relation><=|>=|<|>)\s*"
    rf"(?:(?P<baseline>baseline)\s*(?:(?P<operator>[-+*/])\s*(?P<operand>{_NUMBER}))?|(?P<number>{_NUMBER}))\s*$"
)
_FORGIVING = (
    rf"(?P<metric>[A-Za-z_]\w*)(?:\s+forgiving\s+(?P<delta>{_NUMBER})\s*(?P<percent>%?)"
    rf"\s+per\s+(?:halved|1\s*/\s*(?P<rate>{_NUMBER}))\s+(?P<cost>[A-Za-z_]\w*))?"
)
_OBJECTIVE = re.compile(rf"^\s*{_FORGIVING}\s*$", re.IGNORECASE)
_SUBJECT_TO = r"(?:\s+(?:s\.?t\.?|subject to|where)\s+(?P<constraints>.+?))?\s*$"
_QUESTION = re.compile(
    rf"^\s*(?P<direction>min|max|minimi[sz]e|maximi[sz]e)\s+{_FORGIVING}{_SUBJECT_TO}", re.IGNORECASE
)
_KNEE = re.compile(rf"^\s*knee{_SUBJECT_TO}", re.IGNORECASE)
_GRAMMAR = "METRIC (<=|>=|<|>) (NUMBER | baseline [(+|-|*|/) NUMBER])"
_OBJECTIVE_GRAMMAR = "METRIC [forgiving NUMBER% per (halved | 1/NUMBER) METRIC]"


@dataclass(frozen=True)
class Forgiving:
    """The forgiving factor: how much of its quality a cheaper model may lose.

    The quality is multiplied with `1 + delta · log_rate(stress · reference / cost)`: AutoQKeras
    (Coelho et al. 2021, arXiv:2006.10159). With `delta = 0.08` and `rate = 2`, a model at half the
    cost may lose 8 % of the reference's quality and still counts as much. It is meant for factors above
    zero: at a cost so high that the factor is negative, more quality counts less.

    Attributes:
        cost: The metric that is traded for.
        delta: Share of the quality that is forgiven each time the cost is divided by `rate`; 0 or more.
        rate: More than 1.
        reference: Cost at which nothing is forgiven; None: that of the baseline.
        stress: Factor on the reference: below 1, a model must already be cheaper to be forgiven nothing.
        delta_above: Share that is taken away each time the cost is `rate` times higher; None: `delta`.

    Raises:
        BadInput: A number out of its range.

    >>> Forgiving("bitops", 0.08, reference=400.0).factor({"bitops": 100.0})
    1.16
    """

    cost: str
    delta: float
    rate: float = 2.0
    reference: float | None = None
    stress: float = 1.0
    delta_above: float | None = None

    def __post_init__(self) -> None:
        for key in ("delta", "delta_above"):
            value = getattr(self, key)
            if value is not None and not 0 <= value < math.inf:
                raise BadInput("not a share", key=f"forgiving.{key}", found=value, allowed="0 or more")
        for key, least in (("rate", 1.0), ("reference", 0.0), ("stress", 0.0)):
            value = getattr(self, key)
            if value is not None and not least < value < math.inf:
                raise BadInput("out of range", key=f"forgiving.{key}", found=value, allowed=f"more than {least:g}")

    def factor(self, metrics: Metrics) -> float:
        """What the quality is multiplied with.

        Raises:
            MetricError: The cost is not above zero, or the reference is not known yet.
        """
        cost = metrics[self.cost]
        if self.reference is None:
            raise MetricError(f"no reference to compare '{self.cost}' with: it is the baseline's")
        if not 0 < cost < math.inf:
            raise MetricError(f"nothing can be forgiven for '{self.cost}' of {cost}: it must be above zero")
        gain = math.log(self.stress * self.reference / cost) / math.log(self.rate)
        delta = self.delta if gain >= 0 or self.delta_above is None else self.delta_above
        return 1 + delta * gain

    def against(self, baseline: Metrics) -> Forgiving:
        """The same with the baseline's cost as reference, where none is given.

        Raises:
            BadInput: The baseline lacks it, or it is not above zero.
        """
        if self.reference is not None:
            return self
        if self.cost not in baseline:
            raise BadInput("the baseline has no such metric", found=self.cost, allowed=list(baseline))
        return replace(self, reference=float(baseline[self.cost]))

    def __str__(self) -> str:
        step = "halved" if self.rate == 2 else f"1/{_exact(self.rate)}"
        return f"forgiving {_exact(100 * self.delta)}% per {step} {self.cost}"


@dataclass(frozen=True)
class Objective:
    """What is optimised: one metric, or several scaled and summed as in the reports.

    Attributes:
        terms: Metric and factor of each summand.
        direction: Which way the sum is better.
        forgiving: What multiplies the sum, where a cost is traded for it.

    Raises:
        BadInput: What is to be minimised cannot be forgiven: the factor is one on a quality.

    >>> Objective.of("accuracy", "maximize").label
    'accuracy'
    >>> Objective((("accuracy", 1.0), ("total_bitops", -5e-10)), "maximize").label
    '1*accuracy + -5e-10*total_bitops'
    >>> Objective.parse("accuracy forgiving 8% per halved bitops", "maximize").forgiving.delta
    0.08
    """

    terms: tuple[tuple[str, float], ...]
    direction: Direction
    forgiving: Forgiving | None = None

    def __post_init__(self) -> None:
        if self.forgiving is not None and self.direction == "minimize":
            problem = "only what is maximised can be forgiven"
            raise BadInput(problem, key="objectives", found=self.label, allowed="a quality to maximise")

    @classmethod
    def of(cls, metric: str, direction: Direction, scale: float = 1.0) -> Objective:
        """One metric."""
        return cls(((metric, scale),), direction)

    @classmethod
    def parse(cls, text: str, direction: Direction) -> Objective:
        """Read `accuracy`, or `accuracy forgiving 8% per halved bitops`; a name that is no word stays one.

        Raises:
            BadInput: The text has another form.
        """
        match = _OBJECTIVE.match(text)
        if match is not None:
            return _objective(match, direction)
        if " " in text.strip():
            raise BadInput("not an objective", key="objectives", found=text, allowed=_OBJECTIVE_GRAMMAR)
        return cls.of(text, direction)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics it reads."""
        cost = () if self.forgiving is None else (self.forgiving.cost,)
        return (*(metric for metric, _ in self.terms), *cost)

    @property
    def label(self) -> str:
        """The metric, or the sum written out, and what is forgiven."""
        if len(self.terms) == 1 and self.terms[0][1] == 1.0:
            words = self.terms[0][0]
        else:
            words = " + ".join(f"{_exact(scale)}*{metric}" for metric, scale in self.terms)
        return words if self.forgiving is None else f"{words} {self.forgiving}"

    def scaled(self, metrics: Metrics) -> dict[str, float]:
        """Each metric times its factor; where a cost is traded, that of forgiving included."""
        factor = 1.0 if self.forgiving is None else self.forgiving.factor(metrics)
        return {metric: metrics[metric] * scale * factor for metric, scale in self.terms}

    def value(self, metrics: Metrics) -> float:
        """The sum of the scaled metrics."""
        return sum(self.scaled(metrics).values())

    def loss(self, metrics: Metrics) -> float:
        """The value to minimise."""
        return -self.value(metrics) if self.direction == "maximize" else self.value(metrics)

    def resolved(self, resolve: Callable[[str], str]) -> Objective:
        """The same objective with the full names of its metrics."""
        traded = self.forgiving and replace(self.forgiving, cost=resolve(self.forgiving.cost))
        terms = tuple((resolve(metric), scale) for metric, scale in self.terms)
        return Objective(terms, self.direction, traded)

    def against(self, baseline: Metrics) -> Objective:
        """The same objective, what is relative to the baseline in numbers."""
        return replace(self, forgiving=self.forgiving and self.forgiving.against(baseline))

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes it again."""
        plain: dict[str, Any] = {"terms": [list(term) for term in self.terms], "direction": self.direction}
        return plain if self.forgiving is None else {**plain, "forgiving": asdict(self.forgiving)}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Objective:
        """What `to_json` gave."""
        terms = tuple((str(metric), float(scale)) for metric, scale in plain["terms"])
        traded = plain.get("forgiving")
        return cls(terms, plain["direction"], None if traded is None else Forgiving(**traded))


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
            allowed = f"(min|max) {_OBJECTIVE_GRAMMAR} [s.t. CONSTRAINT [and ...]], or knee [s.t. ...]"
            raise BadInput("not a question", found=text, allowed=allowed)
        direction: Direction = "minimize" if match["direction"].lower().startswith("min") else "maximize"
        return cls(_objective(match, direction), _constraints(match))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics it reads."""
        return (*self.objective.metrics, *(constraint.metric for constraint in self.constraints))

    def resolved(self, resolve: Callable[[str], str]) -> Question:
        """The same question with the full names of its metrics."""
        constraints = tuple(constraint.resolved(resolve) for constraint in self.constraints)
        return Question(self.objective.resolved(resolve), constraints)


@dataclass(frozen=True)
class Knee:
    """The question for the knee of the front: `knee`, `knee s.t. accuracy >= baseline - 0.05`."""

    constraints: tuple[Constraint, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics it names."""
        return tuple(constraint.metric for constraint in self.constraints)

    def resolved(self, resolve: Callable[[str], str]) -> Knee:
        """The same question with the full names of its metrics."""
        return Knee(tuple(constraint.resolved(resolve) for constraint in self.constraints))


def parse_question(text: str) -> Question | Knee:
    """A question, be it for the best by some metric or for the knee.

    Raises:
        BadInput: The text is neither.
    """
    match = _KNEE.match(text)
    return Question.parse(text) if match is None else Knee(_constraints(match))


def _objective(match: re.Match[str], direction: Direction) -> Objective:
    terms = ((match["metric"], 1.0),)
    if match["delta"] is None:
        return Objective(terms, direction)
    delta = float(match["delta"]) / (100 if match["percent"] else 1)
    rate = 2.0 if match["rate"] is None else float(match["rate"])
    return Objective(terms, direction, Forgiving(match["cost"], delta, rate))


def _constraints(match: re.Match[str]) -> tuple[Constraint, ...]:
    return tuple(map(Constraint.parse, split_constraints(match["constraints"] or "")))


def _exact(number: float) -> str:
    """The shortest text that reads back as the same number."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)


def split_constraints(text: str) -> list[str]:
    """The parts of `a >= 1 and b <= 2`; a comma separates as well.

    >>> split_constraints("a >= 1 and b <= 2, c < 3")
    ['a >= 1', 'b <= 2', 'c < 3']
    """
    return re.split(r"\s+and\s+|\s*,\s*", text.strip()) if text.strip() else []
