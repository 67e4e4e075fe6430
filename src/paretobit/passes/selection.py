"""Which layers a key of a configuration means: by type, by name, or by regular expression."""

from __future__ import annotations

import re
from typing import Literal, get_args

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph, Node, op_name

By = Literal["type", "name", "regex"]


def select(graph: ModelGraph, by: By, key: str) -> tuple[Node, ...]:
    """Layers that `key` means, in order of execution, at least one.

    Args:
        graph: Where to look.
        by: `type` takes operations (`linear`) or classes (`Linear`), `name` takes node names
            (`seq_blocks_2`) or paths (`seq_blocks.2`), `regex` must match a whole name or path.
        key: What to look for.

    Raises:
        BadInput: Nothing matches; the names that would have are listed.
    """
    if by not in get_args(By):
        raise BadInput("unknown way to choose layers", key="by", found=by, allowed=get_args(By))
    layers = graph.layers
    if by == "type":
        wanted = _folded(key)
        found = tuple(n for n in layers if wanted in (_folded(n.op), _folded(graph.original_type(n))))
        allowed = sorted({node.op for node in layers})
    elif by == "name":
        found = tuple(node for node in layers if key in (node.name, node.owner))
        allowed = [node.name for node in layers]
    else:
        pattern = _compiled(key)
        found = tuple(n for n in layers if pattern.fullmatch(n.name) or pattern.fullmatch(n.owner))
        allowed = [node.name for node in layers]
    if not found:
        raise BadInput(f"no layer of the model has this {_NOUN[by]}", found=key, allowed=allowed)
    return found


_NOUN = {"type": "type", "name": "name", "regex": "pattern"}


def _folded(name: str) -> str:
    return op_name(name).replace("_", "")


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise BadInput(f"not a regular expression: {error}", found=pattern) from None
