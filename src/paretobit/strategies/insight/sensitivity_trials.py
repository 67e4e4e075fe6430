"""What sensitivity tries: one node of a copy of the model, and the formats to set there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import nn

from paretobit.errors import BadInput
from paretobit.formats import FULL, Format, ScaledInteger
from paretobit.graph import ModelGraph, Node
from paretobit.graph.operations import row_of
from paretobit.nn import Quantized, TensorCache, instrument_at, parameter_uses
from paretobit.passes.layers.quantizable import function_name, is_function, slots_at, unsupported, why_not
from paretobit.passes.layers.selection import By, path_of, select
from paretobit.passes.streaming import Noise
from paretobit.strategies.insight.alone import Change

Slots = Literal["weight", "data", "both"]


@dataclass(eq=False)
class Trial:
    """One layer or function of the copy with other formats, and what that does, summed over batches.

    Attributes:
        node: Of the graph.
        change: To the copy.
        candidate: The format, as it was given.
        called: Whether the layer ran.
        layer_noise: At its output.
        model_noise: At the model's.
        loss: Of the model.
    """

    node: Node
    change: Change
    candidate: Format
    called: bool = False
    layer_noise: Noise = field(default_factory=Noise)
    model_noise: Noise = field(default_factory=Noise)
    loss: float = 0.0

    @property
    def name(self) -> str:
        """As the list of what was skipped calls it."""
        return f"{self.node.name} in {self.candidate} ({', '.join(self.change.formats)})"


def make_trials(
    graph: ModelGraph,
    model: nn.Module,
    formats: Sequence[Format],
    slots: Sequence[Slots],
    by: By,
    keys: Sequence[str] | None,
) -> tuple[list[Trial], dict[str, str]]:
    """Everything to try on a copy of a graph's model; what is touched is instrumented, in full precision.

    Without keys those are the layers, and the functions that multiply; with keys, what they mean.

    Returns:
        The trials, and the nodes that are left out, with the reason.

    Raises:
        BadInput: A key matches nothing, or nothing can be quantised.
    """
    for module in model.modules():
        if isinstance(module, Quantized):
            module.set_slots({})
    nodes, skipped = _chosen(graph, by, keys)
    cache = TensorCache()
    trials: list[Trial] = []
    for node in nodes:
        if not slots_at(graph, node):
            skipped[node.name] = why_not(graph, node) or f"a {node.op} computes nothing to quantise"
            continue
        distinct: list[Mapping[str, Format]] = [{}]
        for candidate, which in ((f, w) for f in formats for w in slots):
            settings = _settings(graph, node, candidate, which)
            if settings not in distinct:
                distinct.append(settings)
                layer = instrument_at(model, path_of(node), cache, function_name, node.place)
                trials.append(Trial(node, Change(layer, settings), candidate))
        if len(distinct) == 1:
            skipped[node.name] = f"a {node.op} has no such slot"
    if not trials:
        raise BadInput("nothing that can be quantised", key="keys", found=[node.name for node in nodes])
    return trials, skipped


def for_data(number_format: Format) -> Format:
    """What stands for a candidate in a data slot: one scale a tensor where weights have one a channel."""
    per_channel = isinstance(number_format, ScaledInteger) and number_format.per == "channel"
    if per_channel and number_format.parameters["axis"] is None:
        return replace(number_format, per="tensor")  # type: ignore[call-arg]
    return number_format


def _chosen(graph: ModelGraph, by: By, keys: Sequence[str] | None) -> tuple[list[Node], dict[str, str]]:
    """The nodes to look at, in order of execution, and of the others those that might have been meant."""
    if keys is not None:
        names = {node.name for key in keys for node in select(graph, by, key, functions=True)}
        return [node for node in graph if node.name in names], {}
    layers = {node.name for node in graph.layers if slots_at(graph, node)}
    functions = [node for node in graph if is_function(node)]
    products = {node.name for node in functions if row_of(node.op).is_product}
    skipped = {
        node.name: f"the function {node.op} is tried where a key names it"
        for node in functions
        if node.name not in products
    }
    return [node for node in graph if node.name in layers | products], skipped | unsupported(graph)


def _settings(graph: ModelGraph, node: Node, candidate: Format, which: Slots) -> dict[str, Format]:
    """The formats of the slots that are meant; a bias is not."""
    settings = {}
    for slot in slots_at(graph, node):
        is_data = slot == "data_in"
        if slot != "bias" and which in ("both", "data" if is_data else "weight"):
            settings[slot] = candidate if _is_stored(graph, node, slot) else for_data(candidate)
    return {slot: f for slot, f in settings.items() if f is not FULL}


def _is_stored(graph: ModelGraph, node: Node, slot: str) -> bool:
    """Whether a parameter goes through a slot, not what the model computed."""
    return any(use.slot == slot for use in parameter_uses(graph).at(path_of(node)))
