"""What a runner is: it measures, and says beforehand what, in which unit, and which way is better."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from paretobit.graph import ModelGraph
from paretobit.passes.layers.assignment import Assignment
from paretobit.registry import Registry
from paretobit.spaces.base import Weights
from paretobit.trials.evidence import Evidence
from paretobit.wanted.metric import Metric


@dataclass(frozen=True)
class Candidate:
    """One configuration as runners see it.

    Attributes:
        formats: Formats of the varied layers; empty for the baseline.
        model: The model with this configuration applied; None while only cheap runners run.
        seed: For runners that draw random numbers.
        look: Says what the configuration makes of weights; it may take as long as applying it.
        carried: The formats that a trained model ended with, scales fixed or learned; None: `formats`.
        stages: What was measured before the last step of a trial that trains.
    """

    formats: Assignment
    model: nn.Module | None
    seed: int = 0
    look: Callable[[], Weights] = dict
    carried: Assignment | None = None
    stages: Mapping[str, float] = field(default_factory=dict)

    @property
    def delivered(self) -> Assignment:
        """The formats that decide which weights are zero."""
        return self.formats if self.carried is None else self.carried

    @cached_property
    def weights(self) -> Weights:
        """The parameters whose values are not those of the graph, before their formats."""
        return self.look()

    @property
    def applied(self) -> nn.Module:
        """The model, for runners that need it."""
        assert self.model is not None, "a cheap runner asked for the model"
        return self.model


class RunnerSettings(BaseModel):
    """Base of every runner's settings: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SplitSettings(RunnerSettings):
    """Settings of what runs the model over rows of a split."""

    split: Literal["val", "train"] = Field("val", description="which part of the data")
    num_samples: int | None = Field(None, gt=0, description="only the first so many rows; unset: all")
    batch_size: int | None = Field(
        None, gt=0, description="rows per forward pass; unset: as many as keep activations near 1 MB"
    )


class Runner(abc.ABC):
    """Measures a candidate. A runner keeps nothing from one candidate to the next.

    Args:
        evidence: What it may look at.
        settings: Its settings.
    """

    Settings: ClassVar[type[RunnerSettings]] = RunnerSettings
    metrics: tuple[Metric, ...]
    kind: ClassVar[Literal["software", "hardware"]] = "software"
    """Under which heading the best-trial table shows its metrics."""
    metrics_from_settings: ClassVar[bool] = False
    """Whether its metrics are known only once its settings, and the files they name, were read."""
    metrics_from_running: ClassVar[bool] = False
    """Whether its metrics are known only once it has measured the unmodified model."""
    may_change_model: ClassVar[bool] = False
    """Whether weights, statistics or modes may differ after `measure`."""

    def __init__(self, evidence: Evidence, settings: Any) -> None:
        self.evidence = evidence
        self.settings = settings

    @abc.abstractmethod
    def measure(self, candidate: Candidate) -> dict[str, float]:
        """Every metric the runner declares, by name."""

    def measure_once(self, candidate: Candidate) -> dict[str, float]:
        """`measure`, of a model with weights of its own: nothing of other runs can be taken over."""
        return self.measure(candidate)

    def leaves_as_is(self, model: nn.Module) -> bool:
        """Whether it is certain that `measure` changes nothing in a model, whatever the model does in a run."""
        return False

    def on(self, graph: ModelGraph) -> Runner:
        """The same runner for a model of another shape."""
        return type(self)(replace(self.evidence, graph=graph), self.settings)

    @property
    def identity(self) -> dict[str, Any]:
        """What two runners must share for their metrics to compare; JSON-able."""
        return {"runner": type(self).__name__, **self.settings.model_dump()}

    @property
    def cheap(self) -> bool:
        """Whether all its metrics come from the configuration alone."""
        return all(metric.cheap for metric in self.metrics)


RUNNERS: Registry[type[Runner]] = Registry("runner")
