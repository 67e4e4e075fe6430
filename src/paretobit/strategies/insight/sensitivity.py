"""Which layer is fragile: each layer quantised alone, and what that does to its output and the model's."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paretobit.errors import BadInput, first_line
from paretobit.formats import MXFP4, Format, ScaledInteger, make
from paretobit.graph import Example, ModelGraph, at_rest
from paretobit.graph.copies import copy_of
from paretobit.passes.analysis import coverage, reachable
from paretobit.passes.layers.selection import By
from paretobit.passes.streaming import Decibels, call, first_tensor, rows_of
from paretobit.strategies.insight.alone import Call, Runs, watching
from paretobit.strategies.insight.scores import divergence, labels_of
from paretobit.strategies.insight.sensitivity_trials import Slots, Trial, make_trials

LossName = Literal["cross_entropy", "kl"]
LossFunction = Callable[[Any, Any], Any]
Loss = float | Literal["not finite"]
DEFAULT_FORMATS: tuple[Format, ...] = (
    ScaledInteger(8, per="channel"),
    ScaledInteger(4, per="channel"),
    make("fp8_e4m3"),
    MXFP4(),
)
_NUMBER_OF_WORD = {"not finite": -math.inf, "no signal": -math.inf, "exact": math.inf}


@dataclass(frozen=True)
class SensitivityRow:
    """One layer in one format, everything else in full precision.

    Attributes:
        layer: Name of the node.
        op: Its operation.
        format: The candidate, as it was given.
        slots: Slot to the format set there.
        layer_sqnr: Signal over noise at the layer's output, dB.
        model_sqnr: Signal over noise at the model's output, dB.
        loss_change: Loss less that of the float model.
    """

    layer: str
    op: str
    format: str
    slots: Mapping[str, str]
    layer_sqnr: Decibels
    model_sqnr: Decibels
    loss_change: Loss


@dataclass(frozen=True)
class SensitivityReport:
    """What was found.

    Attributes:
        rows: The most fragile first: lowest signal over noise at the model's output, then the largest
            change of loss.
        loss: Of the float model, mean over the samples; 0 for `kl`.
        samples: Rows that were run.
        skipped: Node, or node and format, to the reason why it was not measured.
        notes: What no format reaches, and what depends on the number of rows.
    """

    rows: tuple[SensitivityRow, ...]
    loss: Loss
    samples: int
    skipped: Mapping[str, str]
    notes: tuple[str, ...] = ()


def sensitivity(
    graph: ModelGraph,
    batches: Iterable[Example],
    formats: Sequence[Format] = DEFAULT_FORMATS,
    *,
    targets: Iterable[Any] | None = None,
    loss: LossName | LossFunction = "cross_entropy",
    slots: Sequence[Slots] = ("both",),
    by: By = "type",
    keys: Sequence[str] | None = None,
) -> SensitivityReport:
    """Quantise one layer at a time, run the batches, and compare with the float model.

    Functions that multiply (`matmul`, attention) are tried as layers are; other functions where a key
    names them. Of each batch, one run of the float model measures the noise of all formats at all layers:
    at each call a layer is run once more per format. Then one run per layer and format, from that layer
    on where the model can be run by its operations. In memory: one copy of the model, and results of its
    layers on one batch. The model runs in evaluation mode; a bias stays in full precision.

    Args:
        graph: The model, which is left as it was; formats it carries are taken off the copy.
        batches: Inputs as the model takes them.
        formats: Candidates. Scales per channel are meant for weights, whose first axis is the output
            channel: data then has one scale a tensor, unless the format names an axis.
        targets: One for each batch: class labels `(rows,)` for `cross_entropy`, or what a user's loss takes.
        loss: `cross_entropy` of logits `(rows, classes)`; `kl`, which needs no targets, as in the score
            tables of `guided`: the divergence from the float model's distribution over the last axis, for
            a model of one number half its squared error; or a function of (the model's result, the
            batch's target) that gives the mean over the batch.
        slots: What to quantise at a time: `weight`, `data`, or `both`.
        by: How `keys` choose layers.
        keys: Types, names or patterns; all layers where None.

    Raises:
        BadInput: No batch, targets that do not fit, nothing that can be quantised, or unknown words.
    """
    _check_words(formats, slots, loss)
    inputs = list(batches)
    if not inputs:
        raise BadInput("sensitivity needs data", key="batches", found="no batch")
    given = [None] * len(inputs) if targets is None else list(targets)
    if len(given) != len(inputs):
        raise BadInput("batches and targets differ in number", key="targets", found=[len(inputs), len(given)])
    model = copy_of(graph.model)
    with at_rest(model), torch.no_grad():
        trials, skipped = make_trials(graph, model, formats, slots, by, keys)
        run, base, samples = Runs(graph, model), 0.0, 0
        for batch, target in zip(inputs, given, strict=True):
            called = _local_noise(model, batch, trials, skipped)
            rows, result = rows_of(batch), run(batch)
            reference = first_tensor(result).clone()
            base += _mean_loss(loss, result, target, reference) * rows
            samples += rows
            for trial in trials:
                if trial.name not in skipped:
                    try:
                        with trial.change.applied() if trial.change.layer in called else nullcontext():
                            result = run(batch)
                        trial.model_noise.add(reference, first_tensor(result))
                        trial.loss += _mean_loss(loss, result, target, reference) * rows
                    except Exception as error:  # or a shape of the output that depends on data
                        skipped[trial.name] = _words(error)
    skipped |= {trial.name: "it did not run on this data" for trial in trials if not trial.called}
    found = [_row(trial, base, samples) for trial in trials if trial.name not in skipped]
    ordered, notes = tuple(sorted(found, key=_fragility)), coverage(graph, reachable(graph)).warnings
    return SensitivityReport(ordered, _named(base / samples), samples, skipped, notes)


def _check_words(formats: Sequence[Format], slots: Sequence[str], loss: LossName | LossFunction) -> None:
    if not formats or not slots:
        raise BadInput("nothing to try", key="slots" if formats else "formats", found=[])
    for name in slots:
        if name not in get_args(Slots):
            raise BadInput("unknown slots", key="slots", found=name, allowed=get_args(Slots))
    if not callable(loss) and loss not in get_args(LossName):
        raise BadInput("unknown loss", key="loss", found=loss, allowed=[*get_args(LossName), "a function"])


def _local_noise(model: nn.Module, batch: Example, trials: Sequence[Trial], skipped: dict[str, str]) -> set[nn.Module]:
    """Run the float model: each trial's noise where it arises; the layers that were called."""
    of_layer: dict[nn.Module, list[Trial]] = {}
    for trial in trials:
        of_layer.setdefault(trial.change.layer, []).append(trial)
    called: set[nn.Module] = set()

    def visit(one: Call) -> None:
        called.add(one.layer)
        for trial in of_layer[one.layer]:
            trial.called = True
            try:
                with trial.change.applied():
                    trial.layer_noise.add(one.outputs[0], one.now()[0])
            except Exception as error:  # whatever somebody's layer raises under another format
                skipped[trial.name] = _words(error)

    with watching(of_layer, visit):
        call(model, batch)
    return called


def _row(trial: Trial, base: float, samples: int) -> SensitivityRow:
    return SensitivityRow(
        layer=trial.node.name,
        op=trial.node.op,
        format=str(trial.candidate),
        slots={slot: str(f) for slot, f in trial.change.formats.items()},
        layer_sqnr=trial.layer_noise.ratio,
        model_sqnr=trial.model_noise.ratio,
        loss_change=_named(trial.loss / samples - base / samples),
    )


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, BadInput) else first_line(error)


