"""The whole document: what a TOML file may say, section by section."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from paretobit.data import DataSettings
from paretobit.document import Document, validate
from paretobit.errors import BadInput
from paretobit.models import ModelSettings
from paretobit.runtime import MAX_SEED, is_reference
from paretobit.session.engines import ENGINES
from paretobit.training import TrainSettings
from paretobit.trials.runners import RUNNERS
from paretobit.trials.vocabulary import Vocabulary
from paretobit.wanted.metric import Direction
from paretobit.wanted.objectives import Constraint, Forgiving, Objective, parse_question, split_constraints
from paretobit.wanted.wanted import Wanted, check_answerable

DEFAULT_RUNNERS = ("basic_evaluation", "basic_computation", "average_bitwidth", "model_size")
T = TypeVar("T")
_OF_WORDS = ("metric", "objectives")
"""Keys of errors that do not know where the word came from."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MetricSettings(_Section):
    """One metric as an objective, in the reports' words."""

    scale: float = Field(1.0, allow_inf_nan=False, description="factor")
    direction: Direction | None = Field(None, description="which way the scaled metric is better")


class ForgivingSettings(_Section):
    """A quality to maximise and a cost that is traded for it: the forgiving factor of AutoQKeras."""

    metric: str = Field(description="the quality, maximised: accuracy")
    cost: str = Field(description="the metric that it is traded for: bitops")
    delta: float = Field(0.08, description="share of the quality forgiven each time the cost is divided by rate")
    delta_above: float | None = Field(
        None, description="share taken away each time the cost is rate times higher; unset: delta"
    )
    rate: float = Field(2.0, description="what the cost is divided by")
    reference: Literal["baseline"] | float = Field(
        "baseline", description="cost at which nothing is forgiven: that of the baseline, or a number"
    )
    stress: float = Field(1.0, description="factor on the reference")

    @property
    def traded(self) -> tuple[str, Forgiving]:
        """The quality, and the rest."""
        reference = None if self.reference == "baseline" else float(self.reference)
        more = (self.rate, reference, self.stress, self.delta_above)
        return self.metric, Forgiving(self.cost, self.delta, *more)


