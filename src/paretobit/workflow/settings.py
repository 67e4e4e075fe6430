"""The whole document: what a TOML file may say, section by section."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from paretobit.data import DataSettings
from paretobit.document import Document, validate
from paretobit.errors import BadInput
from paretobit.models import ModelSettings
from paretobit.runtime import MAX_SEED
from paretobit.search import Constraint, Objective, Wanted
from paretobit.training import TrainSettings

DEFAULT_RUNNERS = ("basic_evaluation", "basic_computation", "average_bitwidth", "model_size")
Direction = Literal["maximize", "minimize"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MetricSettings(_Section):
    """One metric as an objective, in the reports' words.

    Attributes:
        scale: Factor.
        direction: Which way the scaled metric is better.
    """

    scale: float = 1.0
    direction: Direction | None = None


class SearchSettings(_Section):
    """Settings of `[search]`.

    Attributes:
        space: `name` of the search space (`quantize`) and its own keys.
        strategy: `name` of the strategy and its own keys; unset: every configuration where there are
            at most 500, otherwise 100 trials of TPE.
        runners: Runner to its settings; the table replaces the default runners.
        maximize: Metrics to maximise.
        minimize: Metrics to minimise.
        subject_to: Constraints: `accuracy >= baseline - 0.01`.
        metrics: Objectives in the reports' words, in place of `maximize` and `minimize`.
        sum_scaled_metrics: Sum the scaled `metrics` into one objective.
        direction: Which way that sum is better.
        n_trials: Trials at most; unset: all of a brute force, 100 otherwise.
        timeout: Seconds after which no further trial starts.
        best: The question whose answer is kept in `best/`.
        engine: Where trials run.
    """

    space: dict[str, Any] = Field(default_factory=dict)
    strategy: dict[str, Any] | None = None
    runners: dict[str, dict[str, Any]] = Field(default_factory=dict)
    maximize: list[str] = Field(default_factory=list)
    minimize: list[str] = Field(default_factory=list)
    subject_to: list[str] = Field(default_factory=list)
    metrics: dict[str, MetricSettings] = Field(default_factory=dict)
    sum_scaled_metrics: bool = False
    direction: Direction = "maximize"
    n_trials: int | None = Field(default=None, gt=0)
    timeout: float | None = Field(default=None, gt=0)
    best: str | None = None
    engine: Literal["serial"] = "serial"

    @field_validator("maximize", "minimize", "subject_to", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("strategy", mode="before")
    @classmethod
    def _name_or_table(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    def wanted(self) -> Wanted:
        """Objectives and constraints.

        Raises:
            BadInput: None, or contradicting ones.
        """
        constraints = tuple(Constraint.parse(text) for text in self.subject_to)
        if not self.metrics:
            if self.sum_scaled_metrics:
                raise BadInput("sum_scaled_metrics needs a table of metrics", key="search.metrics")
            return Wanted.of(self.maximize, self.minimize, self.subject_to)
        if self.maximize or self.minimize:
            raise BadInput(
                "objectives are given twice: as metrics, and as maximize or minimize", key="search.metrics"
            )
        if not self.sum_scaled_metrics:
            objectives = [
                Objective.of(name, metric.direction or self.direction, metric.scale)
                for name, metric in self.metrics.items()
            ]
            return Wanted(tuple(objectives), constraints)
        for name, metric in self.metrics.items():
            if metric.direction not in (None, self.direction):
                raise BadInput(
                    "the direction of a summed metric disagrees with that of the sum; use a negative scale",
                    key=f"search.metrics.{name}.direction",
                    found=metric.direction,
                    allowed=[self.direction],
                )
        terms = tuple((name, metric.scale) for name, metric in self.metrics.items())
        return Wanted((Objective(terms, self.direction),), constraints)


class Settings(_Section):
    """Everything a run is made of.

    Attributes:
        project: Name of the run's folder, unless `--out` gives one.
        seed: Of everything that draws random numbers and has no seed of its own in the file.
    """

    project: str | None = None
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    model: ModelSettings = Field(default_factory=ModelSettings)
    data: DataSettings = Field(default_factory=lambda: DataSettings())
    train: TrainSettings = Field(default_factory=lambda: TrainSettings())
    search: SearchSettings = Field(default_factory=SearchSettings)

    @classmethod
    def from_document(cls, document: Document) -> Settings:
        """Check a document; `[data]` and `[train]` take the document's seed where they name none.

        Raises:
            BadInput: The first key that does not fit.
        """
        expand(document)
        data = dict(document.data)
        for name, schema in _SECTIONS.items():
            table = data.get(name, {})
            if not isinstance(table, dict):
                raise document.error("not a table", name, found=table)
            if "seed" in data and name in _SEEDED:
                table = {"seed": data["seed"], **table}
            data[name] = validate(schema, table, document, name)
        return validate(cls, data, document)

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as the run folder's `config.toml` keeps it."""
        return self.model_dump()


_SECTIONS: dict[str, type[BaseModel]] = {
    "model": ModelSettings,
    "data": DataSettings,
    "train": TrainSettings,
    "search": SearchSettings,
}
_SEEDED = ("data", "train")


def expand(document: Document) -> None:
    """Write `model = "jsc-tiny"` and `data = "digits"` as the tables they stand for."""
    for section in ("model", "data"):
        if isinstance(document.data.get(section), str):
            document.data[section] = {"name": document.data[section]}
