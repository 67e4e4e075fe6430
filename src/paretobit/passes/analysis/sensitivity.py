"""Which layer is fragile: each layer quantised alone, and what that does to its output and the model's."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.formats import FULL, MXFP4, Format, ScaledInteger, make
from paretobit.graph import Example, ModelGraph, at_rest
from paretobit.nn import Quantized, QuantizedFunction
from paretobit.passes.analysis.sensitivity_trials import Slots, Trial, make_trials
from paretobit.passes.layers.selection import By
from paretobit.passes.streaming import Decibels, Noise, Watched, call, copied, first_tensor, rows_of

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
    """

    rows: tuple[SensitivityRow, ...]
    loss: Loss
    samples: int
    skipped: Mapping[str, str]


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
    names them. One pass of the float model gives its outputs. One more measures the noise of all
    formats at all layers (and one at all functions): at each call a layer is run once more per
    format. Then one pass per layer and format. In memory: one copy of the model, the batches, and the
    float model's outputs on them. The model runs in evaluation mode; a bias stays in full precision.

    Args:
        graph: The model, which is left as it was; formats it carries are taken off the copy.
        batches: Inputs as the model takes them.
        formats: Candidates. Scales per channel are meant for weights, whose first axis is the output
            channel: data then has one scale a tensor, unless the format names an axis.
        targets: One for each batch: class labels `(rows,)` for `cross_entropy`, or what a user's loss takes.
        loss: `cross_entropy` of logits `(rows, classes)`; `kl`, the divergence from the float model's
            distribution over the last axis, which needs no targets; or a function of (the model's
            result, the batch's target) that gives the mean over the batch.
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
    pairs = list(zip(inputs, _aligned(targets, inputs), strict=True))
    model = copy.deepcopy(graph.model)
    with at_rest(model), torch.no_grad():
        trials, skipped = make_trials(graph, model, formats, slots, by, keys)
        baseline = _baseline(model, pairs, loss)
        # Apart, as a layer that is run for itself would count as a caller of functions.
        in_layers = [trial for trial in trials if not isinstance(trial.layer, QuantizedFunction)]
        in_functions = [trial for trial in trials if isinstance(trial.layer, QuantizedFunction)]
        noises = _local_noise(model, in_layers, inputs, skipped)
        noises |= _local_noise(model, in_functions, inputs, skipped)
        rows = [
            _measured(model, trial, noises[trial], pairs, baseline)
            for trial in trials
            if trial.name not in skipped
        ]
    ordered = tuple(sorted(rows, key=_fragility))
    return SensitivityReport(ordered, _named(baseline.loss), baseline.samples, skipped)


def _check_words(formats: Sequence[Format], slots: Sequence[str], loss: LossName | LossFunction) -> None:
    if not formats or not slots:
        raise BadInput("nothing to try", key="slots" if formats else "formats", found=[])
    for name in slots:
        if name not in get_args(Slots):
            raise BadInput("unknown slots", key="slots", found=name, allowed=get_args(Slots))
    if not callable(loss) and loss not in get_args(LossName):
        raise BadInput("unknown loss", key="loss", found=loss, allowed=[*get_args(LossName), "a function"])


def _aligned(targets: Iterable[Any] | None, inputs: list[Example]) -> list[Any]:
    if targets is None:
        return [None] * len(inputs)
    found = list(targets)
    if len(found) != len(inputs):
        raise BadInput("batches and targets differ in number", key="targets", found=[len(inputs), len(found)])
    return found


@dataclass(frozen=True)
class _Baseline:
    """The float model on the batches."""

    outputs: list[Tensor]
    loss: float
    samples: int
    measure: Callable[[Any, Any, Tensor], float]


def _baseline(model: nn.Module, pairs: list[tuple[Example, Any]], loss: LossName | LossFunction) -> _Baseline:
    """Run the float model."""
    measure = partial(_mean_loss, loss)
    outputs, total, samples = [], 0.0, 0
    for batch, target in pairs:
        result = call(model, batch)
        outputs.append(first_tensor(result).clone())
        total += measure(result, target, outputs[-1]) * rows_of(batch)
        samples += rows_of(batch)
    return _Baseline(outputs, total / samples, samples, measure)


def _local_noise(
    model: nn.Module, trials: list[Trial], inputs: list[Example], skipped: dict[str, str]
) -> dict[Trial, Noise]:
    """Run the float model once more: each trial's noise where it arises."""
    noises = {trial: Noise() for trial in trials}
    by_layer: dict[Quantized, list[Trial]] = {}
    for trial in trials:
        by_layer.setdefault(trial.layer, []).append(trial)
    reached: set[nn.Module] = set()
    with ExitStack() as stack:
        for layer, own in by_layer.items():
            if isinstance(layer, QuantizedFunction):  # is called only where it carries a format
                layer.set_slots({slot: Watched(FULL) for slot in layer.slot_names})
            hook = partial(_try_formats, own, noises, skipped, reached)
            stack.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
        for batch in inputs if trials else ():
            call(model, batch)
    for trial in trials:
        trial.layer.set_slots({})
        if trial.layer not in reached:
            skipped[trial.name] = "it did not run on this data"
    return noises


def _try_formats(
    trials: list[Trial],
    noises: Mapping[Trial, Noise],
    skipped: dict[str, str],
    reached: set[nn.Module],
    layer: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """A forward pre-hook: what the layer is about to compute, with each trial's formats."""

    def computed() -> Tensor:
        named = {key: copied(value) for key, value in kwargs.items()}
        return first_tensor(layer.forward(*map(copied, args), **named)).clone()

    reached.add(layer)
    reference = computed()
    for trial in trials:
        try:
            with trial.applied():
                noises[trial].add(reference, computed())
        except BadInput as error:
            skipped[trial.name] = str(error)


def _measured(
    model: nn.Module, trial: Trial, noise: Noise, pairs: list[tuple[Example, Any]], baseline: _Baseline
) -> SensitivityRow:
    """All batches with one layer quantised."""
    at_end, total = Noise(), 0.0
    with trial.applied():
        for (batch, target), reference in zip(pairs, baseline.outputs, strict=True):
            result = call(model, batch)
            at_end.add(reference, first_tensor(result))
            total += baseline.measure(result, target, reference) * rows_of(batch)
    return SensitivityRow(
        layer=trial.node.name,
        op=trial.node.op,
        format=str(trial.candidate),
        slots={slot: str(f) for slot, f in trial.formats.items()},
        layer_sqnr=noise.ratio,
        model_sqnr=at_end.ratio,
        loss_change=_named(total / baseline.samples - baseline.loss),
    )


def _named(loss: float) -> Loss:
    return loss if math.isfinite(loss) else "not finite"


def _mean_loss(loss: LossName | LossFunction, result: Any, target: Any, reference: Tensor) -> float:
    """The loss of one batch, mean over its rows."""
    if callable(loss):
        return float(loss(result, target))
    output = first_tensor(result).double()
    if loss == "kl":
        float_log, own_log = reference.double().log_softmax(-1), output.log_softmax(-1)
        divergence = F.kl_div(own_log, float_log, log_target=True, reduction="none").sum(-1)
        return float(divergence.mean())
    if not isinstance(target, Tensor):
        raise BadInput(
            "cross-entropy needs labels",
            key="targets",
            found=type(target).__name__,
            allowed="labels, or loss='kl'",
        )
    if output.ndim != 2 or target.shape != output.shape[:1] or target.is_floating_point():
        raise BadInput(
            "cross-entropy needs logits (rows, classes) and labels (rows,)",
            key="loss",
            found=[tuple(output.shape), tuple(target.shape)],
            allowed="kl, or a function",
        )
    return float(F.cross_entropy(output, target))


def _fragility(row: SensitivityRow) -> tuple[float, float]:
    """Sorts the most fragile first."""
    quality = row.model_sqnr if isinstance(row.model_sqnr, float) else _NUMBER_OF_WORD[row.model_sqnr]
    return quality, -row.loss_change if isinstance(row.loss_change, float) else -math.inf
