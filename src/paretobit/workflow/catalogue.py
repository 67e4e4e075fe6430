"""Everything that is registered, by kind: the lists that the command line prints and the docs show."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from paretobit.data import SOURCES
from paretobit.errors import BadInput
from paretobit.formats import FORMATS
from paretobit.models import MODELS
from paretobit.passes.transform import PASSES
from paretobit.registry import Entry
from paretobit.spaces import SPACES
from paretobit.strategies import STRATEGIES
from paretobit.strategies.optuna_samplers import SAMPLERS
from paretobit.training.distillation import Distillation
from paretobit.trials.pipeline.halving import HalvingSettings
from paretobit.trials.pipeline.steps import CalibrateStep, PipelineSettings, TrainingStep
from paretobit.trials.runners import RUNNERS
from paretobit.workflow.settings import SECTIONS, ForgivingSettings, MetricSettings, Settings

Row = dict[str, Any]
_TRAINING = "search.pipeline.train, .finetune"


def _entries(registry: Iterable[Entry[Any]]) -> list[Row]:
    return [{"name": entry.name, "what": entry.summary} for entry in registry]


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
    schemas: dict[str, type[BaseModel]] = {"": Settings, **SECTIONS, "search.metrics.NAME": MetricSettings}
    schemas |= {"search.forgiving": ForgivingSettings}
    schemas["search.pipeline"] = PipelineSettings
    schemas["search.pipeline.stop"] = HalvingSettings
    schemas["search.pipeline.calibrate"] = CalibrateStep
    schemas[f"{_TRAINING}.teacher"] = Distillation
    schemas |= {f"search.strategy ({e.name})": e.value.Settings for e in STRATEGIES}
    schemas |= {f"search.runners.{e.name}": e.value.Settings for e in RUNNERS}
    return [
        {"section": section, "key": key, "default": _default(info), "what": info.description}
        for section, schema in schemas.items()
        for key, info in schema.model_fields.items()
        if key not in SECTIONS or section
    ] + [{"section": _TRAINING, "key": "teacher", "default": "false", "what": _of_teacher()}]


def _of_teacher() -> str:
    return f"{TrainingStep.model_fields['teacher'].description}; all other keys as in train, without seed"


def _default(info: FieldInfo) -> str:
    if info.default is None or info.is_required() or info.default_factory is not None:
        return ""
    return json.dumps(info.default)


_KINDS: dict[str, Callable[[], list[Row]]] = {
    "formats": lambda: _entries(FORMATS),
    "models": lambda: _entries(MODELS),
    "datasets": lambda: _entries(SOURCES),
    "passes": lambda: _entries(PASSES),
    "spaces": lambda: _entries(SPACES),
    "strategies": lambda: _entries(STRATEGIES),
    "samplers": _samplers,
    "runners": lambda: _entries(RUNNERS),
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
