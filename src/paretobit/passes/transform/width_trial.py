"""The trial run of a resized model: it runs, returns what the old one returned, and with net2wider the same."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph, Shape, at_rest, conditional_like, trace
from paretobit.graph.trace import Example, _arguments
from paretobit.graph.width_runs import example_of

_AS_MANY_AS_DATA_SAYS = ("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive")
"""Operations whose results have shapes that depend on values."""


def traced_again(
    graph: ModelGraph,
    model: torch.nn.Module,
    outputs: Sequence[Shape],
    groups: Sequence[str],
    example: Example | None,
    *,
    same: bool,
) -> ModelGraph:
    """The graph of a resized model, which runs and returns what the old one returned.

    Args:
        graph: Of the old model.
        model: The new one.
        outputs: Shapes of what the old one returned.
        groups: Names of what was resized, for the error.
        example: What to run it on; what the graph was traced on if it is not given.
        same: Whether the new model has to compute the same function.

    Raises:
        BadInput: It does not run, or returns other shapes or values.
    """
    inputs = example_of(graph) if example is None else example
    names = ", ".join(groups)
    try:
        again = trace(model, inputs)
    except BadInput as error:
        raise BadInput(f"the resized model does not work: {error.problem}", key=names) from error
    found, expected = sorted(_returned(again)), sorted(outputs)
    if any(node.op in _AS_MANY_AS_DATA_SAYS for node in graph):
        found, expected = ([tuple(0 for _ in shape) for shape in shapes] for shapes in (found, expected))
    if found != expected:
        raise BadInput(f"the resized model does not work: it returns {found}, not {expected}", key=names)
    if same and (apart := _apart(graph.model, model, inputs)):
        raise BadInput(f"net2wider does not keep the function: an output changes by {apart:.1%}", key=names)
    return conditional_like(again, graph)


def _returned(graph: ModelGraph) -> list[Shape]:
    return [s for node in graph if node.kind == "output" for s in node.input_shapes if s is not None]


def _apart(old: torch.nn.Module, new: torch.nn.Module, example: Example) -> float:
    """The largest change of an output, of its largest value; zero where it is no more than rounding."""
    worst = 0.0
    for before, after in zip(_outputs(old, example), _outputs(new, example), strict=False):
        if before.shape != after.shape or not before.is_floating_point() or not before.numel():
            continue
        change = (before - after).abs().nan_to_num(0, 0, 0).max() / before.abs().nan_to_num(0, 0, 0).max()
        if float(change) > 4 * torch.finfo(before.dtype).eps ** 0.5:
            worst = max(worst, float(change))
    return worst


@torch.no_grad()
def _outputs(model: torch.nn.Module, example: Example) -> list[Tensor]:
    args, kwargs = _arguments(example)
    with at_rest(model), torch.random.fork_rng():
        torch.manual_seed(0)
        result = model(*args, **kwargs)
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
