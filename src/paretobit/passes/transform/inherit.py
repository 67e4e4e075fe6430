"""A model with other widths: new layers, and weights inherited from the old ones.

`scratch`: layers that change start afresh. `slice`: the first channels keep their weights, further
ones start afresh. `l1`: as `slice`, but a narrower layer keeps the channels of largest absolute weights.
`net2wider` (Chen et al. 2016): further channels are copies of old ones, and what reads them divides
its weights among the copies, so that the model computes the same function.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph
from paretobit.graph.axes import Axis
from paretobit.graph.axes_walk import Tensors
from paretobit.graph.resized import resized
from paretobit.graph.trace import Example
from paretobit.graph.widths import WidthGroups, width_groups
from paretobit.nn.masks import masks_of
from paretobit.passes.transform.width_maps import NEW, Inherit, WidthPlan, make_plan
from paretobit.passes.transform.width_trial import traced_again
from paretobit.runtime import derive_seed


def resize(
    graph: ModelGraph,
    widths: Mapping[str, int],
    inherit: Inherit = "slice",
    seed: int = 0,
    *,
    groups: WidthGroups | None = None,
    example: Example | None = None,
) -> ModelGraph:
    """A new model whose width groups have other widths, traced once more; the graph's own stays as it is.

    Args:
        graph: Traced with example inputs.
        widths: Group name to channels; groups that are not named keep theirs.
        inherit: Where the weights come from.
        seed: Of fresh weights, and of which channels are copied.
        groups: The graph's width groups, where they are known already.
        example: What the trial run is fed; what the graph was traced on if it is not given.

    Raises:
        BadInput: A group is unknown or frozen, a width is none of its multiples, the weights cannot be
            inherited so, or the new model does not run.
    """
    if masks_of(graph.model):
        raise BadInput("a pruned model cannot be resized", allowed="channel_multiplier before prune")
    groups = groups or width_groups(graph)
    plan = make_plan(groups, widths, inherit, seed)
    model = _rebuilt(graph.model, plan, inherit, seed)
    return traced_again(graph, model, groups.outputs, list(widths), example, same=inherit == "net2wider")


def _rebuilt(model: nn.Module, plan: WidthPlan, inherit: Inherit, seed: int) -> nn.Module:
    """A copy with new tensors in the place of those that change."""
    changed = {id(t.tensor): t for t in plan.groups.tensors if any(map(plan.changes, t.dims))}
    attributes = {key: axes for key, axes in plan.groups.attributes.items() if any(map(plan.changes, axes))}
    new = resized(model, changed.values(), attributes, plan.size)
    affected = [path for path, module in model.named_modules() if any(id(t) in changed for t in _own(module))]
    if inherit == "scratch" or any(bool((origin == NEW).any()) for origin in plan.origins.values()):
        _start_afresh(model, new, affected, seed)
    if inherit != "scratch":
        generator = torch.Generator().manual_seed(derive_seed(seed, "shares"))
        for path in affected:
            _inherit(model.get_submodule(path), new.get_submodule(path), changed, plan, inherit, generator)
    return new


def _own(module: nn.Module) -> Iterable[Tensor]:
    """A module's own parameters and buffers."""
    return (t for t in [*module._parameters.values(), *module._buffers.values()] if t is not None)


def _start_afresh(old: nn.Module, new: nn.Module, paths: Iterable[str], seed: int) -> None:
    """Fresh weights as the layer makes them, or spread like the old ones where it does not say how."""
    devices = {t.device for t in new.parameters() if t.device.type == "cuda"}
    with torch.random.fork_rng(devices=[d.index for d in devices]):
        for path in paths:
            torch.manual_seed(derive_seed(seed, path))
            before, after = old.get_submodule(path), new.get_submodule(path)
            reset = getattr(after, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for source, target in zip(_own(before), _own(after), strict=True):
                if target.is_floating_point() and source.shape != target.shape:
                    spread = source.detach().float()
                    mean, deviation = float(spread.mean()), float(spread.std(correction=0))
                    nn.init.normal_(target.detach(), mean, deviation)


@torch.no_grad()
def _inherit(
    old: nn.Module,
    new: nn.Module,
    changed: Mapping[int, Tensors],
    plan: WidthPlan,
    inherit: Inherit,
    generator: torch.Generator,
) -> None:
    """The old values of one layer, at the places of the channels that have an origin."""
    for source, target in zip(_own(old), _own(new), strict=True):
        known = changed.get(id(source))
        block, places = source.detach(), []
        for dim, axis in enumerate(known.dims if known else ()):
            origin = plan.origin(axis)
            place = (origin != NEW).nonzero().flatten()
            if plan.changes(axis):
                block = block.index_select(dim, origin[place].to(block.device))
                if known and inherit == "net2wider" and dim in known.summed:
                    shares = _shares(plan, axis, origin, generator).to(block.device)
                    block = (block.double() * _along(shares, dim, block.dim())).to(source.dtype)
            places.append(place.to(target.device))
        if block.shape == target.shape:
            target.copy_(block)
        else:
            target[tuple(_along(place, dim, len(places)) for dim, place in enumerate(places))] = block


def _along(vector: Tensor, dim: int, dims: int) -> Tensor:
    """A vector as a tensor of `dims` dimensions that lies along one of them."""
    return vector.view([-1 if k == dim else 1 for k in range(dims)])


def _shares(plan: WidthPlan, axis: Axis, origin: Tensor, generator: torch.Generator) -> Tensor:
    """What each copy takes of its original's weight; those of one original sum to one.

    Unequal shares: equal ones would have equal gradients and stay copies in training.
    """
    parts = 0.5 + torch.rand(len(origin), generator=generator, dtype=torch.float64)
    total = torch.zeros(len(plan.copies(axis)), dtype=torch.float64).index_add(0, origin, parts)
    return parts / total[origin]
