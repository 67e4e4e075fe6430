"""One engine for every question "what if only this changed?": of `paretobit sensitivity` and of `guided`.

A `Change` is applied and taken back; `watching` shows the calls of layers, which can be computed again
under a change; `Runs` gives the model's output, and computes what comes before a change only once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from paretobit.formats import FULL, Format
from paretobit.graph import Example, ModelGraph
from paretobit.graph.restore import Restorer
from paretobit.nn import Quantized, QuantizedFunction
from paretobit.nn.masks import masks_in, set_mask
from paretobit.passes.streaming import Watched, call, copied, rows_of
from paretobit.trials.evaluation.evaluator import stepwise_of
from paretobit.trials.evaluation.operation import MANY_ROWS
from paretobit.trials.evaluation.reuse import Kept
from paretobit.trials.evaluation.stepwise import Stepwise

_Carried = tuple[Mapping[str, Format], tuple[Tensor, Tensor] | None]
_DEVICES = ("cpu", "cuda", "xpu", "mps")
_KEPT = 256 * 2**20  # bytes: as much as a search keeps by default (`reuse_mb`)


@dataclass(frozen=True, eq=False)
class Change:
    """What is done to one layer or function.

    Attributes:
        layer: Of the model; instrumented where it is to carry formats.
        formats: Slot to format; other slots stay as they are.
        pruned: A weight and its mask, in place of those that the layer has.
    """

    layer: nn.Module
    formats: Mapping[str, Format] = field(default_factory=dict)
    pruned: tuple[Tensor, Tensor] | None = None

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The layer is changed inside the block, and as it was after it."""
        before = self._set(self.formats, self.pruned)
        try:
            yield
        finally:
            self._set(*before)

    def _set(self, formats: Mapping[str, Format], pruned: tuple[Tensor, Tensor] | None) -> _Carried:
        """What the layer carried until now."""
        if pruned is None:
            assert isinstance(self.layer, Quantized)
            carried = self.layer.slots
            self.layer.set_slots({**carried, **formats})
            return carried, None
        weight = self.layer.get_parameter("weight")
        before = weight.detach().clone(), masks_in(self.layer)["weight"].clone()
        with torch.no_grad():
            weight.copy_(pruned[0])
        set_mask(self.layer, pruned[1])
        return {}, before


@dataclass(eq=False)
class Call:
    """One call of a layer in a run.

    Attributes:
        layer: The layer or function.
        args: Copies of what it took.
        kwargs: Likewise.
        outputs: The tensors that it gave, the first and others that have gradients where the run has.
        autocast: Device types whose operations the model casts there, and to what.
    """

    layer: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Tensor, ...]
    autocast: Mapping[str, torch.dtype]

    def now(self) -> tuple[Tensor, ...]:
        """What the layer gives for it as it is now."""
        named = {key: copied(value) for key, value in self.kwargs.items()}
        with ExitStack() as stack:
            for device, dtype in self.autocast.items():
                stack.enter_context(torch.autocast(device, dtype))
            leaves = tree_leaves(self.layer.forward(*map(copied, self.args), **named))
        return tuple(leaves[place] for place in _shown(leaves))


@contextmanager
def watching(layers: Iterable[nn.Module], visit: Callable[[Call], None]) -> Iterator[None]:
    """Calls of these layers inside the block are shown, and of functions, also where they carry no format."""
    begun: dict[nn.Module, tuple[Any, Any]] = {}

    def before(layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """The layer may work in place: what goes in is copied before it runs."""
        begun[layer] = tuple(map(_kept, args)), {key: _kept(value) for key, value in kwargs.items()}

    def after(layer: nn.Module, _: Any, output: Any) -> Any:
        """What follows may work in place: it is given a copy of what comes out."""
        leaves, structure = tree_flatten(output)
        places = _shown(leaves)
        results = [leaves[place] for place in places]
        if torch.is_grad_enabled():
            results = [result if result.requires_grad else result.detach().requires_grad_() for result in results]
        cast = {kind: torch.get_autocast_dtype(kind) for kind in _DEVICES if torch.is_autocast_enabled(kind)}
        visit(Call(layer, *begun.pop(layer), tuple(results), cast))
        for place, result in zip(places, results, strict=True):
            leaves[place] = result.clone()
        return tree_unflatten(leaves, structure)

    with ExitStack() as stack:
        for layer in dict.fromkeys(layers):
            if isinstance(layer, QuantizedFunction) and not layer.carries_formats:
                layer.set_slots({slot: Watched(FULL) for slot in layer.slot_names})
                stack.callback(layer.set_slots, {})
            stack.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(layer.register_forward_hook(after).remove)
        yield


def _shown(leaves: Sequence[Any]) -> list[int]:
    """Places of the first tensor of a result, and of the others that can have gradients."""
    tensors = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    return tensors[:1] + [place for place in tensors[1:] if leaves[place].is_floating_point()]


def _kept(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


class Runs:
    """Runs of one model, in evaluation mode and without gradients, on a batch again and again.

    What comes before a change is taken from the runs before it, where the model can be run by its
    operations: the bits are those of whole runs.

    Args:
        graph: Of a model with the same modules.
        model: It is run with what its layers carry at the time.
    """

    def __init__(self, graph: ModelGraph, model: nn.Module) -> None:
        self._graph, self._model = graph, model
        self._kept, self._restorer = Kept(_KEPT), Restorer(model)
        self._batch: Any = None
        self._number = 0
        self._steps: Stepwise | None = None

    def __call__(self, batch: Example) -> Any:
        """The model's result; the batch is not changed between runs."""
        if not isinstance(batch, Tensor) or rows_of(batch) >= MANY_ROWS:  # operations sum many in another order
            return self._whole(batch)
        if batch is not self._batch:
            if self._batch is None:
                self._steps = stepwise_of(self._graph, self._model, batch, self._kept)
            self._batch, self._number = batch, self._number + 1
        if self._steps is None:
            return self._whole(batch)
        self._steps.begin(self._number)
        result = self._steps.run(batch, 0)
        self._steps.finish()
        return result

    def _whole(self, batch: Example) -> Any:
        """A run of the model, which leaves nothing in it."""
        with self._restorer.kept():
            return call(self._model, batch)
