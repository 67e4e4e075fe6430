"""How much one format in one slot, or the pruning of one layer, harms: from gradients, or from outputs.

With `g` the gradient of the loss at a layer's output and `D` the change of that output, per sample:

- `directional`: `1/(2N) sum_n (sum_i g D)^2`, the second-order term of the loss along the change, with
  labels drawn from the model's own distribution (the Fisher information, Martens 2020, arXiv 1412.1193);
- `diagonal`: `1/(2N) sum_n sum_i E[g^2] D^2`, the same without the correlations between elements;
- `kl`: the divergence of the model's output from the float model's, with this change alone.

The sums over `i` are over all calls of the layer in one run. `N` counts labels: rows, or the tokens of
all rows. With a user's loss `g` is its gradient, at the true targets. Around a configuration there is a
first-order term too, `1/N sum g D`: of the user's loss, or else of the divergence from full precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paretobit.data.calibration import Calibration
from paretobit.errors import BadInput
from paretobit.formats.base import computed
from paretobit.graph import at_rest
from paretobit.passes.streaming import call, first_tensor, rows_of
from paretobit.strategies.insight.alone import Call, watching
from paretobit.strategies.insight.groups import Unit

ROWS_AT_A_TIME = 32
"""Gradients of every layer are in memory for at least so many rows: fewer would be slower row by row."""


@dataclass
class Scores:
    """Sums over the rows seen so far.

    Attributes:
        sums: Table to unit to its sum.
        loss: Of the model itself.
        labels: How many losses were summed.
    """

    sums: dict[str, dict[Unit, float]] = field(default_factory=dict)
    loss: float = 0.0
    labels: int = 0

    def add(self, table: str, unit: Unit, value: float) -> None:
        """Add to a unit's sum."""
        own = self.sums.setdefault(table, {})
        own[unit] = own.get(unit, 0.0) + value

    def join(self, other: Scores) -> None:
        """Take over the units of another pass over the same rows."""
        for table, own in other.sums.items():
            self.sums.setdefault(table, {}).update(own)

    def mean(self, table: str) -> dict[Unit, float]:
        """Nats per label; infinite where it is not a number."""
        means = {unit: total / self.labels for unit, total in self.sums.get(table, {}).items()}
        return {unit: mean if math.isfinite(mean) else math.inf for unit, mean in means.items()}

    @property
    def mean_loss(self) -> float:
        """Of the model itself, nats per label."""
        return self.loss / self.labels


class Recorded:
    """One call of a layer in a run, and the gradients at one of its outputs.

    Attributes:
        call: The call.
        output: That output.
        drawn: Gradients of the draws of labels, until `settle`.
        gradients: Of every draw, `(samples, draws, elements)`, once settled.
        squares: Their squares, summed over draws, `(elements of all samples,)`.
        slope: Of the first-order term.
    """

    gradients: Tensor
    squares: Tensor

    def __init__(self, call: Call, place: int) -> None:
        self.call, self._place, self.output = call, place, call.outputs[place]
        self.drawn: list[Tensor] = []
        self.slope: Tensor | None = None

    def settle(self, rows: int) -> None:
        """Lay gradients out for many changes to come: nothing of them is read twice a change."""
        self.output = _by_sample(self.output.detach(), rows)
        self.gradients = torch.stack([_by_sample(g, rows) for g in self.drawn], 1)  # squares are small
        self.squares = self.gradients.square().sum(1).flatten()
        self.slope = None if self.slope is None else _by_sample(self.slope, rows)
        self._rows = rows
        self.drawn.clear()

    def change(self) -> Tensor:
        """What the formats that the layer carries now do to the output, `(samples, elements)`."""
        return _by_sample(self.call.now()[self._place].detach(), self._rows) - self.output


