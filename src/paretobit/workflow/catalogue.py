"""Everything that is registered, by kind: the lists that the command line prints and the docs show."""

import json
from collections.abc import Callable, Iterable
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from paretobit.data import SOURCES
from paretobit.errors import BadInput
from paretobit.formats import FORMATS
from paretobit.graph.operations import OPERATIONS
from paretobit.models import MODELS
from paretobit.passes.transform import PASSES
from paretobit.registry import Entry
from paretobit.report.figures import FIGURES
from paretobit.schemas import Entries, Schema, schema_of, type_text
from paretobit.session.engines import ENGINES
from paretobit.spaces import SPACES
from paretobit.strategies import STRATEGIES
from paretobit.strategies.optuna_samplers import SAMPLERS
from paretobit.training.distillation import Distillation
from paretobit.trials.halving import HalvingSettings
from paretobit.trials.runners import RUNNERS
from paretobit.trials.steps import CalibrateStep, PipelineSettings, TrainingStep
from paretobit.workflow.settings import SECTIONS, ForgivingSettings, MetricSettings, Settings

Row = dict[str, Any]
_TRAINING = "search.pipeline.train, .finetune"


def _entries(registry: Iterable[Entry[Any]], **more: Callable[[Any], Any]) -> list[Row]:
    """Name and summary of everything registered, and what else is to be known of its value."""
    return [
        {"name": entry.name, "what": entry.summary, **{key: of(entry.value) for key, of in more.items()}}
        for entry in registry
    ]


def _metrics() -> list[Row]:
    return [
        {
            "name": metric.name,
            "short": metric.short or "",
            "runner": entry.name,
            "better": metric.direction,
            "unit": metric.unit,
            "needs": "the configuration" if metric.cheap else "a run of the model",
        }
        for entry in RUNNERS
        for metric in entry.value.metrics
    ]


def _samplers() -> list[Row]:
    return [{"name": n, "what": f"{s.summary} (Optuna's {s.kind.__name__})"} for n, s in SAMPLERS.items()]


def _settings() -> list[Row]:
    schemas: dict[str, type[BaseModel]] = {
        "": Settings,
        **SECTIONS,
        "search.metrics.NAME": MetricSettings,
        "search.forgiving": ForgivingSettings,
        "search.pipeline": PipelineSettings,
        "search.pipeline.stop": HalvingSettings,
        "search.pipeline.calibrate": CalibrateStep,
        f"{_TRAINING}.teacher": Distillation,
    }
    for section, schema in _registered().items():
        schemas |= {section: schema, **_within(section, schema)}
    rows = [
        _row(section, key, info)
        for section, schema in schemas.items()
        for key, info in schema.model_fields.items()
        if key not in SECTIONS or section
    ]
    rows += [
        {"section": section, "key": key, "type": "", "default": "", "what": what}
        for section, schema in schemas.items()
        for key, what in getattr(schema, "more", {}).items()
    ]
    teacher = TrainingStep.model_fields["teacher"]
    what = f"{teacher.description}; all other keys as in train, without seed"
    return [*rows, {**_row(_TRAINING, "teacher", teacher), "what": what}]


def _registered() -> dict[str, type[BaseModel]]:
    """The section of everything registered that has settings, to its schema."""
    schemas = {f"search.space ({e.name})": e.value.Settings for e in SPACES}
    schemas |= {f"search.strategy ({e.name})": e.value.Settings for e in STRATEGIES}
    schemas |= {f"search.runners.{e.name}": e.value.Settings for e in RUNNERS}
    schemas |= {f"passes.{e.name}": getattr(e.value, "Settings", Schema) for e in PASSES}
    return schemas | {f"format ({e.name})": schema_of(e.value) for e in FORMATS}


def _within(section: str, schema: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The sections of the tables within one: entries by layer, and tables under a key."""
    found: dict[str, type[BaseModel]] = {}
    if getattr(schema, "entry", None) is not None:
        found[f"{section}.NAME"] = schema.entry  # type: ignore[attr-defined]
    for key, info in schema.model_fields.items():
        for entries in info.metadata:
            if isinstance(entries, Entries) and entries.schema is not None:
                found[f"{section}.{key}.NAME"] = entries.schema
        for kind in (info.annotation, *get_args(info.annotation)):
            if isinstance(kind, type) and issubclass(kind, Schema):
                found[f"{section}.{key}"] = kind
    return found


def _row(section: str, key: str, info: FieldInfo) -> Row:
    known: Any = info.json_schema_extra or {}
    kind = known.get("type") or type_text(info.annotation)
    return {"section": section, "key": key, "type": kind, "default": _default(info), "what": info.description}


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "needed"
    if info.default is None or info.default_factory is not None:
        return ""
    return json.dumps(info.default)


_KINDS: dict[str, Callable[[], list[Row]]] = {
    "formats": lambda: _entries(FORMATS),
    "models": lambda: _entries(MODELS, takes=lambda model: model.layout),
    "datasets": lambda: _entries(SOURCES),
    "passes": lambda: _entries(PASSES),
    "spaces": lambda: _entries(SPACES, step=lambda space: space.acts_at().word),
    "strategies": lambda: _entries(STRATEGIES),
    "samplers": _samplers,
    "runners": lambda: _entries(RUNNERS),
    "engines": lambda: _entries(ENGINES),
    "figures": lambda: _entries(FIGURES),
    "operations": lambda: _entries(OPERATIONS),
    "metrics": _metrics,
    "settings": _settings,
}


def catalogue(kind: str | None = None) -> dict[str, list[Row]]:
    """Rows of one kind, or of all.

    Raises:
        BadInput: There is no such kind.
    """
    if kind is not None and kind not in _KINDS:
        raise BadInput("nothing of this kind is listed", key="KIND", found=kind, allowed=_KINDS)
    return {name: rows() for name, rows in _KINDS.items() if kind in (None, name)}
