"""What a check of the doctor is, and the search that it looks at."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch

from paretobit.errors import BadInput
from paretobit.runtime import derive_seed
from paretobit.session.engines.worker import Surroundings
from paretobit.session.session import Session
from paretobit.spaces import BoundSpace
from paretobit.spaces.knobs import Config, Tree
from paretobit.strategies.problem import Problem
from paretobit.trials.bench import Bench
from paretobit.trials.evidence import Evidence, fingerprint
from paretobit.trials.outcome import Outcome
from paretobit.trials.runners import Runner
from paretobit.trials.runners.latency import Latency
from paretobit.wanted.objectives import Metrics

CheckState = Literal["ok", "warn", "failed", "not applicable"]
"""`warn`: the search copes with it, and who reads its numbers should know."""
LEAST_EVALUATIONS = 12
DEFAULT_EVALUATIONS = 20
_MOST_SAMPLES = 8


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        state: `not applicable` where the search lacks what the check looks at; `warn` where a number holds
            and means less than it seems to.
        said: One line with the numbers that prove it, or the reason.
        evidence: The numbers, JSON-able.
    """

    state: CheckState
    said: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """A check that was made.

    Attributes:
        name: Registered name.
        state: `ok`, `warn`, `failed` or `not applicable`.
        said: One line.
        evidence: Numbers, JSON-able.
        evaluations: How often it ran the whole measurement of a trial.
    """

    name: str
    state: CheckState
    said: str
    evidence: Mapping[str, Any]
    evaluations: int


@dataclass(frozen=True)
class Circumstances:
    """What of the caller's a trial must leave alone.

    Attributes:
        digests: Of weights, buffers and data.
        modes: Training mode of every module.
        gradients: Parameters that hold a gradient.
        surroundings: What of the interpreter decides what a trial gives.
        grad_enabled: Whether gradients are recorded.
        threads: Of torch.
    """

    digests: Mapping[str, str]
    modes: tuple[bool, ...]
    gradients: int
    surroundings: Surroundings
    grad_enabled: bool
    threads: int

    def differences(self, other: Circumstances) -> list[str]:
        """What changed, in words."""
        changed = [name for name, digest in self.digests.items() if other.digests[name] != digest]
        pairs = {
            "modes of the model": (self.modes, other.modes),
            "gradients of the model": (self.gradients, other.gradients),
            "settings of the interpreter": (self.surroundings, other.surroundings),
            "gradient recording": (self.grad_enabled, other.grad_enabled),
            "threads": (self.threads, other.threads),
        }
        return changed + [name for name, (before, after) in pairs.items() if before != after]


@dataclass(eq=False)
class Patient:
    """A search that is looked at and not run.

    Attributes:
        session: The search.
        trained: Whether the weights are those that a search would have.
        evaluations: How often a model may be measured, about.
        counted: How often it was.
        recorded: Metrics of the configurations measured so far, `None` the unmodified model.
    """

    session: Session
    trained: bool = True
    evaluations: int = DEFAULT_EVALUATIONS
    counted: int = 0
    recorded: dict[Config | None, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if type(self.evaluations) is not int or self.evaluations < LEAST_EVALUATIONS:
            allowed = f"{LEAST_EVALUATIONS} or more"
            raise BadInput("too few trials to look at", key="trials", found=self.evaluations, allowed=allowed)
        self.before = self.circumstances()
        self.recorded[None] = self.evaluate(self.bench, None)
        self.problem = self.make_problem()

    @property
    def evidence(self) -> Evidence:
        """Graph and data."""
        return self.session.evidence

    @property
    def space(self) -> BoundSpace:
        """What varies."""
        return self.session.space

    @property
    def runners(self) -> Sequence[Runner]:
        """What measures."""
        return self.session.runners

    @property
    def seed(self) -> int:
        """The study's."""
        return self.session.seed

    @property
    def baseline(self) -> Metrics:
        """Metrics of the unmodified model."""
        return self.recorded[None].metrics

    @property
    def tree(self) -> Tree:
        """The knobs."""
        return self.space.tree

    @property
    def left(self) -> int:
        """Evaluations that may still be made."""
        return self.evaluations - self.counted

    @cached_property
    def bench(self) -> Bench:
        """The bench that most checks share."""
        return self.session.make_bench()

    def make_problem(self) -> Problem:
        """What a strategy is given; constraints keep no trial from being measured here."""
        return self.session.problem(self.bench, self.baseline)

    @cached_property
    def samples(self) -> tuple[Config, ...]:
        """A few configurations, drawn by the seed, all different.

        Each is evaluated three times, the baseline as well; a quarter is kept for the metrics.
        """
        wanted = max(2, min(_MOST_SAMPLES, (self.evaluations - 5) // 5))
        draw = random.Random(derive_seed(self.seed, "doctor"))
        most = self.tree.size
        indices = draw.sample(range(most), min(wanted, most)) if most < 2**31 else _distinct(draw, most, wanted)
        return tuple(self.tree.at(index) for index in indices)

    @cached_property
    def timed(self) -> frozenset[str]:
        """Metrics that are times: no two are alike."""
        return frozenset(m.name for r in self.runners if isinstance(r, Latency) for m in r.metrics)

    def evaluate(self, bench: Bench, config: Config | None) -> Outcome:
        """Measure a configuration, None the unmodified model, and count it."""
        self.counted += 1
        return bench.baseline() if config is None else bench.evaluate(config)

    def outcome(self, config: Config) -> Outcome:
        """The outcome of a configuration, measured on the shared bench where it is not known."""
        if config not in self.recorded:
            self.recorded[config] = self.evaluate(self.bench, config)
        return self.recorded[config]

    def comparable(self, metrics: Metrics) -> dict[str, float]:
        """The metrics that must be the same to the last bit: all but times."""
        return {name: value for name, value in metrics.items() if name not in self.timed}

    def unlike(self, first: Outcome, second: Outcome) -> str | None:
        """The first thing in which two measurements of one configuration differ; None where in none."""
        if first.state != second.state:
            return f"once {first.state}, once {second.state}"
        a, b = self.comparable(first.metrics), self.comparable(second.metrics)
        name = next((name for name in {**a, **b} if exact(a.get(name)) != exact(b.get(name))), None)
        return None if name is None else f"{name} is {a.get(name)!r} and {b.get(name)!r}"

    def circumstances(self) -> Circumstances:
        """Those of now."""
        model, traced = self.session.model, self.evidence.graph.model
        modules = (*model.modules(), *traced.modules())
        digests = {**fingerprint(model, self.session.splits), "traced model": fingerprint(traced, {})["model"]}
        return Circumstances(
            digests,
            tuple(module.training for module in modules),
            sum(parameter.grad is not None for module in modules for parameter in module.parameters(False)),
            Surroundings.here(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
        )


def _distinct(draw: random.Random, size: int, wanted: int) -> list[int]:
    """Different indices below a size that `range` cannot hold."""
    found: dict[int, None] = {}
    while len(found) < wanted:
        found[draw.randrange(size)] = None
    return list(found)


def exact(value: float | None) -> str:
    """A number with all its bits, whichever type holds it.

    >>> exact(0.1) == exact(0.1 + 1e-18), exact(0.0) == exact(-0.0), exact(2**80) == exact(2**80 + 1)
    (True, False, False)
    """
    return repr(value) if isinstance(value, int | None) else float(value).hex()