class SearchSettings(_Section):
    """Settings of `[search]`."""

    space: dict[str, Any] = Field({}, description="name of the search space (quantize) and its own keys")
    strategy: dict[str, Any] | None = Field(
        None,
        description="name of the strategy and its own keys; unset: every configuration where there are at most "
        "500; otherwise guided where a cost is known without running the model, else TPE",
    )
    runners: dict[str, dict[str, Any]] = Field(
        {}, description="runner, or path/to/file.py:function, to its settings, in place of the default runners"
    )
    evaluate: str | None = Field(
        None, description="path/to/file.py:function, from a model to {name: number}, in place of basic_evaluation"
    )
    loss: str | None = Field(
        None, description="path/to/file.py:function, from output and target to the mean loss, for what is no classifier"
    )
    maximize: list[str] = Field([], description="metrics to maximise; also 'accuracy forgiving 8% per halved bitops'")
    minimize: list[str] = Field([], description="metrics to minimise")
    subject_to: list[str] = Field([], description="constraints: 'accuracy >= baseline - 0.01'")
    forgiving: ForgivingSettings | None = Field(
        None, description="a quality and the cost that is traded for it, as the first objective"
    )
    metrics: dict[str, MetricSettings] = Field(
        {}, description="objectives with scale and direction, in place of maximize and minimize"
    )
    sum_scaled_metrics: bool = Field(False, description="sum the scaled metrics into one objective")
    direction: Direction = Field("maximize", description="which way that sum is better")
    n_trials: int | None = Field(
        None,
        ge=1,
        description="trials at most, those included that a constraint rejects before the model runs; unset: "
        "all of a brute force, 100 otherwise",
    )
    timeout: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="seconds after which no further trial starts"
    )
    best: str | None = Field(
        None,
        description="question whose answer is kept in best/: 'min bitops s.t. accuracy >= baseline - 0.01', "
        "'knee'; unset: the best first objective",
    )
    workers: int = Field(1, ge=1, description="processes that evaluate, one torch thread each")
    engine: str | None = Field(
        None,
        description="where trials run: serial, processes, or a plug-in's; unset: processes where there are "
        "several workers or a trial_timeout",
    )
    trial_timeout: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="seconds a trial may take; a longer one fails"
    )
    max_failures: int | None = Field(None, ge=0, description="trials that may fail; one more ends the search")
    calibration: int = Field(
        512,
        ge=0,
        description="rows of the train split that fix scales of data and show which layer matters to the "
        "strategy `guided`; 0: none",
    )
    eval_mode: bool = Field(
        True, description="false: measure in training mode; running statistics are put back afterwards"
    )
    pipeline: dict[str, Any] | None = Field(
        None, description="the steps of a trial that trains, and their settings; unset: trials train nothing"
    )
    warm_start: str | None = Field(None, description="run folder whose trials of this space are taken over")

    @field_validator("maximize", "minimize", "subject_to", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("strategy", mode="before")
    @classmethod
    def _name_or_table(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _agree(self) -> SearchSettings:
        """Refuse what is asked for and cannot be, before any work: metrics, questions, the engine."""
        self._check_engine()
        for name in self.runners:
            if not is_reference(name):
                _under(f"runners.{name}", RUNNERS.__getitem__, name)
        return self

    def _check_engine(self) -> None:
        if self.engine is None:
            return
        engine = _under("engine", ENGINES.__getitem__, self.engine)
        can = {"parallel": "run several workers", "stops_late_trials": "stop a trial that takes too long"}
        asked = {"parallel": self.workers > 1, "stops_late_trials": self.trial_timeout is not None}
        for ability, what in can.items():
            if asked[ability] and not getattr(engine, ability):
                able = [entry.name for entry in ENGINES if getattr(entry.value, ability)]
                problem = f"the {self.engine} engine cannot {what}"
                raise BadInput(problem, key="engine", found=self.engine, allowed=able)

    def check_words(self, *, measured_otherwise: bool = False) -> None:
        """Refuse what is no objective, constraint or question, and metrics that no runner provides.

        Args:
            measured_otherwise: Whether metrics come from a function that these settings do not name.
        """
        wanted = self.wanted()
        question = None if self.best is None else _under("best", parse_question, self.best)
        if question is not None:
            _under("best", check_answerable, question, len(wanted.objectives))
        named = [name for name in self.runners if not is_reference(name)]
        own = measured_otherwise or self.evaluate is not None or len(named) < len(self.runners)
        if own or any(RUNNERS[name].metrics_from_settings for name in named):
            return  # known once the runner has read its file, or has measured the unmodified model
        known = Vocabulary([RUNNERS[name] for name in self.runners or DEFAULT_RUNNERS])
        directions: tuple[Direction, ...] = ("maximize", "minimize")
        for direction in directions:
            for text in getattr(self, direction):
                _under(direction, Objective.parse(text, direction).resolved, known.resolve)
        if self.forgiving is not None:
            _under("forgiving.metric", known.resolve, self.forgiving.metric)
            _under("forgiving.cost", known.resolve, self.forgiving.cost)
        for name in self.metrics:
            _under("metrics", known.resolve, name)
        for constraint in wanted.constraints:
            _under("subject_to", known.resolve, constraint.metric)
        if question is not None:
            _under("best", question.resolved, known.resolve)
        _under("metrics" if self.metrics else "maximize", wanted.resolved, known.resolve)

    def wanted(self) -> Wanted:
        """Objectives and constraints.

        Raises:
            BadInput: None, or contradicting ones.
        """
        return _under("search.metrics" if self.metrics else "search.maximize", self._wanted)

    def _wanted(self) -> Wanted:
        texts = [part for text in self.subject_to for part in split_constraints(text)]
        constraints = tuple(_under("subject_to", Constraint.parse, text) for text in texts)
        traded = None if self.forgiving is None else self.forgiving.traded
        if not self.metrics:
            if self.sum_scaled_metrics:
                raise BadInput("sum_scaled_metrics needs a table of metrics", key="search.metrics")
            return Wanted.of(self.maximize, self.minimize, self.subject_to, traded)
        if self.maximize or self.minimize or traded:
            raise BadInput(
                "objectives are given twice: as metrics, and as maximize, minimize or forgiving", key="search.metrics"
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


def _under(key: str, call: Callable[..., T], *arguments: Any) -> T:
    """`call`, with what it refuses laid to a key of `[search]`, unless it names one itself."""
    try:
        return call(*arguments)
    except BadInput as error:
        if error.key in (None, *_OF_WORDS):
            error.key = key
        raise


class GivenSettings(_Section):
    """What of a run only Python had; a run folder records it, nobody writes it."""

    model: str | None = Field(None, description="type of the model")
    data: tuple[str, ...] = Field((), description="splits, or the example in their place")
    evaluate: str | None = Field(None, description="the function that measured")
    loss: str | None = Field(None, description="the loss")
    calibration: bool = Field(False, description="whether calibration rows were given apart from the data")


class Settings(_Section):
    """Everything a run is made of."""

    project: str | None = Field(None, description="name of the run's folder, unless --out gives one")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="of everything random whose section names none")
    plugins: tuple[str, ...] = Field(
        (), description="files and modules of yours that register formats, spaces, runners …; imported first"
    )
    model: ModelSettings = Field(default_factory=lambda: ModelSettings())
    data: DataSettings = Field(default_factory=lambda: DataSettings())
    train: TrainSettings = Field(default_factory=lambda: TrainSettings())
    passes: dict[str, dict[str, Any]] = Field({}, description="passes of `paretobit transform`, in order")
    search: SearchSettings = Field(default_factory=lambda: SearchSettings())
    given: GivenSettings = Field(default_factory=lambda: GivenSettings())

    @classmethod
    def from_document(cls, document: Document) -> Settings:
        """Check a document; `[data]` and `[train]` take the document's seed where they name none.

        Raises:
            BadInput: The first key that does not fit.
        """
        expand(document)
        data = dict(document.data)
        validate(cls, {key: value for key, value in data.items() if key not in SECTIONS}, document)
        for name, schema in SECTIONS.items():
            table = data.get(name, {})
            if not isinstance(table, dict):
                raise document.error("not a table", name, found=table)
            if "seed" in data and name in _SEEDED:
                table = {"seed": data["seed"], **table}
            data[name] = validate(schema, table, document, name)
        return validate(cls, data, document)

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as the run folder's `config.toml` keeps it.

        What only Python had stands in `[given]`, in place of the section that nobody wrote.
        """
        page = self.model_dump()
        if not self.given.model_fields_set:
            del page["given"]
        for section in self._unnamed:
            del page[section]
        return page

    def check_all_named(self) -> None:
        """Refuse to go on without what only Python had.

        Raises:
            BadInput: What it is, and how it is given.
        """
        hints = {
            "model": ("model", "pass --model, or model= from Python"),
            "data": ("data", "pass --data, or train= and val= from Python"),
        }
        for section in self._unnamed:
            what, hint = hints[section]
            raise BadInput(f"this {what} was given from Python: {hint}", key=section)
        for key in ("evaluate", "loss", "calibration"):
            if getattr(self.given, key):
                problem = f"'{key}' was given from Python: go on from there, with {key}="
                raise BadInput(problem, key=f"given.{key}", found=getattr(self.given, key))

    @property
    def _unnamed(self) -> list[str]:
        """Sections whose place something given from Python takes."""
        sections: dict[str, BaseModel] = {"model": self.model, "data": self.data}
        named = {section for section, own in sections.items() if "name" in own.model_fields_set}
        return [section for section in sections if getattr(self.given, section) and section not in named]


SECTIONS: dict[str, type[BaseModel]] = {
    "model": ModelSettings,
    "data": DataSettings,
    "train": TrainSettings,
    "search": SearchSettings,
    "given": GivenSettings,
}
_SEEDED = ("data", "train")


def expand(document: Document) -> None:
    """Write `model = "jsc-tiny"` and `data = "digits"` as the tables they stand for."""
    for section in ("model", "data"):
        if isinstance(document.data.get(section), str):
            document.data[section] = {"name": document.data[section]}
