"""Which layers can be pruned, how their weights lie, and how strongly each input feature is driven."""

from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput, located
from paretobit.graph import Example, ModelGraph, Node, at_rest, class_name
from paretobit.nn import dot_terms, lies_transposed, parameter_uses
from paretobit.passes.layers.selection import By, select
from paretobit.passes.streaming import call


@dataclass(frozen=True)
class Choice:
    """Which layers a pass is for: all that it can treat, or those that are named.

    Args:
        by: How `layers` chooses: `type`, `name` or `regex`.
        layers: Keys; None for every layer that can be pruned.
        skip: Names or paths of layers to leave alone.
    """

    by: By = "type"
    layers: tuple[str, ...] | None = None
    skip: tuple[str, ...] = ()

    def nodes(self, graph: ModelGraph) -> tuple[Node, ...]:
        """The layers, in order of execution.

        Raises:
            BadInput: A key matches nothing, a named layer cannot be pruned, or nothing is left.
        """
        skipped = {node.owner for key in self.skip for node in _named("skip", graph, "name", key)}
        if self.layers is None:
            found = [node for node in graph.layers if prunable(graph.module(node))]
        else:
            chosen = {n.owner for key in self.layers for n in _named("layers", graph, self.by, key)}
            found = [node for node in graph.layers if node.owner in chosen]
        found = [node for node in found if node.owner not in skipped]
        if not found:
            raise BadInput("no layer of the model is left to prune", key="layers")
        with located(key="layers"):
            return only_prunable(graph, found, self.by)


def _named(key: str, graph: ModelGraph, by: By, name: str) -> tuple[Node, ...]:
    with located(key=key):
        return select(graph, by, name)


def prunable(module: nn.Module) -> bool:
    """Whether a layer has a matrix or kernel whose weights can go: linear, convolution, transposed ones."""
    return dot_terms(module) is not None and "weight" in module._parameters


def why_not_prunable(module: nn.Module) -> str | None:
    """Why a layer cannot be pruned; None where it can."""
    if prunable(module):
        return None
    made = dot_terms(module) is not None
    return "its weight is computed from other parameters" if made else f"a {class_name(module)} cannot be pruned"


def only_prunable(graph: ModelGraph, nodes: Sequence[Node], by: By) -> tuple[Node, ...]:
    """Those of the layers that can be pruned, at least one; of layers that are named, all.

    Raises:
        BadInput: A named layer cannot be pruned, or none can.
    """
    kept = tuple(node for node in nodes if prunable(graph.module(node)))
    refused = [node for node in nodes if node not in kept]
    if refused and (by == "name" or not kept):
        name, kind = refused[0].name, graph.original_type(refused[0])
        made = dot_terms(graph.module(refused[0])) is not None
        reason = f": {why_not_prunable(graph.module(refused[0]))}" if made else ""
        raise BadInput(f"layer '{name}' is a {kind}, which cannot be pruned{reason}")
    return kept


def output_axis(module: nn.Module) -> int:
    """The axis of a prunable layer's weight that counts its output features."""
    return 1 - input_axis(module)


def input_axis(module: nn.Module) -> int:
    """The axis of a prunable layer's weight that counts its input features."""
    return 0 if lies_transposed(module) else 1


def untouched(graph: ModelGraph, paths: Set[str]) -> dict[str, str]:
    """Layers with a weight matrix that are not among these paths, by node name, and why."""
    masked = {id(p) for path in paths for p in graph.model.get_submodule(path).parameters()}
    reasons = {}
    for node in graph.layers:
        module = graph.module(node)
        large = [p for p in module.parameters() if p.dim() >= 2]
        if not large or node.owner in paths:
            continue
        if all(id(p) in masked for p in large):
            reasons[node.name] = "its weight is that of a pruned layer"
        else:
            reasons[node.name] = why_not_prunable(module) or "not chosen"
    for use in parameter_uses(graph):
        if use.layer is None and use.slot == "weight" and use.node and id(use.parameter) not in masked:
            reasons[use.node.name] = f"'{use.path}' belongs to no layer: a function reads it"
    return reasons


def input_norms(graph: ModelGraph, nodes: Sequence[Node], batches: Iterable[Example]) -> dict[str, Tensor]:
    """The 2-norm of every input feature of layers over all rows and positions, in one streaming pass.

    Memory does not depend on the number of batches. A convolution's input feature is a channel.

    Args:
        graph: The model; it runs in evaluation mode and is left as it was.
        nodes: Its layers to look at.
        batches: Inputs as `trace` takes them.

    Returns:
        Path of a layer to norms, float64 `(features,)`.

    Raises:
        BadInput: There is no batch, or a layer never ran.
    """
    sums: dict[str, Tensor] = {}
    with ExitStack() as stack, torch.no_grad(), at_rest(graph.model):
        for node in nodes:
            watch = _Squares(node.owner, sums)
            stack.callback(graph.module(node).register_forward_pre_hook(watch, with_kwargs=True).remove)
        for batch in batches:
            call(graph.model, batch)
    for node in nodes:
        if node.owner not in sums:
            raise BadInput(
                f"layer '{node.name}' never ran on calibration data",
                key="batches",
                allowed="batches that reach every chosen layer",
            )
    return {path: total.sqrt() for path, total in sums.items()}


class _Squares:
    """Adds up the squares of one layer's input features."""

    def __init__(self, path: str, sums: dict[str, Tensor]) -> None:
        self._path, self._sums = path, sums

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        x = (args[0] if args else kwargs["input"]).detach()
        axis = _feature_axis(module, x)
        squares = x.double().square().movedim(axis, 0).flatten(1).sum(1)
        self._sums[self._path] = squares + self._sums.get(self._path, 0)


def _feature_axis(module: nn.Module, x: Tensor) -> int:
    kernel = getattr(module, "kernel_size", None)  # the channels stand before the positions
    return x.dim() - 1 - (len(kernel) if kernel is not None else 0)


def driven(module: nn.Module, weight: Tensor, norms: Tensor) -> Tensor:
    """|w| · ‖x‖₂ of the input feature that each weight takes (Wanda, Sun et al. 2023, eq. 1).

    Args:
        module: The layer.
        weight: |w|, in the layout of the layer.
        norms: `(input features,)`.
    """
    axis, groups = input_axis(module), getattr(module, "groups", 1)
    norms = norms.to(weight)
    if groups > 1 and axis == 1:  # the outputs of group g see the inputs of group g
        shape = (groups, weight.shape[0] // groups, weight.shape[1])
        factors = norms.view(groups, 1, -1).expand(shape).reshape(weight.shape[:2])
        return weight * factors.view(*weight.shape[:2], *[1] * (weight.dim() - 2))
    return weight * norms.view(*[-1 if i == axis else 1 for i in range(weight.dim())])
