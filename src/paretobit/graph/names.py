"""Names of nodes, and of the sites of functions: each means one operation."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from torch import nn

from paretobit.graph.model_graph import Node, Ref, filled
from paretobit.graph.operations import OPERATIONS
from paretobit.graph.places import counted

Calls = Mapping[tuple[str, str, str], str]
"""Caller, operation and place to the name of the site that a model has there."""


class Names:
    """Unique names: the second use of `a` becomes `a_1`.

    Args:
        owners: Names that only one node may take, and which; None: no node.
    """

    def __init__(self, owners: Mapping[str, Node | None] = MappingProxyType({})) -> None:
        self._taken: set[str] = set()
        self._owners = owners

    def unique(self, name: str, node: Node | None = None) -> str:
        """`name`, or the first free name after it that this node may take."""
        candidates = (f"{name}_{i}" if i else name for i in itertools.count())
        chosen = next(c for c in candidates if c not in self._taken and self._owners.get(c, node) is node)
        self._taken.add(chosen)
        return chosen


def node_name(path: str) -> str:
    """A module's path as a node's name: dots as underscores."""
    return path.replace(".", "_")


def with_sites(nodes: Iterable[Node], model: nn.Module) -> tuple[Node, ...]:
    """Nodes that know their site, are named after it, and whose place has its count.

    Functions are numbered by caller and operation, in order of execution; a site that the model has
    at a place keeps its name.
    """
    used: Counter[tuple[str, str]] = Counter()
    at: Counter[tuple[str, str, str]] = Counter()
    there = _sites_of(model)
    result = []
    for node in nodes:
        site, place = node.owner if node.kind == "call_module" else "", ""
        if node.kind in ("call_function", "call_method") and node.output_shapes:
            if node.place and OPERATIONS.operands(node.op):
                call = (node.owner, node.op, node.place)
                place = counted(node.place, at[call])
                at[call] += 1
            site = _site(model, node, place, used, there)
        result.append(replace(node, site=site, place=place))
    return named_by_site(result, model)


def _site(model: nn.Module, node: Node, place: str, used: Counter[tuple[str, str]], there: Calls) -> str:
    """The site that the model has at a place; else the next number that means nothing else of the caller's."""
    known = there.get((node.owner, node.op, place))
    if known is not None:
        return known
    caller = model.get_submodule(node.owner)
    functions = OPERATIONS.operands(node.op)
    while True:
        number = used[node.owner, node.op]
        used[node.owner, node.op] += 1
        names = itertools.chain([f"{node.op}_{number}" if number else node.op], _padded(node.op, number))
        name = next(n for n in names if not (_has(caller, n) if functions else n in caller._modules))
        if not getattr(caller._modules.get(name), "place", ""):
            return f"{node.owner}.{name}" if node.owner else name


def _padded(op: str, number: int) -> Iterable[str]:
    """The same number, written longer: `mul_0` for the first product of a caller with a layer `mul`."""
    return (f"{op}_{number:0{digits}}" for digits in itertools.count(len(str(number)) + bool(number)))


def _has(caller: nn.Module, name: str) -> bool:
    return hasattr(caller, name) and not _is_site(getattr(caller, name))


def _is_site(module: Any) -> bool:
    return isinstance(module, nn.Module) and hasattr(module, "place") and hasattr(module, "slot_names")


def _sites_of(model: nn.Module) -> Calls:
    found = {}
    for path, module in model.named_modules():
        if _is_site(module) and module.place:
            found[path.rpartition(".")[0], str(module.op), str(module.place)] = path
    return found


def named_by_site(nodes: Iterable[Node], model: nn.Module) -> tuple[Node, ...]:
    """Nodes named after their sites; no name is another node's, nor the path of anything else."""
    nodes = tuple(nodes)
    owners: dict[str, Node | None] = {node.name: node for node in nodes if node.kind == "placeholder"}
    for node in nodes:
        owners.setdefault(_path(node), node)
    for path, _ in model.named_modules(remove_duplicate=False):
        owners.setdefault(path, None)
    for node in nodes:
        owners.setdefault(node_name(_path(node)), node)
    names = Names(owners)
    new = {node.name: names.unique(node_name(_path(node)) or node.name, node) for node in nodes}

    def put(ref: Ref) -> Ref:
        return replace(ref, node=new[ref.node])

    return tuple(
        replace(
            node,
            name=new[node.name],
            inputs=tuple(new[source] for source in node.inputs),
            args=filled(node.args, Ref, put),
            kwargs=filled(node.kwargs, Ref, put),
        )
        for node in nodes
    )


def _path(node: Node) -> str:
    return node.owner if node.kind == "call_module" else node.site
