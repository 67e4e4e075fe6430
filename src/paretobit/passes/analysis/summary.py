"""What a graph contains, what a quantisation changed, and the proof that weights are quantised."""

from collections import Counter
from dataclasses import dataclass

from paretobit.formats import FULL
from paretobit.graph import Kind, ModelGraph
from paretobit.nn import Quantized

KINDS: tuple[Kind, ...] = ("placeholder", "get_attr", "call_function", "call_method", "call_module", "output")


@dataclass(frozen=True)
class GraphReport:
    """Nodes per kind, and the printed form of every layer in order of execution."""

    kinds: dict[Kind, int]
    layers: tuple[str, ...]
    untraced: str | None


@dataclass(frozen=True)
class TypeSummary:
    """How many nodes of one type a quantisation changed."""

    original_type: str
    op: str
    total: int
    changed: int

    @property
    def unchanged(self) -> int:
        """Nodes at full precision."""
        return self.total - self.changed


@dataclass(frozen=True)
class LayerComparison:
    """One layer before and after.

    `distinct_weights` counts the different values of the weight as the layer uses it, `max_error`
    is the largest absolute difference to the original; both None for layers without a weight.
    """

    node: str
    before: str
    after: str
    distinct_before: int | None
    distinct_weights: int | None
    max_error: float | None

    @property
    def changed(self) -> bool:
        """Whether the layer carries formats."""
        return self.before != self.after


def report_graph(graph: ModelGraph) -> GraphReport:
    """Count the nodes of each kind and list the layers."""
    counts = Counter(node.kind for node in graph)
    layers = tuple(repr(graph.module(node)) for node in graph.nodes if node.kind == "call_module")
    return GraphReport({kind: counts[kind] for kind in KINDS}, layers, graph.untraced)


def summarize_quantization(graph: ModelGraph) -> tuple[TypeSummary, ...]:
    """The table `Original type | OP | Total | Changed | Unchanged`, sorted by type."""
    total: Counter[tuple[str, str]] = Counter()
    changed: Counter[tuple[str, str]] = Counter()
    for node in graph:
        key = (graph.original_type(node), node.op)
        total[key] += 1
        if node.kind == "call_module":
            module = graph.module(node)
            changed[key] += isinstance(module, Quantized) and any(f is not FULL for f in module.slots.values())
    return tuple(TypeSummary(*key, total[key], changed[key]) for key in sorted(total))


def compare(before: ModelGraph, after: ModelGraph) -> tuple[LayerComparison, ...]:
    """Walk two graphs of the same model side by side."""
    rows = []
    for old, new in zip(before.layers, after.layers, strict=True):
        old_module, new_module = before.module(old), after.module(new)
        weight = getattr(old_module, "weight", None)
        used = getattr(new_module, "weight", None)
        if used is not None and isinstance(new_module, Quantized):
            used = new_module.parameter("weight")
        error = None
        if weight is not None and used is not None and used.shape == weight.shape:
            error = (used - weight).abs().max().item()
        rows.append(
            LayerComparison(
                node=old.name,
                before=repr(old_module),
                after=repr(new_module),
                distinct_before=None if weight is None else weight.unique().numel(),
                distinct_weights=None if used is None else used.unique().numel(),
                max_error=error,
            )
        )
    return tuple(rows)
