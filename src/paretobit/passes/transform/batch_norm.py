"""BatchNorm: folded into the layer before it, and its statistics estimated again."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from paretobit.errors import BadInput
from paretobit.formats import FULL
from paretobit.graph import Example, ModelGraph, Node, at_rest
from paretobit.graph.copies import copy_of
from paretobit.nn import LAYERS, Quantized
from paretobit.nn.masks import masks_in
from paretobit.passes.layers.selection import select
from paretobit.passes.registry import PASSES
from paretobit.passes.streaming import Moments, call, first_tensor
from paretobit.passes.taking import takes
from paretobit.schemas import Schema

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TAKES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
_SPATIAL = {"1d": 1, "2d": 2, "3d": 3}


class FoldedBatchNorm(nn.Identity):
    """What is left of a BatchNorm that another layer took over.

    Args:
        into: Path of that layer.
    """

    def __init__(self, into: str) -> None:
        super().__init__()
        self.into = into

    def extra_repr(self) -> str:
        """Where it went."""
        return f"into={self.into}"


class FoldSettings(Schema):
    """The keys of `fold_batch_norm`."""

    skip: Sequence[str] = Field((), description="names or paths of BatchNorm layers to leave alone")


@PASSES.register("fold_batch_norm", summary="BatchNorm folded into the linear or convolution before it")
@takes(FoldSettings)
def fold_batch_norm(graph: ModelGraph, settings: Mapping[str, Any]) -> tuple[ModelGraph, dict[str, Any]]:
    """A copy of the graph in which linear and convolution layers do the work of the BatchNorm after them.

    With the running statistics, `y = g (Wx + b - mean) / sqrt(var + eps) + beta` is one layer:
    `W' = W g / sqrt(var + eps)` and `b' = (b - mean) g / sqrt(var + eps) + beta` (Jacob et al. 2018,
    arXiv 1712.05877, section 3.2), computed in float64. It holds in evaluation mode only: the copy
    must not be trained where the original was.

    Args:
        graph: Traced with example inputs.
        settings: `{"skip": [...]}`, names or paths of BatchNorm layers to leave alone.

    Returns:
        The new graph, and `{"folded": {BatchNorm: layer}, "refused": {BatchNorm: reason}}` by node name.

    Raises:
        BadInput: An unknown key, or a name in `skip` that is no BatchNorm of the model.
    """
    skip = _skipped(graph, settings)
    model = copy_of(graph.model)
    folded: dict[str, str] = {}
    refused: dict[str, str] = {}
    changed: dict[str, Node] = {}
    for node in graph.layers:
        if not isinstance(graph.module(node), _BatchNorm):
            continue
        reason = "it is to be left alone" if node.name in skip else _obstacle(graph, node)
        if reason is not None:
            refused[node.name] = reason
            continue
        before = graph[node.inputs[0]]
        if not _fold(model.get_submodule(before.owner), model.get_submodule(node.owner)):
            refused[node.name] = f"the type of the weight of {before.name} does not hold what both do"
            continue
        model.set_submodule(node.owner, FoldedBatchNorm(before.owner).train(graph.module(node).training))
        folded[node.name] = before.name
        changed[node.name] = replace(node, op="identity")
    nodes = tuple(changed.get(node.name, node) for node in graph)
    return replace(graph, model=model, nodes=nodes), {"folded": folded, "refused": refused}


def with_folds(model: nn.Module, folds: Mapping[str, str]) -> nn.Module:
    """Give a freshly built model, in place, the structure of a folded one, so that its weights fit.

    Args:
        model: With every BatchNorm still there, or already folded.
        folds: Path of each folded BatchNorm to that of the layer that took it over, as `folds_of` gives them.
    """
    for path, into in folds.items():
        layer: Any = model.get_submodule(into)
        norm: Any = model.get_submodule(path)
        if isinstance(norm, FoldedBatchNorm):
            continue
        if layer.bias is None:
            bias = layer.weight.new_zeros(norm.num_features)
            layer.bias = nn.Parameter(bias, layer.weight.requires_grad)
        model.set_submodule(path, FoldedBatchNorm(into))
    return model


def folds_of(model: nn.Module) -> dict[str, str]:
    """The folded BatchNorm layers of a model, and the layers they went into, by path."""
    return {path: m.into for path, m in model.named_modules() if isinstance(m, FoldedBatchNorm)}


@PASSES.register("recalibrate_batch_norm", summary="running statistics of BatchNorm, from calibration data")
@takes()
def recalibrate_pass(
    graph: ModelGraph, table: Mapping[str, Any], batches: Iterable[Example] = ()
) -> tuple[ModelGraph, dict[str, Any]]:
    """`recalibrate_batch_norm` as a pass; its table is empty."""
    return recalibrate_batch_norm(graph, batches)


def recalibrate_batch_norm(graph: ModelGraph, batches: Iterable[Example]) -> tuple[ModelGraph, dict[str, Any]]:
    """A copy of the graph whose BatchNorm layers have the running statistics of these batches.

    Mean and unbiased variance of each channel over all rows together, as if they were one batch, in
    float64; a layer sees what the layers before it make of each batch when they normalise it by its own
    statistics, as in training. All other layers run in evaluation mode. Momentum, modes and
    everything else stay as they were.

    Args:
        graph: The model.
        batches: Inputs as the model takes them, more than one value a channel each.

    Returns:
        The new graph, and `{"recalibrated": [...], "refused": {BatchNorm: reason}, "batches": n}`.

    Raises:
        BadInput: There is no batch, or one with a single value a channel.
    """
    model = copy_of(graph.model)
    return graph.with_model(model), reestimate_batch_norm(model, batches)


def reestimate_batch_norm(model: nn.Module, batches: Iterable[Example]) -> dict[str, Any]:
    """`recalibrate_batch_norm` in place; gives what that tells."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    refused = {name: _UNTRACKED for name, layer in layers.items() if layer.running_mean is None}
    moments = {name: Moments() for name in layers}
    number = 0
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(at_rest(model))
        for name, layer in layers.items():
            stack.enter_context(_NormalisingByBatch(layer))
            hook = partial(_see, name, moments[name])
            stack.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
        for batch in batches:
            call(model, batch)
            number += 1
    if not number:
        raise BadInput("recalibration needs data", key="batches", found="no batch")
    refused |= {name: "it did not run on this data" for name, seen in moments.items() if not seen.count}
    for name, layer in layers.items():
        if name not in refused:
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.copy_(moments[name].mean)
            layer.running_var.copy_(moments[name].variance(correction=1))
    done = [name for name in layers if name not in refused]
    return {"recalibrated": done, "refused": refused, "batches": number}


