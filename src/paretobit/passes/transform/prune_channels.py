"""Structured pruning: whole output channels, in groups of layers whose channels go together."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput, under
from paretobit.graph import ModelGraph, Node
from paretobit.graph.widths import WidthGroup, WidthGroups, width_groups
from paretobit.nn.masks import masks_in
from paretobit.passes.layers.selection import select
from paretobit.passes.transform.prune_layers import output_axis, prunable
from paretobit.passes.transform.prune_scores import keep_largest, number_removed
from paretobit.passes.transform.prune_settings import WeightPruning
from paretobit.passes.transform.prune_weights import Chosen, chosen_layers, scores


@dataclass(frozen=True)
class _Place:
    """Where channels of a group lie: along an axis of a parameter, the channel of every element, or -1."""

    path: str
    parameter: str
    axis: int
    channels: Tensor

    def spread(self, keep: Tensor, shape: Sequence[int]) -> Tensor:
        """The mask of the parameter where these channels stay; other elements do."""
        along = torch.cat([keep.cpu(), torch.ones(1, dtype=torch.bool)])[self.channels]  # -1 is the last
        return along.view([-1 if i == self.axis else 1 for i in range(len(shape))]).expand(tuple(shape))


@dataclass(frozen=True)
class _Group:
    """Channels that go together: their places, their scores, and how many of them go."""

    name: str
    places: tuple[_Place, ...]
    ranked: Tensor
    sparsity: float


def channel_masks(graph: ModelGraph, settings: WeightPruning, norms: Mapping[str, Tensor] | None = None) -> Chosen:
    """The masks of whole output channels that settings ask for.

    Exactly `round(sparsity · channels)` channels go from every group, or over all groups with the
    scope `global`. A channel's score is the mean of the scores of all weights that make it: for
    `l1-norm` its L1 norm divided by their number, so that layers of different fan-in compare. A
    channel goes with its weights, its biases, and its weights and biases in the norms of its group.

    Without names of groups or layers the groups are the free width groups of the model, so that
    its outputs, and what is not understood, stay.

    Args:
        graph: The model; traced with example inputs where width groups are needed.
        settings: With `granularity = "channel"`.
        norms: From `input_norms`, for the method `activation-aware`.

    Raises:
        BadInput: The layers of a named group differ in channels, or more channels are gone already.
    """
    dense: dict[str, str] = {}
    groups = list(_groups(graph, settings, norms, dense))
    if settings.scope == "global":
        assert isinstance(settings.sparsity, int | float)
        removed = number_removed(settings.sparsity, sum(g.ranked.numel() for g in groups))
        _check(sum(_gone(g) for g in groups), removed, "the groups together")
        kept = keep_largest([g.ranked for g in groups], removed, [_floor(settings, g) for g in groups])
    else:
        kept = []
        for group in groups:
            removed = number_removed(group.sparsity, group.ranked.numel())
            _check(_gone(group), removed, f"'{group.name}'")
            kept += keep_largest([group.ranked], removed, [_floor(settings, group)])
    masks: dict[str, dict[str, Tensor]] = {}
    for group, channels in zip(groups, kept, strict=True):
        for place in group.places:
            module = graph.model.get_submodule(place.path)
            parameter = module.get_parameter(place.parameter)
            earlier = None if settings.revive else masks_in(module).get(place.parameter)
            own = masks.setdefault(place.path, {})
            mask = own.get(place.parameter, True if earlier is None else earlier)
            own[place.parameter] = (place.spread(channels, parameter.shape).to(parameter.device) & mask).contiguous()
    return Chosen(masks, dense)


def ranked_layers(graph: ModelGraph, settings: WeightPruning) -> list[Node]:
    """The layers whose weights say which channels go."""
    if not _by_name(settings):
        return [node for node in graph.layers if prunable(graph.module(node))]
    named = [node for name, paths in settings.groups.items() for node in _members(graph, name, paths)]
    nodes = dict.fromkeys(node for node in named if prunable(graph.module(node)))
    return list(nodes | dict.fromkeys(_layers(graph, settings)))


def _by_name(settings: WeightPruning) -> bool:
    return bool(settings.groups) or settings.choice.layers is not None or isinstance(settings.sparsity, Mapping)


def _layers(graph: ModelGraph, settings: WeightPruning) -> dict[Node, float]:
    chosen = settings.choice.layers is not None or isinstance(settings.sparsity, Mapping)
    return chosen_layers(graph, settings) if chosen else {}


def _groups(
    graph: ModelGraph, settings: WeightPruning, norms: Mapping[str, Tensor] | None, dense: dict[str, str]
) -> Iterator[_Group]:
    fraction = settings.sparsity if isinstance(settings.sparsity, int | float) else 0.0
    if not _by_name(settings):
        yield from _of_the_model(graph, settings, norms, dense, fraction)
        return
    owner: dict[str, str] = {}
    for name, paths in settings.groups.items():
        members = _members(graph, name, paths)
        for node in members:
            if node.owner in owner:
                found = [owner[node.owner], name]
                raise BadInput(f"layer '{node.name}' is in two groups", key="groups", found=found)
            owner[node.owner] = name
        yield _named(graph, settings, name, members, fraction, norms)
    for node, sparsity in _layers(graph, settings).items():
        if node.owner not in owner:
            yield _named(graph, settings, node.name, (node,), sparsity, norms)


def _of_the_model(
    graph: ModelGraph,
    settings: WeightPruning,
    norms: Mapping[str, Tensor] | None,
    dense: dict[str, str],
    sparsity: float,
) -> Iterator[_Group]:
    """The free width groups; why the others stay goes to `dense`."""
    widths = width_groups(graph)
    skipped = {node.name for key in settings.choice.skip for node in select(graph, "name", key)}
    for group in widths:
        places = tuple(_places(widths, group))
        count = 1 + max((int(place.channels.max()) for place in places), default=-1)
        ranked = None if group.frozen else _scores(graph, settings, places, count, norms)
        if group.frozen:
            dense[group.name] = group.frozen
        elif skipped.intersection(group.producers):
            dense[group.name] = "skipped"
        elif ranked is None:
            dense[group.name] = "no linear layer or convolution makes its channels"
        else:
            yield _Group(group.name, places, ranked, sparsity)


def _places(widths: WidthGroups, group: WidthGroup) -> Iterator[_Place]:
    """Where the channels of a width group lie in the parameters that make or scale them."""
    for known in widths.tensors:
        for axis, dimension in enumerate(known.dims):
            if axis in known.summed or not isinstance(known.tensor, nn.Parameter):
                continue
            channels = []
            for segment in widths.variables.resolve(dimension):
                own = segment.variable == group.variable
                counted = torch.arange(segment.count) if own else torch.full((segment.count,), -1)
                channels.append(counted.repeat_interleave(segment.repeat))
            path, _, parameter = known.path.rpartition(".")
            along = torch.cat(channels)
            if (along >= 0).any():
                yield _Place(path, parameter, axis, along)


def _members(graph: ModelGraph, name: str, paths: object) -> tuple[Node, ...]:
    if not isinstance(paths, list | tuple) or not paths:
        raise BadInput("not a list of layers", key=f"groups.{name}", found=paths)
    with under(f"groups.{name}"):
        return tuple(node for path in paths for node in select(graph, "name", path))


def _named(
    graph: ModelGraph,
    settings: WeightPruning,
    name: str,
    members: tuple[Node, ...],
    sparsity: float,
    norms: Mapping[str, Tensor] | None,
) -> _Group:
    """A group that the user named, or one layer."""
    sizes = {node.name: _channels(graph.module(node), node) for node in members}
    if len(set(sizes.values())) != 1:
        raise BadInput(f"the layers of group '{name}' differ in channels", key="groups", found=sizes)
    count = next(iter(sizes.values()))
    places = []
    for node in members:
        for parameter, value in graph.module(node).named_parameters(recurse=False):
            axis = output_axis(graph.module(node)) if value.dim() > 1 else 0
            places.append(_Place(node.owner, parameter, axis, torch.arange(count)))
    ranked = _scores(graph, settings, places, count, norms)
    if ranked is None:
        raise BadInput(f"no layer of group '{name}' makes channels", key="groups", found=list(sizes))
    return _Group(name, tuple(places), ranked, sparsity)


def _channels(module: nn.Module, node: Node) -> int:
    """How many output channels a layer has."""
    if prunable(module):
        weight = module.get_parameter("weight")
        if output_axis(module) == 1 and getattr(module, "groups", 1) > 1:
            raise BadInput(f"layer '{node.name}' is a transposed convolution in groups: its channels cannot go")
        return weight.shape[output_axis(module)]
    sizes = {p.numel() for p in module.parameters(recurse=False) if p.dim() == 1}
    if len(sizes) != 1 or any(p.dim() != 1 for p in module.parameters()):
        kind = type(module).__name__
        raise BadInput(f"layer '{node.name}' has no channels that can go", key="groups", found=kind)
    return sizes.pop()


def _scores(
    graph: ModelGraph, settings: WeightPruning, places: Sequence[_Place], count: int, norms: Mapping[str, Tensor] | None
) -> Tensor | None:
    """Mean score of the weights that make each channel, `-inf` where an earlier pruning took them all."""
    nodes = {node.owner: node for node in graph.layers}
    total, alive = torch.zeros(count + 1, dtype=torch.float64), torch.zeros(count + 1, dtype=torch.bool)
    weights = torch.zeros(count + 1, dtype=torch.float64)
    for place in places:
        node = nodes.get(place.path)
        if node is None or place.parameter != "weight" or not prunable(graph.module(node)):
            continue
        found = scores(graph, replace(settings, revive=True), node, norms).double().cpu()
        rows = found.movedim(place.axis, 0).flatten(1)
        index = place.channels % (count + 1)  # -1 is the last, which is nobody's
        total.index_add_(0, index, rows.sum(1))
        weights.index_add_(0, index, torch.full((len(rows),), float(rows.shape[1]), dtype=torch.float64))
        mask = masks_in(graph.module(node)).get("weight")
        kept = torch.ones_like(rows, dtype=torch.bool) if mask is None else mask.cpu().movedim(place.axis, 0).flatten(1)
        alive[index[kept.any(1)]] = True
    if not weights[:-1].all():
        return None
    mean = total[:-1] / weights[:-1]
    return mean if settings.revive else mean.masked_fill(~alive[:-1], -torch.inf)


def _gone(group: _Group) -> int:
    return int(torch.isneginf(group.ranked).sum())


def _floor(settings: WeightPruning, group: _Group) -> int:
    return math.ceil(settings.floor * group.ranked.numel())


def _check(gone: int, removed: int, who: str) -> None:
    if gone > removed:
        raise BadInput(
            f"{who}: more channels are gone already; revive = true lets them come back",
            key="sparsity",
            found=f"{removed} to go",
            allowed=f"{gone} or more",
        )
