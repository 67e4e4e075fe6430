"""Which layers a key of a configuration means: by type, by name, or by regular expression."""

import re
from typing import Literal, get_args

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph, Node, op_name
from paretobit.passes.layers.quantizable import is_function

By = Literal["type", "name", "regex"]


def select(graph: ModelGraph, by: By, key: str, functions: bool = False) -> tuple[Node, ...]:
    """Layers that `key` means, in order of execution, at least one.

    Args:
        graph: Where to look.
        by: `type` takes operations (`linear`) or classes (`Linear`), `name` takes node names
            (`seq_blocks_2`) or paths (`seq_blocks.2`), `regex` must match a whole name or path.
        key: What to look for.
        functions: Whether functions that can be quantised count as layers; their path is their site.

    Raises:
        BadInput: Nothing matches; the names that would have are listed.
    """
    if by not in get_args(By):
        raise BadInput("unknown way to choose layers", key="by", found=by, allowed=get_args(By))
    nodes = candidates(graph, functions)
    if by == "type":
        wanted = _folded(key)
        found = tuple(node for node in nodes if wanted in _types(graph, node))
        allowed = sorted({node.op for node in nodes})
    elif by == "name":
        found = tuple(node for node in nodes if key in (node.name, path_of(node)))
        allowed = [node.name for node in nodes]
    else:
        pattern = compiled(key)
        found = tuple(n for n in nodes if pattern.fullmatch(n.name) or pattern.fullmatch(path_of(n)))
        allowed = [node.name for node in nodes]
    if not found:
        if by == "name" and functions:
            _refuse_function(graph, key)
        raise BadInput(f"no layer of the model has this {_NOUN[by]}", found=key, allowed=allowed)
    return found


def candidates(graph: ModelGraph, functions: bool = False) -> tuple[Node, ...]:
    """The layers and on demand the functions that can be quantised, in order of execution, each layer once."""
    layers = {node.name for node in graph.layers}
    return tuple(n for n in graph if n.name in layers or (functions and is_function(n)))


def path_of(node: Node) -> str:
    """The path of a layer, the site of a function: where its formats are set."""
    return node.owner if node.kind == "call_module" else node.site


_NOUN = {"type": "type", "name": "name", "regex": "pattern"}


def _refuse_function(graph: ModelGraph, key: str) -> None:
    """A function that was named and cannot be meant is there all the same."""
    for node in graph:
        if node.kind in ("call_function", "call_method") and key in (node.name, node.site):
            raise BadInput(f"'{key}' is the function {node.op}, which cannot be quantised")


def _types(graph: ModelGraph, node: Node) -> set[str]:
    """What the type of a node goes by."""
    own = {_folded(node.op)}
    return own | {_folded(graph.original_type(node))} if node.kind == "call_module" else own


def _folded(name: str) -> str:
    return op_name(name).replace("_", "")


def compiled(pattern: str, key: str | None = None) -> re.Pattern[str]:
    """A regular expression that a user wrote, under a key.

    Raises:
        BadInput: It is none.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise BadInput(f"not a regular expression: {error}", key=key, found=pattern) from None
