"""From settings to masks: which weights of a graph's layers go. Nothing is changed here."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph, Node
from paretobit.nn.masks import masks_in
from paretobit.passes.transform.prune_layers import driven, input_axis, output_axis
from paretobit.passes.transform.prune_scores import (
    keep_largest,
    keep_largest_in_rows,
    keep_pattern,
    magnitudes,
    number_removed,
    parse_pattern,
    random_scores,
)
from paretobit.passes.transform.prune_settings import WeightPruning
from paretobit.runtime import derive_seed

Masks = Mapping[str, Mapping[str, Tensor]]
"""Path of a layer to name of a parameter to mask, True where a weight stays."""


@dataclass(frozen=True)
class Chosen:
    """What settings mean for one graph.

    Attributes:
        masks: Of every layer that is pruned.
        dense: Node to the reason why it was chosen and stays as it is.
    """

    masks: Masks
    dense: Mapping[str, str] = field(default_factory=dict)


def chosen_layers(graph: ModelGraph, settings: WeightPruning) -> dict[Node, float]:
    """The layers that settings choose, and the sparsity that each is asked for (0 under a pattern).

    Raises:
        BadInput: A key matches nothing, or a layer is chosen twice.
    """
    if not isinstance(settings.sparsity, Mapping):
        sparsity = settings.sparsity if settings.sparsity is not None else 0.0
        return dict.fromkeys(settings.choice.nodes(graph), sparsity)
    asked: dict[Node, float] = {}
    keys: dict[Node, str] = {}
    for key, sparsity in settings.sparsity.items():
        try:
            nodes = replace(settings.choice, layers=(key,)).nodes(graph)
        except BadInput as error:
            error.key = f"sparsity.{key}"
            raise
        for node in nodes:
            if node in asked:
                raise BadInput(f"layer '{node.name}' is chosen twice", key="sparsity", found=[keys[node], key])
            asked[node], keys[node] = sparsity, key
    return {node: asked[node] for node in graph.layers if node in asked}


def weight_masks(graph: ModelGraph, settings: WeightPruning, norms: Mapping[str, Tensor] | None = None) -> Chosen:
    """The masks of single weights that settings ask for.

    Exactly `round(sparsity · elements)` weights go from every layer, over all layers, or from every
    output feature; of equal scores the first. Weights that are masked already go first and count.
    Parameters that two layers share are pruned once, at the first.

    Args:
        graph: The model; its float weights are looked at, whatever formats its layers carry.
        settings: With `granularity = "elementwise"`.
        norms: From `input_norms`, for the method `activation-aware`.

    Raises:
        BadInput: A layer is already sparser than asked, or does not fit a pattern.
    """
    asked = chosen_layers(graph, settings)
    layers, dense = [], {}
    first: dict[int, Node] = {}
    for node in asked:
        weight = _weight(graph, node)
        if id(weight) in first:
            dense[node.name] = f"its weight is that of '{first[id(weight)].name}'"
            continue
        first[id(weight)] = node
        layers.append(node)
    if settings.pattern is not None:
        layers, ragged = _fitting(graph, settings, layers)
        dense |= ragged
    if settings.scope == "global":
        found = _global(graph, settings, layers, norms)
    else:
        found = ((node, _local(graph, settings, node, asked[node], norms)) for node in layers)
    return Chosen({node.owner: {"weight": mask} for node, mask in found}, dense)


def _global(
    graph: ModelGraph, settings: WeightPruning, layers: Sequence[Node], norms: Mapping[str, Tensor] | None
) -> Iterator[tuple[Node, Tensor]]:
    assert isinstance(settings.sparsity, int | float)
    ranked = [scores(graph, settings, node, norms) for node in layers]
    removed = number_removed(settings.sparsity, sum(tensor.numel() for tensor in ranked))
    _check_not_sparser(sum(_gone(tensor) for tensor in ranked), removed, "the layers together are")
    floors = [math.ceil(settings.floor * tensor.numel()) for tensor in ranked]
    yield from zip(layers, keep_largest(ranked, removed, floors), strict=True)


def _local(
    graph: ModelGraph, settings: WeightPruning, node: Node, sparsity: float, norms: Mapping[str, Tensor] | None
) -> Tensor:
    """The mask of one layer, ranked by itself."""
    ranked, module = scores(graph, settings, node, norms), graph.module(node)
    if settings.pattern is not None:
        mask = keep_pattern(ranked, input_axis(module), *parse_pattern(settings.pattern))
        return mask & ~torch.isneginf(ranked)
    who = f"layer '{node.name}' is"
    if settings.scope == "output":
        outputs = ranked.movedim(output_axis(module), 0)
        rows = outputs.reshape(outputs.shape[0], -1)
        removed = number_removed(sparsity, rows.shape[1])
        _check_not_sparser(max(map(_gone, rows), default=0), removed, f"an output of {who}")
        mask = keep_largest_in_rows(rows, removed).reshape(outputs.shape)
        return mask.movedim(0, output_axis(module)).contiguous()
    removed = number_removed(sparsity, ranked.numel())
    _check_not_sparser(_gone(ranked), removed, who)
    return keep_largest([ranked], removed, [math.ceil(settings.floor * ranked.numel())])[0]


def _fitting(graph: ModelGraph, settings: WeightPruning, layers: Sequence[Node]) -> tuple[list[Node], dict[str, str]]:
    """The layers that an N:M pattern fits, and why not the others."""
    assert settings.pattern is not None
    group = parse_pattern(settings.pattern)[1]
    fitting, ragged = [], {}
    for node in layers:
        features = _weight(graph, node).shape[input_axis(graph.module(node))]
        if features % group == 0:
            fitting.append(node)
        elif settings.ragged == "dense":
            ragged[node.name] = f"{features} inputs are no multiple of {group}"
        else:
            raise BadInput(
                f"layer '{node.name}' does not fit the pattern; skip it, or set ragged = \"dense\"",
                key="pattern",
                found=f"{features} inputs",
                allowed=f"multiples of {group}",
            )
    return fitting, ragged


def scores(graph: ModelGraph, settings: WeightPruning, node: Node, norms: Mapping[str, Tensor] | None) -> Tensor:
    """A layer's scores, in the shape of its weight: the smaller, the sooner a weight goes."""
    module, weight = graph.module(node), _weight(graph, node)
    try:
        found = magnitudes(weight)
    except BadInput as error:
        raise BadInput(f"layer '{node.name}': {error.problem}") from None
    if settings.method == "random":
        drawn = random_scores(weight.shape, derive_seed(settings.seed, "prune", node.owner))
        found = drawn.to(weight.device)
    elif settings.method == "activation-aware":
        if norms is None:
            allowed = "paretobit.passes.transform.prune(graph, settings, batches)"
            raise BadInput("this method needs calibration batches", key="method", allowed=allowed)
        found = driven(module, found, norms[node.owner])
    mask = None if settings.revive else masks_in(module).get("weight")
    return found if mask is None else found.masked_fill(~mask, -torch.inf)


def _weight(graph: ModelGraph, node: Node) -> nn.Parameter:
    weight = graph.module(node).weight
    assert isinstance(weight, nn.Parameter)
    return weight


def _gone(ranked: Tensor) -> int:
    """How many weights an earlier pruning took."""
    return int(torch.isneginf(ranked).sum())


def _check_not_sparser(gone: int, removed: int, who: str) -> None:
    if gone > removed:
        raise BadInput(
            f"{who} sparser already; revive = true lets pruned weights come back",
            key="sparsity",
            found=f"{removed} to go",
            allowed=f"{gone} or more",
        )
