"""From a model to its graph: fx where it works, what one run calls where it does not."""

import inspect
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from paretobit.errors import BadInput
from paretobit.graph.contents import unchanged
from paretobit.graph.counted import counted, needs_counter
from paretobit.graph.faithful import NotFaithful, Writers, check_faithful
from paretobit.graph.model_graph import ModelGraph, Node, Ref, Shape, filled
from paretobit.graph.names import Names, named_by_site, node_name, with_sites
from paretobit.graph.operations import OPERATIONS, row_of
from paretobit.graph.ops import is_leaf, op_of
from paretobit.graph.places import Call, place_of
from paretobit.graph.proxies import TensorProxy
from paretobit.graph.record import record
from paretobit.graph.restore import undone
from paretobit.graph.rows import alike, beside_one_row, of_later_calls

Example = Tensor | Sequence[Any] | Mapping[str, Any]
Shapes = dict[str, tuple[Shape, ...]]


def trace(model: nn.Module, example: Example | None = None) -> ModelGraph:
    """The graph of a model; the model itself is left as it was.

    Args:
        model: Any module.
        example: What the model takes: a tensor, a sequence of positional arguments, or a mapping
            of keyword arguments; rows first. Without it nothing runs and shapes stay unknown. Of several
            rows the model is run on the first alone as well: what a sample costs is what that takes.
            Arguments it leaves out keep their defaults, and those without tensors their values.

    Raises:
        BadInput: The model does not run on the example.

    >>> graph = trace(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), torch.zeros(1, 4))
    >>> [(node.name, node.op, node.output_shape) for node in graph.layers]
    [('0', 'linear', (1, 2)), ('1', 'relu', (1, 2))]
    """
    _check_has_layers(model)
    with at_rest(model), unchanged():  # one copy of the weights is kept, and compared in full at the end
        graph, leaves_something = _traced(model, example)
        if leaves_something and example is not None:
            later = _later_call(model, example, example)
            if not alike(graph, later):
                again = of_later_calls(graph, later)
                return beside_one_row(again, example, lambda rows: _later_call(model, example, rows))
        return beside_one_row(graph, example, lambda rows: trace_once(model, rows))


def _later_call(model: nn.Module, first: Example, example: Example) -> ModelGraph:
    """The graph of a call that comes after another one."""
    args, kwargs = _arguments(first)
    with at_rest(model), _without_sites(model), torch.no_grad():
        model(*args, **kwargs)
        return trace_once(model, example)


def trace_once(model: nn.Module, example: Example | None = None) -> ModelGraph:
    """The graph of a model as `trace` gives it: of its first call, and not compared with that of one row."""
    return _traced(model, example)[0]


def _traced(model: nn.Module, example: Example | None) -> tuple[ModelGraph, bool]:
    """The graph, and whether the run left something in the model, where it was put back."""
    _check_has_layers(model)
    if _is_one_layer(model) and isinstance(example, Tensor | None):
        return _of_one_layer(model, example), False
    with at_rest(model), _without_sites(model):
        try:
            with undone(model) as left:
                if "forward" in vars(model):
                    raise NotFaithful("it traces the forward of a class, which this model has replaced")
                traced = _Tracer(_fixed_arguments(model, example)).trace(model)
                shapes, macs = _shapes(model, traced, example)
        except Exception as error:  # whatever a model's forward raises on proxies
            reason = f"torch.fx cannot trace it: {type(error).__name__}: {_first_line(error)}"
            with undone(model) as left:
                graph = _on_example(model, example, reason)
            return graph, any(left)
    graph = _from_fx(model, traced, shapes, macs, _batch(example))
    return graph if example is None else replace(graph, example=_arguments(example)), any(left)


def _check_has_layers(model: nn.Module) -> None:
    exported = "ExportedProgram." in model.eval.__qualname__
    if exported or isinstance(model, torch.jit.ScriptModule):
        what = "a scripted or exported program has no layers to change: give the module that it was made of"
        raise BadInput(what, key="model", found=type(model).__name__)
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise BadInput("the model has lazy parameters without shapes: run it on its data once")