class Recorder:
    """Runs a model on a few rows and keeps, for every layer, what is needed to try other formats there.

    Args:
        model: Instrumented; as it is, it is what harm is relative to.
        layers: Layers and functions.
        calibration: Says what the loss is.
        draws: How often labels are drawn for each row.
        seed: Of the draws.
    """

    def __init__(
        self, model: nn.Module, layers: Iterable[nn.Module], calibration: Calibration, draws: int, seed: int
    ) -> None:
        self._model, self._layers, self._calibration = model, tuple(layers), calibration
        self._draws = 1 if calibration.loss else draws
        self._generator = torch.Generator().manual_seed(seed)
        self._reached: set[nn.Module] = set()
        self._cut_off: set[nn.Module] = set()

    @property
    def unreached(self) -> set[nn.Module]:
        """Layers that ran where no gradient reached, on any rows so far, and those where none but zeros did, on all."""
        return self._cut_off | (set(self._layers) - self._reached)

    def run(
        self, batch: Any, target: Any, scores: Scores, reference: Tensor | None = None
    ) -> dict[nn.Module, list[Recorded]]:
        """Layer to its calls in a run on some rows, with gradients; adds the loss to the scores.

        Args:
            batch: Inputs.
            target: For a user's loss.
            scores: Where the loss goes.
            reference: The output that the model should have, where it has another one.

        Raises:
            BadInput: No gradient reaches the layers.
        """
        calls: dict[nn.Module, list[Recorded]] = {layer: [] for layer in self._layers}
        seen: list[Recorded] = []

        def visit(one: Call) -> None:
            seen.extend(Recorded(one, place) for place in range(len(one.outputs)))

        with at_rest(self._model), watching(calls, visit), torch.enable_grad():
            output = call(self._model, batch)
            outputs = [one.output for one in seen]
            losses = list(self._losses(output, target, batch, scores))
            if reference is not None and self._calibration.loss is None:
                losses.append(_divergence(_numbers(output), reference))
            reached: set[int] = set()
            for i, loss in enumerate(losses):
                found = _gradients(loss, outputs, last=i + 1 == len(losses)) if self._layers else {}
                reached |= found.keys()
                for one in seen:
                    gradient = found.get(id(one.output), torch.zeros_like(one.output))
                    if i < self._draws:
                        one.drawn.append(gradient)
                    if reference is not None and i + 1 == len(losses):
                        one.slope = gradient
        alive = {id(one.call) for one in seen if id(one.output) in reached}
        self._cut_off |= {one.call.layer for one in seen if id(one.call) not in alive}
        for one in seen:
            if id(one.output) in reached or id(one.call) not in alive:  # of several outputs those that matter
                one.settle(rows_of(batch))
                calls[one.call.layer].append(one)
                self._reached |= {one.call.layer} if one.squares.any() else set()
        return calls

    def _losses(self, output: Any, target: Any, batch: Any, scores: Scores) -> Iterator[Tensor]:
        """Sums of losses over the rows, one a draw."""
        if self._calibration.loss is not None:
            rows = rows_of(batch)
            loss = self._calibration.loss(output, batch if target is None else target) * rows
            scores.loss += float(loss.detach())
            scores.labels += rows
            yield loss
            return
        logits = _logits(_numbers(output))
        scores.labels += len(logits)
        if logits.shape[1] == 1:  # a number a row, with noise of variance one; of which signs will do
            for _ in range(self._draws):
                signs = torch.randint(0, 2, logits.shape, generator=self._generator) * 2 - 1
                yield (logits * signs.to(logits)).sum()
            return
        probabilities = logits.detach().softmax(1)
        if not torch.isfinite(probabilities).all():
            raise BadInput("the model's output is not finite on the calibration rows", key="calibration")
        scores.loss += float(-(probabilities * logits.detach().log_softmax(1)).sum())
        for _ in range(self._draws):
            drawn = torch.multinomial(probabilities.cpu(), 1, generator=self._generator).squeeze(1)
            yield F.cross_entropy(logits, drawn.to(logits.device), reduction="sum")


