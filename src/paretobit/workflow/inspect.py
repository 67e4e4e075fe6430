"""A look at a model: graph, quantised types, costs."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretobit.data.text import typical_rows
from paretobit.errors import BadInput
from paretobit.graph import WidthGroups, trace, width_groups
from paretobit.graph.copies import copy_of
from paretobit.models import build, read_manifest
from paretobit.models.huggingface import example_input
from paretobit.nn import Quantized
from paretobit.passes.analysis import (
    CONVENTIONS,
    CostReport,
    Coverage,
    GraphReport,
    LayerComparison,
    TypeSummary,
    compare,
    cost,
    coverage,
    reachable,
    reached_by,
    report_graph,
    summarize_quantization,
)
from paretobit.passes.layers.assignment import carried_formats
from paretobit.workflow.assemble import build_model
from paretobit.workflow.opening import load_saved, named
from paretobit.workflow.settings import Settings
from paretobit.workflow.train import load_data

_MOST_VALUES = 2**26


@dataclass(frozen=True)
class Inspection:
    """What a look at a model shows."""

    report: GraphReport
    summary: tuple[TypeSummary, ...]
    costs: CostReport
    widths: WidthGroups
    coverage: Coverage


def inspect(
    settings: Settings,
    *,
    saved: str | None = None,
    shape: str | None = None,
    classes: int = 10,
    convention: Any = "standard",
    batch: int = 1,
) -> Inspection:
    """Trace a model and count its costs.

    Args:
        settings: Model and data by name.
        saved: Folder of a saved model, in place of a name.
        shape: Shape of a sample (`16`, `3x32x32`), in place of a data set.
        classes: Classes, with `shape`.
        convention: Of the costs.
        batch: Rows that `lab2` counts.
    """
    if convention not in CONVENTIONS:
        raise BadInput("unknown cost convention", key="--convention", found=convention, allowed=CONVENTIONS)
    if classes < 1:
        raise BadInput("a classifier has a class", key="--classes", found=classes, allowed="1 or more")
    if batch < 1:
        raise BadInput("a batch has at least one row", key="--batch", found=batch)
    if saved is not None:
        model, source = load_saved(saved, named(settings.model))
        sample = tuple(source["input_shape"]) if shape is None else sample_shape(shape)
        if getattr(model, "padding", None) is not None:  # what a sentence costs, not what the longest does
            sample = (max(1, round(read_manifest(saved)["preprocessing"]["tokens_per_row"])),)
    elif shape is not None:
        sample = sample_shape(shape)
        chosen = settings.model
        model = build(chosen.name, sample, classes, config=chosen.config, head=chosen.head)
    else:
        data = load_data(settings)
        model, sample = build_model(settings.model, data, settings.seed), data.input_shape
        if data.tokens is not None:
            sample = tuple(typical_rows(data.train.x, data.tokens["pad"]).shape[1:])
    graph = trace(model, example_input(model, sample))
    costs = cost(graph, convention=convention, batch=batch)
    reached = reached_by(carried_formats(graph)) or reachable(graph)
    covered = coverage(graph, reached)
    return Inspection(report_graph(graph), summarize_quantization(graph), costs, width_groups(graph), covered)


def beside_float(
    path: str | Path, model: str | None = None
) -> tuple[tuple[TypeSummary, ...], tuple[LayerComparison, ...]]:
    """A saved model (as in `load_saved`) beside its float model: types changed, and layer by layer."""
    quantised, source = load_saved(path, model)
    plain = copy_of(quantised)
    after = trace(quantised, example_input(quantised, tuple(source["input_shape"])))
    for module in plain.modules():
        if isinstance(module, Quantized):
            module.set_slots({})
    before = after.with_model(plain)
    return summarize_quantization(after), compare(before, after)


def sample_shape(text: str) -> tuple[int, ...]:
    """The shape of a sample, from `3x32x32`.

    Raises:
        BadInput: It is none.
    """
    try:
        shape = tuple(int(part) for part in text.split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise BadInput("not a shape", key="--input-shape", found=text, allowed="16 or 3x32x32")
    if math.prod(shape) > _MOST_VALUES:
        raise BadInput(
            "a sample too large to look at", key="--input-shape", found=text, allowed=f"{_MOST_VALUES:,} values"
        )
    return shape
