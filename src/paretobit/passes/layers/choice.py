"""Which layer takes which entry: by key, first and last with entries of their own, some left out."""

from collections.abc import Iterable, Sequence

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph, Node
from paretobit.passes.layers.quantizable import (
    check_slots,
    has_weights,
    possible_slots_at,
    reads_weights,
    slots_at,
    why_not,
)
from paretobit.passes.layers.selection import By, candidates, compiled, path_of, select

FIRST, LAST = "first", "last"


class LayerChoice:
    """The layers and functions of a model, handed out to the entries of a configuration, each once.

    Args:
        graph: The model.
        by: How keys choose.
        skip: Names, paths (of a layer, a function, or of all within a module) or patterns of what
            stays float whatever a key says.
        ends: `first` and `last`: the first and the last layer with weights that are multiplied or
            looked up takes an entry of its own, not that of its type or of a pattern.

    Attributes:
        left: Name of each node that a type or pattern matches and that cannot take the entry, and why.

    Raises:
        BadInput: What is to be skipped matches nothing, or there is no layer with weights.
    """

    def __init__(self, graph: ModelGraph, by: By, skip: Sequence[str] = (), ends: Iterable[str] = ()) -> None:
        self._graph, self._by = graph, by
        self._taken: dict[str, str] = {}
        self._skipped = {path_of(node): text for text in skip for node in _skipped(graph, text)}
        self.left: dict[str, str] = {}
        self._ends = {path_of(self._end(end)): end for end in ends}

    def end(self, end: str) -> Node:
        """The first or last layer with weights.

        Raises:
            BadInput: It is taken, or skipped.
        """
        node = self._end(end)
        if path_of(node) in self._skipped:
            raise BadInput(f"layer '{node.name}' is to be skipped and is the {end} with weights")
        self._take(node, end)
        return node

    def by_key(self, key: str, written: Iterable[str]) -> tuple[Node, ...]:
        """What a key means, at least one.

        Args:
            key: As in `select`.
            written: Slots that the entry names and that the operation must have.

        Raises:
            BadInput: Nothing matches, what matches cannot be quantised, has no such slot, or is taken.
        """
        written = tuple(written)
        nodes = select(self._graph, self._by, key, functions=True)
        if self._by != "name":
            nodes = self._always_called(nodes)
        kept = tuple(node for node in nodes if self._is_free(node))
        if not kept:
            raise BadInput("everything this key means is skipped, or is first or last", found=key)
        if self._by != "name":
            kept = self._able(kept, written)
        for node in kept:
            check_slots(self._graph, node, written)
            self._take(node, key)
        return kept

    def rest(self) -> tuple[Node, ...]:
        """What can be quantised and nothing else chose: layers, and functions that read weights as layers do."""
        able = (n for n in candidates(self._graph, functions=True) if slots_at(self._graph, n))
        free = (n for n in able if n.kind == "call_module" or reads_weights(self._graph, n))
        return tuple(n for n in free if path_of(n) not in {*self._taken, *self._skipped, *self._ends})

    def _is_free(self, node: Node) -> bool:
        path = path_of(node)
        if self._by == "name":
            if path in self._skipped:
                raise BadInput(f"layer '{node.name}' is named and is to be skipped", found=self._skipped[path])
            if path in self._ends:
                raise BadInput(f"layer '{node.name}' is chosen twice", found=[self._ends[path], node.name])
        return path not in self._skipped and path not in self._ends

    def _take(self, node: Node, key: str) -> None:
        path = path_of(node)
        if path in self._taken:
            raise BadInput(f"layer '{node.name}' is chosen twice", found=[self._taken[path], key])
        self._taken[path] = key

    def _always_called(self, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        """Those that every run calls; all where none are."""
        sometimes = {node.name: why for node in nodes if (why := self._graph.conditional.get(path_of(node)))}
        kept = tuple(node for node in nodes if node.name not in sometimes)
        self.left.update(sometimes if kept else {})
        return kept or nodes

    def _able(self, nodes: tuple[Node, ...], written: tuple[str, ...]) -> tuple[Node, ...]:
        """Those that can be quantised, and of a pattern's functions those with the slots; all where none can."""
        able: list[Node] = []
        left: dict[str, str] = {}
        for node in nodes:
            absent = [slot for slot in written if slot not in possible_slots_at(self._graph, node)]
            reason = why_not(self._graph, node)
            if not slots_at(self._graph, node):
                left |= {node.name: reason} if reason is not None else {}
            elif absent and node.kind != "call_module" and self._by == "regex":
                left[node.name] = f"the function {node.op} has no slot '{absent[0]}'"
            else:
                able.append(node)
        if able:
            self.left |= left
        return tuple(able) or nodes

    def _end(self, end: str) -> Node:
        layers = [node for node in self._graph.layers if has_weights(self._graph, node)]
        if not layers:
            raise BadInput("the model has no layer with weights to multiply", key=end)
        return layers[0 if end == FIRST else -1]

    @property
    def skipped(self) -> frozenset[str]:
        """Paths of what stays float whatever a key says."""
        return frozenset(self._skipped)


def _skipped(graph: ModelGraph, text: str) -> tuple[Node, ...]:
    """What a text leaves out: nothing where it is a module that calls nothing which could be quantised."""
    others = {name for node in graph if node.is_call for name in (node.name, path_of(node))}
    modules = {path for path, _ in graph.model.named_modules(remove_duplicate=False) if path}
    try:
        return meant(graph, text, "skip")
    except BadInput:
        if text in others | modules:
            return ()
        raise


REGEX = "regex:"
"""Before a text that is a pattern and no name."""


def meant(graph: ModelGraph, text: str, key: str) -> tuple[Node, ...]:
    """The layers and functions that a text means, at least one.

    Args:
        graph: The model.
        text: A name or a path, the path of a module for all within it, or a pattern, which `regex:` may
            precede.
        key: Where the text stands, for messages.

    Raises:
        BadInput: It means nothing.
    """
    nodes = candidates(graph, functions=True)
    found = [n for n in nodes if text in (n.name, path_of(n)) or path_of(n).startswith(text + ".")]
    if not found:
        pattern = compiled(text.removeprefix(REGEX), key)
        found = [n for n in nodes if pattern.fullmatch(n.name) or pattern.fullmatch(path_of(n))]
    if not found:
        allowed = [node.name for node in nodes]
        raise BadInput("no layer of the model has this name", key=key, found=text, allowed=allowed)
    return tuple(found)