_UNTRACKED = "it keeps no running statistics"


class _NormalisingByBatch:
    """A BatchNorm normalises by its batch inside the block and keeps its statistics as they are."""

    def __init__(self, layer: _BatchNorm) -> None:
        self._layer = layer
        self._before = (layer.training, layer.momentum)
        self._tracked = layer.num_batches_tracked

    def __enter__(self) -> None:
        self._layer.train()
        self._layer.momentum = 0.0
        self._layer.num_batches_tracked = None

    def __exit__(self, *_: object) -> None:
        self._layer.training, self._layer.momentum = self._before
        self._layer.num_batches_tracked = self._tracked


def _see(name: str, moments: Moments, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A forward pre-hook: the values of each channel, as the layer takes them."""
    x = first_tensor([args, kwargs])
    if isinstance(layer, Quantized):
        x = layer.data("data_in", x)
    if x.ndim < 2 or x.numel() <= x.shape[1]:
        found = tuple(x.shape)
        raise BadInput("a batch with one value a channel has no variance", key=name, found=found)
    moments.add(x, [dim for dim in range(x.ndim) if dim != 1])


def _skipped(graph: ModelGraph, settings: Mapping[str, Any]) -> set[str]:
    names = settings.get("skip", [])
    known = [node.name for node in graph.layers if isinstance(graph.module(node), _BatchNorm)]
    skip = set()
    for name in names:
        (node,) = select(graph, "name", name)
        if node.name not in known:
            raise BadInput("not a BatchNorm layer", key="skip", found=name, allowed=known)
        skip.add(node.name)
    return skip


def _obstacle(graph: ModelGraph, node: Node) -> str | None:
    """Why this BatchNorm cannot be folded; None where it can."""
    norm = graph.module(node)
    assert isinstance(norm, _BatchNorm)
    if graph.batch is None or not node.inputs:
        return "nothing is known of what comes before it: trace with example inputs"
    before = graph[node.inputs[0]]
    if before.kind != "call_module" or not isinstance(graph.module(before), _TAKES):
        return f"it follows {before.name}, a {before.op}"
    layer = graph.module(before)
    users = [other.name for other in graph for source in other.inputs if source == before.name]
    if len(users) > 1:
        others = ", ".join(name for name in users if name != node.name) or "several calls"
        return f"the result of {before.name} also goes to {others}"
    rank = None if before.output_shape is None else len(before.output_shape)
    if rank != 2 + _SPATIAL.get(before.op[-2:], 0):
        return f"the channels of {before.name} are not the second of its {rank} axes"
    return _obstacle_of(graph, node, norm) or _obstacle_of(graph, before, layer)


def _obstacle_of(graph: ModelGraph, node: Node, module: nn.Module) -> str | None:
    """Why this layer, the BatchNorm or the one before it, cannot be part of a fold."""
    calls = sum(other.owner == node.owner for other in graph if other.kind == "call_module")
    paths = sum(m is module for _, m in graph.model.named_modules(remove_duplicate=False))
    if calls > 1 or paths > 1:
        return f"{node.name} is shared: {max(calls, paths)} calls or names"
    if isinstance(module, _BatchNorm) and (module.running_mean is None or module.running_var is None):
        return _UNTRACKED
    if (
        type(module) not in (*_TAKES, *LAYERS.types, *(entry.value for entry in LAYERS))
        and type(module) not in _PLAIN_NORMS
    ):
        return f"{node.name} is a {type(module).__name__}, which may compute something else"
    masked = masks_in(module)  # a masked layer has one hook; zeros stay zeros
    if module._forward_hooks or len(module._forward_pre_hooks) > bool(masked):
        return f"{node.name} has hooks"
    if "bias" in masked:
        return f"the bias of {node.name} is masked"
    if isinstance(module, Quantized):
        matters = (s for s in module.slots if isinstance(module, _BatchNorm) or not s.startswith("data"))
        kept = {slot: f for slot in matters if (f := module.slots[slot]) is not FULL}
        if kept:
            slot, number_format = next(iter(kept.items()))
            return f"the {slot} of {node.name} carries {number_format}: fold first, then quantise"
    return _obstacle_of_weight(graph, node, module)


_PLAIN_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def _obstacle_of_weight(graph: ModelGraph, node: Node, module: nn.Module) -> str | None:
    if isinstance(module, _BatchNorm):
        return None
    owners: Counter[int] = Counter()
    for _, other in graph.model.named_modules():
        owners.update(id(parameter) for parameter in other._parameters.values() if parameter is not None)
    for name in ("weight", "bias"):
        parameter = module._parameters.get(name)
        if name == "weight" and parameter is None:
            return f"the weight of {node.name} is computed from others"
        if parameter is not None and owners[id(parameter)] > 1:
            return f"the {name} of {node.name} is shared with another layer"
        read = (f"{node.owner}.{name}", f"{node.name}_{name}")
        if any(other.kind == "get_attr" and (other.owner in read or other.name in read) for other in graph):
            return f"the {name} of {node.name} is also used by a function"
    return None


def _fold(layer: Any, norm: Any) -> bool:
    """Change the layer, in place, so that it does the work of both; False where its type is too narrow for that."""
    weight, bias = layer.weight, layer.bias
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    factor = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.detach().double()
    shift = -mean if bias is None else bias.detach().double() - mean
    shift = shift * factor
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    folded, shift = _per_output(layer, weight.detach().double(), factor).to(weight.dtype), shift.to(weight.dtype)
    if weight.isfinite().all() and not (folded.isfinite().all() and shift.isfinite().all()):
        return False
    with torch.no_grad():
        weight.copy_(folded)
    layer.bias = nn.Parameter(shift, requires_grad=weight.requires_grad)
    return True


def _per_output(layer: Any, weight: Tensor, factor: Tensor) -> Tensor:
    """The weight times a factor of each output channel."""
    if not isinstance(layer, _TRANSPOSED):
        return weight * factor.view(-1, *[1] * (weight.ndim - 1))
    groups = layer.groups
    grouped = weight.view(groups, -1, *weight.shape[1:])  # groups, in, out, ...
    by_output = factor.view(groups, 1, -1, *[1] * (weight.ndim - 2))
    scaled: Tensor = grouped * by_output
    return scaled.flatten(0, 1)
