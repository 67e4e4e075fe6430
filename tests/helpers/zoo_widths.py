"""What a model's width groups promise, tried: resized alone and together, and widened with the same function."""

import copy
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph, trace, width_groups
from paretobit.graph.widths import WidthGroups
from paretobit.passes.transform.channel_multiplier import scaled
from paretobit.passes.transform.inherit import resize

MULTIPLIERS = (Fraction(1, 2), Fraction(3, 2), Fraction(2))


def check_widths(model: nn.Module, inputs: Mapping[str, Any], *, alone: bool = False) -> dict[str, Any]:
    """One row of a table: groups, why some are frozen, and what resizing did at each multiplier.

    Args:
        model: The model.
        inputs: Its keyword arguments.
        alone: Whether every group is also resized by itself.

    Returns:
        `groups`, `free`, `frozen` (name to reason), and under `x1/2`, `x3/2`, `x2`, `mixed` and `net2wider`
        the word `ok`, `-` where nothing is free, or the error.
    """
    graph = trace(model, dict(inputs))
    groups = width_groups(graph)
    free = {group.name: group for group in groups.free}
    row: dict[str, Any] = {
        "method": graph.method,
        "groups": len(groups),
        "free": len(free),
        "frozen": {group.name: group.frozen for group in groups if group.frozen},
    }
    expected = _shapes(model, inputs)
    for multiplier in MULTIPLIERS:
        widths = {name: scaled(group, multiplier) for name, group in free.items()}
        row[f"x{multiplier}"] = _tried(lambda w=widths: _resized(graph, groups, w, inputs, expected)) if free else "-"
    mixed = {name: scaled(g, MULTIPLIERS[k % 3]) for k, (name, g) in enumerate(free.items())}
    row["mixed"] = _tried(lambda: _resized(graph, groups, mixed, inputs, expected)) if free else "-"
    for name, group in free.items() if alone else ():
        widths = {name: scaled(group, Fraction(2))}
        row[f"alone {name}"] = _tried(lambda w=widths: _resized(graph, groups, w, inputs, expected))
    doubled = {name: 2 * group.width for name, group in free.items()}
    row["net2wider"] = _tried(lambda: _same_function(graph, groups, doubled, inputs)) if free else "-"
    return row


def _tried(check: Callable[[], str]) -> str:
    try:
        return check()
    except BadInput as error:
        return f"refused: {error}"
    except Exception as error:  # a row of the table, whatever happens
        return f"ERROR {type(error).__name__}: {error}"


def _resized(
    graph: ModelGraph, groups: WidthGroups, widths: Mapping[str, int], inputs: Mapping[str, Any], expected: Any
) -> str:
    new = resize(graph, widths, groups=groups, example=dict(inputs))
    found = _shapes(new.model, inputs)
    if any(node.op == "nonzero" for node in graph):  # as many results as the data says
        found, expected = ([len(shape) for shape in shapes] for shapes in (found, expected))
    return "ok" if found == expected else f"shapes {found}, not {expected}"


def _same_function(graph: ModelGraph, groups: WidthGroups, widths: Mapping[str, int], inputs: Mapping[str, Any]) -> str:
    new = resize(graph, widths, "net2wider", groups=groups, example=dict(inputs))
    try:
        pairs = [_outputs(copy.deepcopy(m).double(), inputs, torch.float64) for m in (graph.model, new.model)]
        limit = 1e-5
    except RuntimeError:  # an operation that has no float64
        pairs, limit = [_outputs(m, inputs) for m in (graph.model, new.model)], 1e-3
    worst = max((_difference(a, b) for a, b in zip(*pairs, strict=True)), default=0.0)
    return "ok" if worst < limit else f"DIFFERS by {worst:.2g}"


def _difference(a: Tensor, b: Tensor) -> float:
    if not a.is_floating_point():
        return float((a != b).any())
    both = torch.isfinite(a) & torch.isfinite(b)
    return float(((a - b).abs() / (1 + a.abs()))[both].max()) if both.any() else 0.0


def _outputs(model: nn.Module, inputs: Mapping[str, Any], dtype: torch.dtype | None = None) -> list[Tensor]:
    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() and dtype else value

    torch.manual_seed(0)
    with torch.no_grad():
        result = model.eval()(**{name: copy.copy(cast(value)) for name, value in inputs.items()})
    result = {k: v for k, v in result.items() if k != "past_key_values"} if isinstance(result, Mapping) else result
    return [leaf for leaf in tree_leaves(_plain(result)) if isinstance(leaf, Tensor)]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _shapes(model: nn.Module, inputs: Mapping[str, Any]) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in _outputs(model, inputs)]