def _is_one_layer(model: nn.Module) -> bool:
    known = type(model).__module__.startswith("torch.nn.modules") or hasattr(model, "slot_names")
    return known and is_leaf(model) and not isinstance(model, nn.Sequential)


def _of_one_layer(model: nn.Module, example: Tensor | None) -> ModelGraph:
    """The graph of a model that is one layer: its path is empty, its node is named after its operation."""
    wrapped = trace_once(nn.Sequential(model), example)
    names = {node.name: node.op if node.kind == "call_module" else node.name for node in wrapped}
    nodes = (
        replace(node, name=names[node.name], owner="", inputs=tuple(names[source] for source in node.inputs))
        for node in wrapped
    )
    return replace(wrapped, model=model, nodes=tuple(nodes))


def _on_example(model: nn.Module, example: Example | None, reason: str) -> ModelGraph:
    try:
        return _from_run(model, example, reason)
    except Exception as error:
        args, kwargs = _arguments(example)
        shapes = [_shape(value) for value in [*args, *kwargs.values()]]
        batch = _batch(example)
        rows = "" if batch is None else " (1 row)" if batch == 1 else f" ({batch} rows)"
        raise BadInput(
            f"the model does not run on these inputs{rows}: {type(error).__name__}: {_first_line(error)}",
            key="example inputs",
            found=shapes,
        ) from error


class _Tracer(fx.Tracer):
    """Traces with symbols for the tensors and with the values of all other arguments."""

    def __init__(self, fixed: Mapping[str, Any]) -> None:
        super().__init__()
        self._fixed = fixed

    def create_proxy(self, kind: str, target: Any, *rest: Any, **more: Any) -> Any:
        if kind == "placeholder" and target in self._fixed:
            return self._fixed[target]
        proxy = super().create_proxy(kind, target, *rest, **more)
        if kind in ("call_function", "call_method"):
            proxy.node.meta["place"] = place_of(sys._getframe(1))
        return proxy

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return TensorProxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_leaf(m) or super().is_leaf_module(m, module_qualified_name)


