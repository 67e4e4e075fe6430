"""Which weights go: scores, and exactly so many of the smallest removed, ties by index."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from paretobit.errors import BadInput


def number_removed(sparsity: float, elements: int) -> int:
    """`sparsity · elements`, rounded; a half goes to the even number.

    >>> number_removed(0.7, 10), number_removed(0.25, 10)
    (7, 2)
    """
    return round(sparsity * elements)


def keep_largest(scores: Sequence[Tensor], removed: int, floors: Sequence[int] | None = None) -> list[Tensor]:
    """Masks over several tensors together that remove exactly the smallest scores.

    Args:
        scores: Any shapes; no NaN. `-inf` goes before everything else.
        removed: How many go, of all elements of all tensors.
        floors: How many each tensor keeps at least, the largest of it; none that scores `-inf`.

    Returns:
        Boolean masks in the shapes of `scores`, True where kept. Of equal scores the one that
        comes first goes first: earlier tensor, then lower index.

    Raises:
        BadInput: More must go than the floors allow.

    >>> keep_largest([torch.tensor([3.0, 1.0]), torch.tensor([1.0, 2.0])], 2)
    [tensor([ True, False]), tensor([False,  True])]
    """
    if floors is not None:
        scores = [_protected(tensor, floor) for tensor, floor in zip(scores, floors, strict=True)]
    total = sum(tensor.numel() for tensor in scores)
    free = sum(tensor.numel() - int(torch.isposinf(tensor).sum()) for tensor in scores)
    if removed > free:
        raise BadInput(
            "more weights would go than the layers may lose", found=f"{removed} of {total}", allowed=f"{free} or fewer"
        )
    if removed == 0:
        return [torch.ones_like(tensor, dtype=torch.bool) for tensor in scores]
    flat = np.concatenate([tensor.detach().cpu().numpy().ravel() for tensor in scores])
    flat.partition(removed - 1)  # linear in time, and no indices to keep
    threshold = float(flat[removed - 1])
    ties = removed - int((flat[:removed] < threshold).sum())
    masks = []
    for tensor in scores:
        mask = (tensor > threshold).flatten()
        equal = (tensor == threshold).flatten().nonzero().flatten()
        mask[equal[ties:]] = True
        ties -= min(ties, equal.numel())
        masks.append(mask.view(tensor.shape))
    return masks


def keep_largest_in_rows(scores: Tensor, removed: int) -> Tensor:
    """A mask that removes exactly so many of the smallest scores of every row, ties by index.

    Args:
        scores: `(rows, elements)`; NaN stays.
        removed: 0 to `elements`.

    >>> keep_largest_in_rows(torch.tensor([[3.0, 1.0, 1.0], [0.0, 0.0, 0.0]]), 1).int()
    tensor([[1, 0, 1],
            [0, 1, 1]], dtype=torch.int32)
    """
    if removed == 0 or scores.numel() == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(removed, dim=1, keepdim=True).values
    below, ties = scores < threshold, scores == threshold
    room = removed - below.sum(1, keepdim=True)
    return ~(below | (ties & (ties.cumsum(1) <= room)))


def keep_pattern(scores: Tensor, axis: int, kept: int, group: int) -> Tensor:
    """N:M: of every `group` elements along an axis, the `kept` largest stay.

    Args:
        scores: Any shape whose `axis` is a multiple of `group`.
        axis: The axis along which the elements are neighbours.
        kept: N.
        group: M.
    """
    moved = scores.movedim(axis, -1)
    rows = moved.reshape(-1, group)
    return keep_largest_in_rows(rows, group - kept).reshape(moved.shape).movedim(-1, axis).contiguous()


def parse_pattern(text: str) -> tuple[int, int]:
    """N and M of `"N:M"`.

    >>> parse_pattern("2:4")
    (2, 4)
    """
    parts = text.split(":") if isinstance(text, str) else []
    if len(parts) == 2 and all(part.strip().isdecimal() for part in parts):
        kept, group = int(parts[0]), int(parts[1])
        if 0 < kept <= group:
            return kept, group
    raise BadInput("not an N:M pattern", key="pattern", found=text, allowed="such as '2:4': keep 2 of every 4")


def magnitudes(weight: Tensor) -> Tensor:
    """|w| in float32 or wider.

    Raises:
        BadInput: A weight is NaN or infinite: there is no order.
    """
    scores = weight.detach().abs()
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if not torch.isfinite(scores).all():
        raise BadInput("weights that are NaN or infinite cannot be ranked")
    return scores


def random_scores(shape: Sequence[int], seed: int) -> Tensor:
    """Uniform scores in [0, 1) that depend on the shape and the seed alone, on the CPU."""
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(seed))


def _protected(scores: Tensor, floor: int) -> Tensor:
    """Scores whose `floor` largest finite ones cannot go."""
    alive = scores.numel() - int(torch.isneginf(scores).sum())
    (kept,) = keep_largest([scores], scores.numel() - min(floor, alive))
    return scores.masked_fill(kept, torch.inf)
