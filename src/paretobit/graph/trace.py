"""From a model to its graph: fx where it works, the module calls of one run where it does not."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from paretobit.errors import BadInput
from paretobit.graph.model_graph import ModelGraph, Node, Shape
from paretobit.graph.ops import op_of

Result = TypeVar("Result")
Example = Tensor | Sequence[Any] | Mapping[str, Any]


def trace(model: nn.Module, example: Example | None = None) -> ModelGraph:
    """The graph of a model; the model itself is left as it was.

    Args:
        model: Any module.
        example: What the model takes: a tensor, a sequence of positional arguments, or a mapping
            of keyword arguments; rows first. Without it nothing runs and shapes stay unknown.

    >>> graph = trace(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), torch.zeros(1, 4))
    >>> [(node.name, node.op, node.output_shape) for node in graph.layers]
    [('0', 'linear', (1, 2)), ('1', 'relu', (1, 2))]
    """
    with at_rest(model):
        try:
            traced = _Tracer().trace(model)
        except Exception as error:  # whatever a model's forward raises on proxies
            reason = f"torch.fx cannot trace it: {type(error).__name__}: {_first_line(error)}"
            return _on_example(lambda: _from_run(model, example, reason), example)
        shapes = _on_example(lambda: _shapes(model, traced, example), example)
    return _from_fx(model, traced, shapes, _batch(example))


def _on_example(run: Callable[[], Result], example: Example | None) -> Result:
    try:
        return run()
    except Exception as error:
        args, kwargs = _arguments(example)
        shapes = [_shape(value) for value in [*args, *kwargs.values()]]
        raise BadInput(
            f"the model does not run on these inputs: {type(error).__name__}: {_first_line(error)}",
            key="example inputs",
            found=shapes,
        ) from error


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return hasattr(m, "slot_names") or super().is_leaf_module(m, module_qualified_name)


class _Shapes(fx.Interpreter):
    """Runs a traced model once and keeps the shape of every result."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[str, Shape | None] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.found[n.name] = _shape(result)
        return result


def _shapes(model: nn.Module, traced: fx.Graph, example: Example | None) -> dict[str, Shape | None]:
    if example is None:
        return {}
    args, kwargs = _arguments(example)
    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    bound.apply_defaults()
    interpreter = _Shapes(fx.GraphModule(model, traced))
    with torch.no_grad():
        interpreter.run(*bound.arguments.values())
    return interpreter.found


def _from_fx(
    model: nn.Module, traced: fx.Graph, shapes: Mapping[str, Shape | None], batch: int | None
) -> ModelGraph:
    names = _Names()
    ours = {
        node.name: names.unique(_node_name(str(node.target)) if node.op == "call_module" else node.name)
        for node in traced.nodes
    }
    nodes = []
    for node in traced.nodes:
        sources = [source.name for source in node.all_input_nodes]
        nodes.append(
            Node(
                name=ours[node.name],
                kind=node.op,
                op=_operation(model, node),
                owner=str(node.target) if node.op == "call_module" else _calling_module(node),
                inputs=tuple(ours[source] for source in sources),
                input_shape=shapes.get(sources[0]) if sources else None,
                output_shape=shapes.get(node.name),
            )
        )
    return ModelGraph(model, tuple(nodes), "fx", batch=batch)


def _from_run(model: nn.Module, example: Example | None, reason: str) -> ModelGraph:
    """Leaf modules in the order in which one run calls them; all of them where nothing can run."""
    leaves = [(path, module) for path, module in model.named_modules() if path and _is_leaf(module)]
    if example is None:
        nodes = tuple(Node(_node_name(path), "call_module", op_of(module), path) for path, module in leaves)
        return ModelGraph(model, nodes, "modules", f"{reason}; no example inputs to run it on")
    calls: list[Node] = []
    names = _Names()

    def recorder(path: str) -> Any:
        def record(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
            name = names.unique(_node_name(path))
            calls.append(Node(name, "call_module", op_of(module), path, (), _shape(args), _shape(result)))

        return record

    args, kwargs = _arguments(example)
    handles = [module.register_forward_hook(recorder(path)) for path, module in leaves]
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return ModelGraph(model, tuple(calls), "calls", reason, _batch(example))


class _Names:
    """Unique names: the second use of `a` becomes `a_1`."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def unique(self, name: str) -> str:
        candidates = (f"{name}_{i}" if i else name for i in itertools.count())
        chosen = next(candidate for candidate in candidates if candidate not in self._taken)
        self._taken.add(chosen)
        return chosen


def _is_leaf(module: nn.Module) -> bool:
    return hasattr(module, "slot_names") or not any(True for _ in module.children())


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; every module's own mode restored after it."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _operation(model: nn.Module, node: fx.Node) -> str:
    if node.op == "call_module":
        return op_of(model.get_submodule(str(node.target)))
    if node.op == "call_method":
        return str(node.target)
    if node.op == "call_function":
        return getattr(node.target, "__name__", str(node.target)).strip("_")
    return node.op


def _calling_module(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values()] if stack else []
    return paths[-1] if paths else ""


def _arguments(example: Example | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Copies of the example as positional and keyword arguments: a model may work in place."""
    if example is None:
        return (), {}
    if isinstance(example, Tensor):
        return (example.clone(),), {}
    if isinstance(example, Mapping):
        return (), {key: _copy(value) for key, value in example.items()}
    return tuple(_copy(value) for value in example), {}


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _batch(example: Example | None) -> int | None:
    args, kwargs = _arguments(example)
    first = _shape([*args, *kwargs.values()])
    return first[0] if first else None


def _shape(value: Any) -> Shape | None:
    """Shape of the first tensor in a result."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return next((shape for shape in map(_shape, value) if shape is not None), None)
    return None


def _node_name(path: str) -> str:
    return path.replace(".", "_")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else ""