def add_fisher(calls: Sequence[Recorded], unit: Unit, scores: Scores) -> None:
    """Add what the formats that the layer carries now do to its output in these calls of one run."""
    diagonal = first_order = 0.0
    along: dict[int, Tensor] = {}  # samples to sums over elements and calls, (samples, draws)
    draws = 1
    for one in calls:
        change = one.change()
        samples, draws, _ = one.gradients.shape
        diagonal += float(torch.dot(one.squares, change.square().flatten()))
        with torch.autocast(change.device.type, enabled=False):  # whatever the search runs under
            product = torch.bmm(change.unsqueeze(1), one.gradients.transpose(1, 2)).squeeze(1)  # the fast way round
        along[samples] = along[samples] + product if samples in along else product
        if one.slope is not None:
            first_order += float((one.slope * change).sum())
    directional = sum(float(products.square().sum()) for products in along.values())
    scores.add("diagonal", unit, 0.5 * diagonal / draws + first_order)
    scores.add("directional", unit, 0.5 * directional / draws + first_order)


def divergence(output: Any, reference: Any) -> float:
    """Of one output from another, summed over labels: KL of logits; half the squared error of numbers."""
    return float(_divergence(_numbers(output).double(), _numbers(reference).double()))


def labels_of(output: Any) -> int:
    """How many labels an output is about."""
    return len(_logits(_numbers(output)))


def slices(calibration: Calibration, rows: int) -> Iterator[tuple[Any, Any]]:
    """Batches and targets, at most so many rows at a time where batches are tensors."""
    own = calibration.targets or (None,) * len(calibration.batches)
    for batch, target in zip(calibration.batches, own, strict=True):
        if isinstance(batch, Tensor):
            parts = torch.split(batch, rows)
            targets = (None,) * len(parts) if target is None else torch.split(target, rows)
            yield from zip(parts, targets, strict=True)
        else:
            yield batch, target


def _by_sample(x: Tensor, rows: int) -> Tensor:
    """A tensor as `(samples, elements)`: rows come first, or at another axis (one sample where nowhere)."""
    x = computed(x)
    if x.ndim and len(x) % rows == 0:
        return x.reshape(rows, -1)
    axis = next((axis for axis, size in enumerate(x.shape) if size == rows), None)
    return x.reshape(1, -1) if axis is None else x.movedim(axis, 0).reshape(rows, -1)


def _numbers(output: Any) -> Tensor:
    """What a model gives: its first tensor, if that can be more or less wrong."""
    tensor = first_tensor(output)
    if not tensor.is_floating_point():
        problem = "scores need an output of floating-point numbers, which can be more or less wrong"
        raise BadInput(problem, key="loss", found=str(tensor.dtype))
    return computed(tensor)


def _divergence(output: Tensor, reference: Tensor) -> Tensor:
    if output.shape != reference.shape:
        shapes = [tuple(reference.shape), tuple(output.shape)]
        raise BadInput("the shape of the output depends on what the layers give", key="loss", found=shapes)
    there, here = _logits(reference), _logits(output)
    if there.shape[1] == 1:
        return 0.5 * (here - there).square().sum()
    return F.kl_div(here.log_softmax(1), there.log_softmax(1), log_target=True, reduction="sum")


def _gradients(loss: Tensor, outputs: list[Tensor], last: bool) -> dict[int, Tensor]:
    """Of a loss, by the id of the output that it is a gradient at."""
    if not loss.requires_grad or not outputs:
        raise BadInput("no gradient reaches the layers", key="loss", found="a loss that depends on none of them")
    found = torch.autograd.grad(loss, outputs, retain_graph=not last, allow_unused=True)
    return {id(at): gradient for at, gradient in zip(outputs, found, strict=True) if gradient is not None}


def _logits(output: Tensor) -> Tensor:
    """`(labels, classes)`: the classes are the last axis."""
    return output.reshape(-1, 1) if output.ndim < 2 else output.reshape(-1, output.shape[-1])
