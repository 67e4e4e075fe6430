"""The trial run of a resized model: sizes that stand in the model's code show here."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph, Node, Shape, conditional_like, trace
from paretobit.graph.trace import Example


def traced_again(
    graph: ModelGraph, model: nn.Module, outputs: Sequence[Shape], groups: Sequence[str], example: Example | None
) -> ModelGraph:
    """The graph of a resized model, which runs and returns what the old one returned.

    Args:
        graph: Of the old model.
        model: The new one.
        outputs: Shapes of what the old one returned.
        groups: Names of what was resized, for the error.
        example: What to run it on; made from the graph's inputs if it is not given.

    Raises:
        BadInput: It does not run, or returns other shapes; or no example could be made.
    """
    examples = [example] if example is not None else list(_examples(graph))
    for inputs in examples:
        try:
            again = trace(model, inputs)
        except BadInput as error:
            reason = error.problem
        else:
            found = _returned(again)
            if found == sorted(outputs):
                return conditional_like(again, graph)
            reason = f"it returns {found}, not {sorted(outputs)}"
        if _runs(graph, inputs, outputs):
            raise BadInput(
                f"the resized model does not work: a size stands in the model's code ({reason})", key=", ".join(groups)
            )
    raise BadInput("no inputs for a trial run could be made from the graph: give an example", key="example")


def _runs(graph: ModelGraph, inputs: Example, outputs: Sequence[Shape]) -> bool:
    """Whether the old model takes these inputs."""
    try:
        return _returned(trace(graph.model, inputs)) == sorted(outputs)
    except BadInput:
        return False


def _returned(graph: ModelGraph) -> list[Shape]:
    return sorted(s for node in graph if node.kind == "output" for s in node.input_shapes if s is not None)


def _examples(graph: ModelGraph) -> Iterator[Mapping[str, Tensor]]:
    """Inputs of the graph's shapes: as their first users need them, all numbers, all indices."""
    inputs = [node for node in graph if node.kind == "placeholder"]
    if any(len(node.output_shapes) != 1 for node in inputs):
        return
    names = list(inspect.signature(graph.model.forward).parameters)
    arguments = [_argument(node.name, names) for node in inputs]
    if None in arguments:
        return
    floating = next((p for p in graph.model.parameters() if p.is_floating_point()), torch.zeros(()))
    seen: list[list[bool]] = []
    for indices in ([_is_index(graph, node) for node in inputs], [False] * len(inputs), [True] * len(inputs)):
        if indices in seen:
            continue
        seen.append(indices)
        yield {
            str(name): torch.zeros(
                node.output_shapes[0], dtype=torch.long if index else floating.dtype, device=floating.device
            )
            for name, node, index in zip(arguments, inputs, indices, strict=True)
        }


def _argument(name: str, names: Sequence[str]) -> str | None:
    """The argument of `forward` that an input is; fx appends numbers to names that Python has itself."""
    bare = re.sub(r"_\d+$", "", name)
    return next((n for n in (name, bare) if n in names), None)


def _is_index(graph: ModelGraph, node: Node) -> bool:
    return any(node.name in user.inputs and user.op == "embedding" for user in graph)
