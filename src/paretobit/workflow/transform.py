"""`[passes]`: run passes over a model, look before and after, save what comes out."""

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paretobit.data import Data
from paretobit.document import Document
from paretobit.errors import BadInput
from paretobit.graph import ModelGraph, trace, two_rows
from paretobit.models import resized, save
from paretobit.passes.analysis import (
    Accumulator,
    CostReport,
    LayerComparison,
    TypeSummary,
    accumulators,
    compare,
    cost,
    coverage,
    reached_by,
    summarize_quantization,
)
from paretobit.passes.layers.assignment import carried_formats
from paretobit.passes.registry import Pass
from paretobit.passes.transform import PASSES
from paretobit.runtime import one_thread
from paretobit.training import Evaluation
from paretobit.training.evaluate import check_classifier
from paretobit.workflow.assemble import build_model
from paretobit.workflow.run_folder import RunFolder
from paretobit.workflow.settings import Settings
from paretobit.workflow.train import load_data, manifest, results_of

_ROWS = 1024


@dataclass(frozen=True)
class Appraisal:
    """A model before or after: what it costs, and what each split says."""

    costs: CostReport
    results: Mapping[str, Evaluation]


@dataclass(frozen=True)
class Transformed:
    """What the passes did."""

    graph: ModelGraph
    summary: tuple[TypeSummary, ...]
    layers: tuple[LayerComparison, ...]
    before: Appraisal
    after: Appraisal
    accumulators: tuple[Accumulator, ...]
    done: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]


def transform(settings: Settings, document: Document, folder: RunFolder) -> Transformed:
    """Run the passes of a file in their order; the folder's `best/` gets the result.

    Raises:
        BadInput: Before anything is written.
    """
    if not settings.passes:
        raise BadInput("no passes: the file has no [passes]", source=document.source, key="passes")
    unknown = next((name for name in settings.passes if name not in PASSES), None)
    if unknown is not None:
        raise document.error("unknown pass", f"passes.{unknown}", found=unknown, allowed=PASSES.names())
    data = load_data(settings)
    model = build_model(settings.model, data, settings.seed)
    check_classifier(model, data.train.x, data.train.y)
    before = graph = trace(model, two_rows(data.train.x))
    widths: dict[str, int] = {}
    told: dict[str, Mapping[str, Any]] = {}
    for name, table in settings.passes.items():
        with document.placing(f"passes.{name}"):
            graph, info = _run(PASSES[name], graph, table, data)
            told[name] = info
            widths |= {group: after for group, (_, after) in info.get("widths", {}).items()}
    with one_thread():
        sides = [Appraisal(cost(g), results_of(g.model, data)) for g in (before, graph)]
        sums = accumulators(graph, [data.train.x[:_ROWS]])
    folder.create()
    folder.write_config(settings.resolved())
    known: dict[str, Any] = manifest(settings, data)
    save(folder.best, graph.model, resized=resized(before, widths), **known)
    layers = compare(before, graph)
    reached = reached_by(carried_formats(graph)) or None
    notes = coverage(graph, reached).said
    return Transformed(graph, summarize_quantization(graph), layers, sides[0], sides[1], sums, told, notes)


def _run(chosen: Pass, graph: ModelGraph, table: Mapping[str, Any], data: Data) -> tuple[ModelGraph, dict[str, Any]]:
    """A pass; one that takes calibration batches is given rows of the training data."""
    if "batches" in inspect.signature(chosen).parameters:
        chosen = functools.partial(chosen, batches=[data.train.x[:_ROWS]])  # type: ignore[call-arg]
    return chosen(graph, table)
