"""Which old channel each new channel comes from, per width variable and per axis."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from paretobit.errors import BadInput
from paretobit.graph.axes import Axis, Segment, size
from paretobit.graph.widths import WidthGroup, WidthGroups

Inherit = Literal["scratch", "slice", "l1", "net2wider"]
INHERIT: tuple[str, ...] = get_args(Inherit)
NEW = -1
"""In the place of an old channel: the new one has none."""


@dataclass(frozen=True)
class WidthPlan:
    """New widths of a model's variables.

    Attributes:
        groups: The model's width groups.
        counts: New number of channels by variable, for those that change.
        origins: For each of them, the old channel of every new one, or `NEW`; int64.
    """

    groups: WidthGroups
    counts: Mapping[int, int]
    origins: Mapping[int, Tensor]

    def size(self, axis: Axis) -> int:
        """Elements of an axis with the new widths."""
        resolved = self.groups.variables.resolve(axis)
        return sum(self._count(segment) * segment.repeat for segment in resolved)

    def changes(self, axis: Axis) -> bool:
        """Whether the axis has a variable that changes."""
        return any(s.variable in self.counts for s in self.groups.variables.resolve(axis))

    def origin(self, axis: Axis) -> Tensor:
        """The old element of every new element of an axis, or `NEW`; int64."""
        pieces, offset = [], 0
        for segment in self.groups.variables.resolve(axis):
            channels = self.origins.get(segment.variable if segment.variable is not None else NEW)
            if channels is None:
                channels = torch.arange(segment.count)
            old = channels[:, None] * segment.repeat + torch.arange(segment.repeat) + offset
            pieces.append(torch.where(channels[:, None] == NEW, torch.tensor(NEW), old).flatten())
            offset += segment.size
        return torch.cat(pieces)

    def copies(self, axis: Axis) -> Tensor:
        """How many new elements each old element of an axis has; int64."""
        origin = self.origin(axis)
        return torch.bincount(origin[origin != NEW], minlength=size(axis))

    def _count(self, segment: Segment) -> int:
        return segment.count if segment.variable is None else self.counts.get(segment.variable, segment.count)


def make_plan(groups: WidthGroups, widths: Mapping[str, int], inherit: Inherit, seed: int) -> WidthPlan:
    """New widths by group name, and where their channels come from.

    Raises:
        BadInput: An unknown or frozen group, a width that its divisor does not allow, or one that
            `net2wider` cannot reach.
    """
    if inherit not in INHERIT:
        raise BadInput("unknown way to inherit weights", key="inherit", found=inherit, allowed=INHERIT)
    chosen = [(groups[name], width) for name, width in widths.items()]
    for group, width in chosen:
        _check(group, width)
    changed = [(group, width) for group, width in chosen if width != group.width]
    counts = {group.variable: width // group.divisor for group, width in changed}
    generator = torch.Generator().manual_seed(seed)
    origins = {}
    for group, width in changed:
        before, after = group.width // group.divisor, width // group.divisor
        if inherit == "net2wider":
            if after < before:
                raise BadInput("net2wider only widens", key=group.name, found=width, allowed=f"{group.width} or more")
            origins[group.variable] = _copied(before, after, generator)
        elif inherit == "l1" and after < before:
            scores = _magnitudes(groups, group.variable, before)
            origins[group.variable] = scores.topk(after).indices.sort().values
        else:
            kept = torch.arange(after)
            origins[group.variable] = torch.where(kept < before, kept, torch.tensor(NEW))
    plan = WidthPlan(groups, counts, origins)
    if inherit == "net2wider":
        _refuse_where_copies_are_felt(plan)
    return plan


def _check(group: WidthGroup, width: int) -> None:
    if type(width) is not int or width < 1 or width % group.divisor:
        allowed = f"a multiple of {group.divisor}"
        raise BadInput("not a width of this group", key=group.name, found=width, allowed=allowed)
    if group.frozen is not None and width != group.width:
        raise BadInput(
            f"this width cannot change: {group.frozen}", key=group.name, found=width, allowed=str(group.width)
        )


def _copied(before: int, after: int, generator: torch.Generator) -> Tensor:
    """All old channels, then copies in random order; no channel is copied twice before all are once."""
    rounds = math.ceil(after / before) - 1
    more = [torch.randperm(before, generator=generator) for _ in range(rounds)]
    return torch.cat([torch.arange(before), *more])[:after]


def _magnitudes(groups: WidthGroups, variable: int, channels: int) -> Tensor:
    """Sum of the absolute weights that make each channel of a variable."""
    scores = torch.zeros(channels, dtype=torch.float64)
    for known in groups.tensors:
        if known.tensor.dim() < 2 or not known.tensor.is_floating_point():
            continue
        for dim, axis in enumerate(known.dims):
            if dim in known.summed:
                continue
            offset, elements = 0, None
            for segment in groups.variables.resolve(axis):
                if segment.variable == variable:
                    if elements is None:
                        others = [k for k in range(known.tensor.dim()) if k != dim]
                        elements = known.tensor.detach().abs().double().sum(others).cpu()
                    part = elements[offset : offset + segment.size]
                    scores += part.view(channels, segment.repeat).sum(1)
                offset += segment.size
    return scores


def _refuse_where_copies_are_felt(plan: WidthPlan) -> None:
    for obstacle in plan.groups.obstacles:
        if not plan.changes(obstacle.axis):
            continue
        copies = plan.copies(obstacle.axis)
        names = ", ".join(g.name for g in plan.groups.of(obstacle.axis) if g.variable in plan.counts)
        if obstacle.allows == "nothing":
            raise BadInput(f"net2wider cannot keep the function through '{obstacle.node}' ({obstacle.op})", key=names)
        if bool((copies != copies[0]).any()):
            raise BadInput(
                f"net2wider cannot keep the function through '{obstacle.node}' ({obstacle.op}): "
                "every channel that it normalises must be copied equally often",
                key=names,
                found=plan.size(obstacle.axis),
                allowed=f"a multiple of {size(obstacle.axis)}",
            )
    for known in plan.groups.tensors:
        for dim in known.summed & known.copied:
            if plan.changes(known.dims[dim]):
                raise BadInput(f"net2wider cannot copy '{known.path}', which is used as two kinds of weight")
