"""How a model is run over a split: in which layout, and what of an earlier trial is taken over."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from paretobit.graph import ModelGraph, at_rest
from paretobit.graph.contents import unchanged
from paretobit.training.evaluate import Batches, Evaluation, evaluate_batches, run_on_view
from paretobit.trials.evaluation.plain_code import is_plain
from paretobit.trials.evaluation.purity import leaves_no_trace
from paretobit.trials.evaluation.reuse import Kept
from paretobit.trials.evaluation.stepwise import Stepwise

_MB = 2**20
_FEW_ROWS = 64


class Evaluator:
    """Runs one model after the other over the same rows.

    A model is run by its operations where that gives the bits of a whole run, which is tried out on the
    float model beforehand, so that one study has one path.

    Args:
        graph: Of the float model: what is run has the same modules.
        x: Inputs, rows first.
        y: Labels.
        rows: Per forward pass.
        budget_mb: What results that are kept from one run to the next may take, in MiB; 0 keeps none.

    Attributes:
        path: JSON-able: `layout`, `rows_first` or `channels_last`; `run`, `operations` or `whole`. The last
            bits of metrics depend on them.
    """

    def __init__(self, graph: ModelGraph, x: Tensor, y: Tensor, rows: int, budget_mb: int) -> None:
        self._graph, self._given, self._y, self._rows = graph, x, y, rows
        self._budget_mb = budget_mb
        self._batches: Batches | None = None
        self._kept = Kept(budget_mb * _MB)
        self._stepwise: WeakKeyDictionary[nn.Module, Stepwise | None] = WeakKeyDictionary()
        layout = layout_of(graph, x)
        few = self._laid_out(x[:_FEW_ROWS], layout)
        by_operations = stepwise_of(graph, graph.model, few, Kept(0)) is not None
        self._quiet = by_operations or _is_quiet(graph.model, few)
        self.path = {"layout": layout, "run": "operations" if by_operations else "whole"}

    def __reduce__(self) -> tuple[type[Evaluator], tuple[Any, ...]]:
        return Evaluator, (self._graph, self._given, self._y, self._rows, self._budget_mb)

    def __call__(self, model: nn.Module) -> Evaluation:
        """Loss and accuracy of a model, in the mode it is in."""
        if self._batches is None:
            self._batches = Batches(self._laid_out(self._given, self.path["layout"]), self._y, self._rows)
        batches = self._batches
        stepwise = None if model.training else self._steps(model, batches.inputs[0])
        if stepwise is None:
            quiet = self._quiet and not model.training
            return evaluate_batches(lambda batch, _: run_on_view(model, batch), batches, quiet)
        with unchanged():
            stepwise.begin((id(batches), batches.inputs[0]._version))
            result = evaluate_batches(stepwise.run, batches)
            stepwise.finish()
        return result

    def leaves_as_is(self, model: nn.Module) -> bool:
        """Whether it is certain, from the operations of a model, that a run changes nothing in it."""
        steps = self._stepwise.get(model)
        return steps is not None and steps.leaves_model

    @staticmethod
    def _laid_out(x: Tensor, layout: str) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x

    def _steps(self, model: nn.Module, batch: Tensor) -> Stepwise | None:
        """The model by its operations; the first one is tried out once more, now that it is instrumented."""
        if self.path["run"] == "whole":
            return None
        if model not in self._stepwise:
            made = Stepwise.of(self._graph, model, batch, self._kept)
            first = not self._stepwise
            if made is not None and first and not made.agrees(model, batch[:_FEW_ROWS]):
                made = None
            self._stepwise[model] = made
        return self._stepwise[model]


def stepwise_of(graph: ModelGraph, model: nn.Module, batch: Tensor, kept: Kept) -> Stepwise | None:
    """A model by its operations; None where they do not give its bits, or something else happens in a run.

    Args:
        graph: Of a model with the same modules.
        model: Left as it was.
        batch: Inputs, of which a few rows are run.
        kept: Where results are kept.
    """
    if not is_plain(model):
        return None
    few = batch[:_FEW_ROWS]
    try:
        with at_rest(model):
            if not leaves_no_trace(model, lambda: model(few.clone())):
                return None
            stepwise = Stepwise.of(graph, model, few, kept)
            return stepwise if stepwise is not None and stepwise.agrees(model, few) else None
    except Exception:  # whatever operations of the user's raise, one by one
        return None


def _is_quiet(model: nn.Module, few: Tensor) -> bool:
    """Whether a run writes nothing that the model holds."""
    try:
        with at_rest(model):
            return leaves_no_trace(model, lambda: model(few.clone()))
    except Exception:  # whatever a model's forward raises
        return False


def layout_of(graph: ModelGraph, x: Tensor) -> str:
    """`channels_last` where it pays: images, two-dimensional convolutions, and a model that takes it.

    Convolutions are up to twice as fast in it, and everything else follows the layout of its inputs.
    A model that asks for views of its activations may not run in it. `rows_first` is torch's own.
    """
    convolves = any(node.op == "conv2d" for node in graph)
    if x.dim() != 4 or not x.is_floating_point() or not convolves:
        return "rows_first"
    model = graph.model
    state = torch.get_rng_state()
    try:
        with torch.no_grad(), at_rest(model):
            model(x[:2].clone().contiguous(memory_format=torch.channels_last))
    except Exception:  # whatever a model's forward raises
        return "rows_first"
    finally:
        torch.set_rng_state(state)
    return "channels_last"