class _Shapes(fx.Interpreter):
    """Runs a traced model once and keeps the shape of every result."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: Shapes = {}
        self.macs: dict[str, int | None] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op in ("call_function", "call_method") and needs_counter(_operation(self.module, n)):
            result, self.macs[n.name] = counted(partial(super().run_node, n))
        else:
            result = super().run_node(n)
        self.found[n.name] = tuple(tuple(t.shape) for t in tree_leaves(result) if isinstance(t, Tensor))
        return result


def _shapes(model: nn.Module, traced: fx.Graph, example: Example | None) -> tuple[Shapes, dict[str, int | None]]:
    """Shapes of the result tensors of every node, and what torch's counter says of some.

    Raises:
        NotFaithful: What was traced is not what the model does.
    """
    if example is None:
        return {}, {}
    args, kwargs = _arguments(example)
    given = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    values: list[Any] = []
    for target in (str(node.target) for node in traced.nodes if node.op == "placeholder"):
        values += given[target[1:]] if target.startswith("*") else [given[target]]
    interpreter = _Shapes(fx.GraphModule(model, traced))
    calls = [str(node.target) for node in traced.nodes if node.op == "call_module"]
    with torch.no_grad():
        before = torch.get_rng_state()
        result = interpreter.run(*values)
        torch.set_rng_state(before)
        functions = _functions(model, traced, interpreter.found)
        check_faithful(model, *_arguments(example), calls, functions, result)
    return interpreter.found, interpreter.macs


def _functions(model: nn.Module, traced: fx.Graph, shapes: Shapes) -> Counter[Call]:
    """How often functions that can carry formats are called, by caller, operation and place."""
    nodes = [node for node in traced.nodes if "place" in node.meta and shapes.get(node.name)]
    found = Counter((_calling_module(node), _operation(model, node), str(node.meta["place"])) for node in nodes)
    return Counter({call: number for call, number in found.items() if OPERATIONS.operands(call[1])})


def _fixed_arguments(model: nn.Module, example: Example | None) -> dict[str, Any]:
    """Arguments of `forward` that hold no tensor, by name: given so, or left at their defaults."""
    signature = inspect.signature(model.forward)
    args, kwargs = _arguments(example)
    bound = signature.bind_partial(*args, **kwargs) if example is None else signature.bind(*args, **kwargs)
    bound.apply_defaults()
    stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}  # as fx names what they gather
    named = {stars.get(signature.parameters[n].kind.name, "") + n: v for n, v in bound.arguments.items()}
    return {name: value for name, value in named.items() if _shape(value) is None}


def _from_fx(
    model: nn.Module, traced: fx.Graph, shapes: Shapes, macs: Mapping[str, int | None], batch: int | None
) -> ModelGraph:
    names = Names()
    ours = {
        node.name: names.unique(node_name(str(node.target)) if node.op == "call_module" else node.name)
        for node in traced.nodes
    }
    nodes = []
    writers = Writers(model)
    for node in traced.nodes:
        now = {source.name: writers.last(source) for source in node.all_input_nodes}
        sources = list(dict.fromkeys(now.values()))
        current = {name: Ref(ours[source]) for name, source in now.items()}
        args = node.args[:1] if _is_property(node) else node.args
        inputs = tuple(next(iter(shapes.get(source, ())), None) for source in sources)
        outputs = shapes.get(node.name, ())
        writers.take(node)
        nodes.append(
            Node(
                name=ours[node.name],
                kind=node.op,
                op=_operation(model, node),
                owner=str(node.target) if node.op in ("call_module", "get_attr") else _calling_module(node),
                inputs=tuple(ours[source] for source in sources),
                input_shape=inputs[0] if inputs else None,
                output_shape=outputs[0] if outputs else None,
                batch=batch,
                args=_with_refs(args, current),
                kwargs=_with_refs(node.kwargs, current),
                input_shapes=inputs,
                output_shapes=outputs,
                in_place=writers.in_place(node),
                place=node.meta.get("place", ""),
                counted_macs=macs.get(node.name),
            )
        )
    return ModelGraph(model, with_sites(nodes, model), "fx", batch=batch)


def _with_refs(value: Any, refs: Mapping[str, Ref]) -> Any:
    return filled(value, fx.Node, lambda node: refs[node.name], lists=False)


def _from_run(model: nn.Module, example: Example | None, reason: str) -> ModelGraph:
    """What one run calls; all leaf modules where nothing can run."""
    if example is None:
        leaves = [(path, module) for path, module in model.named_modules() if path and not list(module.children())]
        nodes = tuple(Node(node_name(path), "call_module", op_of(module), path) for path, module in leaves)
        return ModelGraph(model, named_by_site(nodes, model), "modules", f"{reason}; no example inputs to run it on")
    args, kwargs = _arguments(example)
    batch = _batch(example)
    nodes = with_sites(record(model, args, kwargs, batch), model)
    return ModelGraph(model, nodes, "run", reason, batch, example=_arguments(example))


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; the model is as it was after it, whatever ran in it."""
    with undone(model):
        model.eval()
        yield


@contextmanager
def _without_sites(model: nn.Module) -> Iterator[None]:
    """Functions that carry formats are called as they are (`Sites.paused` of `paretobit.nn`)."""
    sites = [module.__dict__["_site_calls"] for module in model.modules() if "_site_calls" in module.__dict__]
    before = [shared.paused for shared in sites]
    for shared in sites:
        shared.paused = True
    try:
        yield
    finally:
        for shared, paused in zip(sites, before, strict=True):
            shared.paused = paused


def _operation(model: nn.Module, node: fx.Node) -> str:
    if node.op == "call_module":
        return op_of(model.get_submodule(str(node.target)))
    if node.op == "call_method":
        return OPERATIONS.word(str(node.target))
    if node.op == "call_function":
        if _is_property(node):  # x.T
            return str(node.args[1])
        return OPERATIONS.word(str(getattr(node.target, "__name__", node.target)))
    return node.op


def _is_property(node: fx.Node) -> bool:
    """Whether a node asks a tensor for another view of it."""
    return node.target is getattr and row_of(str(node.args[1])).is_view


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


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else ""