def _named(loss: float) -> Loss:
    return loss if math.isfinite(loss) else "not finite"


def _mean_loss(loss: LossName | LossFunction, result: Any, target: Any, reference: Tensor) -> float:
    """The loss of one batch, mean over its rows."""
    if callable(loss):
        return float(loss(result, target))
    if loss == "kl":
        return divergence(result, reference) / labels_of(reference)
    output = first_tensor(result).double()
    if not isinstance(target, Tensor):
        found, allowed = type(target).__name__, "labels, or loss='kl'"
        raise BadInput("cross-entropy needs labels", key="targets", found=found, allowed=allowed)
    if output.ndim != 2 or target.shape != output.shape[:1] or target.is_floating_point():
        problem = "cross-entropy needs logits (rows, classes) and labels (rows,)"
        shapes = [tuple(output.shape), tuple(target.shape)]
        raise BadInput(problem, key="loss", found=shapes, allowed="kl, or a function")
    return float(F.cross_entropy(output, target))


def _fragility(row: SensitivityRow) -> tuple[float, float]:
    """Sorts the most fragile first."""
    quality = row.model_sqnr if isinstance(row.model_sqnr, float) else _NUMBER_OF_WORD[row.model_sqnr]
    return quality, -row.loss_change if isinstance(row.loss_change, float) else -math.inf
