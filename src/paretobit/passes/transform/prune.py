"""Prune: weights that become zero and stay so, and inputs that become zero at run time."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from paretobit.errors import BadInput, under
from paretobit.graph import Example, ModelGraph
from paretobit.graph.copies import copy_of
from paretobit.nn.masks import masks_in, set_mask, zeros_in
from paretobit.passes.registry import PASSES
from paretobit.passes.taking import takes
from paretobit.passes.transform.prune_activation import InputPruning, set_input_pruning
from paretobit.passes.transform.prune_channels import channel_masks, ranked_layers
from paretobit.passes.transform.prune_layers import input_norms, prunable, untouched
from paretobit.passes.transform.prune_settings import PRUNE_TABLE, PruneSettings, WeightPruning, read_settings
from paretobit.passes.transform.prune_weights import Chosen, Masks, chosen_layers, weight_masks


def prune(
    graph: ModelGraph, settings: PruneSettings, batches: Iterable[Example] | None = None
) -> tuple[ModelGraph, dict[str, Any]]:
    """A copy of the graph with masks on its weights and hooks on its inputs.

    A quantised layer quantises what the masks left, so zeros stay zero in every format that has one.

    Args:
        graph: The model; it is left as it was.
        settings: What goes.
        batches: Inputs as `trace` takes them, for the method `activation-aware`.

    Returns:
        The new graph, and what became of its layers: see `pruned_info`.

    Raises:
        BadInput: Nothing matches, or what is asked for cannot be.
    """
    chosen = Chosen({})
    model = copy_of(graph.model)
    inputs: dict[str, InputPruning] = {}
    if settings.weight is not None:
        with under("weight"):
            chosen = masks_for(graph, settings.weight, batches)
        apply_masks(model, chosen.masks)
    if settings.activation is not None:
        with under("activation"):
            nodes = settings.activation.choice.nodes(graph)
        inputs = {node.owner: settings.activation.inputs for node in nodes}
        for path, pruning in inputs.items():
            set_input_pruning(model.get_submodule(path), pruning)
    return graph.with_model(model), pruned_info(graph.with_model(model), chosen, inputs)


@PASSES.register("prune", summary="zeros in weights, and in inputs at run time: L1, random or activation-aware")
@takes(PRUNE_TABLE)
def prune_pass(
    graph: ModelGraph, table: Mapping[str, Any], batches: Iterable[Example] | None = None
) -> tuple[ModelGraph, dict[str, Any]]:
    """`prune` with the keys of a `[passes.prune]` table: those of `weight`, or `weight` and `activation`."""
    settings = read_settings(table)
    try:
        return prune(graph, settings, batches)
    except BadInput as error:
        if "weight" not in table and error.key is not None:  # its keys stand in the table itself
            error.key = error.key.removeprefix("weight.")
        raise


def masks_for(graph: ModelGraph, settings: WeightPruning, batches: Iterable[Example] | None = None) -> Chosen:
    """The masks that settings ask for, of single weights or whole channels; nothing is changed."""
    norms = None
    if settings.method == "activation-aware" and batches is not None:
        channel = settings.granularity == "channel"
        nodes = ranked_layers(graph, settings) if channel else list(chosen_layers(graph, settings))
        norms = input_norms(graph, nodes, batches)
    make = channel_masks if settings.granularity == "channel" else weight_masks
    return make(graph, settings, norms)


def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Mask parameters of a model, in place."""
    for path, named in masks.items():
        for name, mask in named.items():
            set_mask(model.get_submodule(path), mask, name)


def pruned_info(graph: ModelGraph, chosen: Chosen, inputs: Mapping[str, InputPruning]) -> dict[str, Any]:
    """What became of the layers of a pruned graph, JSON-able.

    Returns:
        `layers`: path to `elements`, `zeros` (exact, of the weight) and `sparsity` of every masked
        layer; the same three over all of them; `removed`: how many weights masks hold at zero;
        `empty`: layers of which nothing is left; `dense`: node or width group to reason, of those
        chosen and left as they are; `untouched`: node to reason, of those not chosen; `activation`:
        path to settings.
    """
    layers: dict[str, dict[str, Any]] = {}
    removed = 0
    for path in chosen.masks:
        module = graph.model.get_submodule(path)
        if prunable(module) and "weight" in chosen.masks[path]:
            weight = module.get_parameter("weight")
            layers[path] = _row(weight.numel(), zeros_in(weight))
            removed += int((~masks_in(module)["weight"]).sum())
    totals = [sum(row[key] for row in layers.values()) for key in ("elements", "zeros")]
    left = untouched(graph, {*chosen.masks, *inputs})
    return {
        "layers": layers,
        **_row(*totals),
        "removed": removed,
        "empty": [path for path, row in layers.items() if row["zeros"] == row["elements"]],
        "dense": dict(chosen.dense),
        "untouched": {name: reason for name, reason in left.items() if name not in chosen.dense},
        "activation": {path: {**vars(pruning)} for path, pruning in inputs.items()},
    }


def _row(elements: int, zeros: int) -> dict[str, Any]:
    return {"elements": elements, "zeros": zeros, "sparsity": zeros / elements if elements else 0.0}
