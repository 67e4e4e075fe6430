"""A traced model as steps that can be run one by one, with the results of earlier ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from paretobit.graph.faithful import Writers
from paretobit.graph.model_graph import ModelGraph, Node, filled
from paretobit.graph.places import uncounted
from paretobit.graph.trace import _fixed_arguments, _Tracer, _without_sites, at_rest


@dataclass(frozen=True)
class Result:
    """In the place of an argument: the result of an earlier step."""

    step: int


@dataclass(frozen=True)
class Instruction:
    """One operation of a model.

    Attributes:
        node: What the graph says of it.
        target: Path of the module or attribute, the function, or the name of the method.
        args: Positional arguments, a `Result` in the place of each result, in lists and tables too.
        kwargs: Named arguments, likewise.
        in_place: Whether it writes its result into its first argument.
    """

    node: Node
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    in_place: bool


def steps_of(graph: ModelGraph, model: nn.Module, example: Tensor) -> tuple[Instruction, ...] | None:
    """The steps of a model that is called with one tensor, in order of execution.

    A step whose argument was written into takes the result of who wrote last.

    Args:
        graph: Of a model with the same modules.
        model: The same, or transformed; left as it was.
        example: What the model is called with.

    Returns:
        None where the graph does not say all that a run of this model does: torch.fx cannot trace
        it, or finds other operations than those of the graph.
    """
    if graph.method != "fx":
        return None
    try:
        with at_rest(model), _without_sites(model):
            traced = _Tracer(_fixed_arguments(model, example)).trace(model)
    except Exception:  # whatever a model's forward raises on symbols
        return None
    if len(traced.nodes) != len(graph.nodes):
        return None
    writers, numbers = Writers(model), {node.name: i for i, node in enumerate(traced.nodes)}
    steps = []
    for node, known in zip(traced.nodes, graph.nodes, strict=True):
        if node.op != known.kind or (node.op == "call_module" and str(node.target) != known.owner):
            return None
        if known.place and node.meta.get("place") != uncounted(known.place):
            return None

        def current(source: fx.Node) -> Result:
            return Result(numbers[writers.last(source)])

        args, kwargs = filled(node.args, fx.Node, current), filled(node.kwargs, fx.Node, current)
        target = node.target if callable(node.target) else str(node.target)
        steps.append(Instruction(known, target, args, dict(kwargs), known.in_place))
        writers.take(node)
    return tuple(steps)


def results_in(value: Any) -> Sequence[int]:
    """Numbers of the steps whose results stand in arguments, in order, each as often as it stands there."""
    found: list[int] = []
    filled(value, Result, lambda result: found.append(result.step))
    return found
