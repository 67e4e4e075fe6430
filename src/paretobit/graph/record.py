"""The graph of one run: every leaf module and every torch function that touches a tensor, as called."""

import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from paretobit.graph.faithful import works_in_place
from paretobit.graph.model_graph import Node, Ref, Shape
from paretobit.graph.names import Names, node_name
from paretobit.graph.operations import OPERATIONS
from paretobit.graph.ops import function_op, is_leaf, op_of
from paretobit.graph.places import place_of

_PLAIN = (int, float, bool, str, type(None), slice, type(Ellipsis), torch.dtype)


def record(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int | None) -> list[Node]:
    """The nodes of one run, in order of execution.

    Works for every model that runs: what a run does not reach, other branches of its control flow
    and other sequence lengths, is not in the graph.
    """
    recorder = _Recorder(model, batch)
    recorder.take_inputs(inspect.signature(model.forward).bind(*args, **kwargs).arguments)
    with ExitStack() as stack:
        for path, module in model.named_modules():
            enter = module.register_forward_pre_hook(recorder.enter(path), with_kwargs=True, prepend=True)
            stack.callback(enter.remove)
            hook = recorder.leave(path)
            stack.callback(module.register_forward_hook(hook, with_kwargs=True, always_call=True).remove)
        with torch.no_grad(), recorder:
            result = model(*args, **kwargs)
    recorder.add("output", "output", "output", "", (result,), {}, None)
    return recorder.nodes


class _Recorder(TorchFunctionMode):
    """Sees every function call; forgets no tensor before the end, so that identities stay unique."""

    def __init__(self, model: nn.Module, batch: int | None) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self._batch = batch
        self._names = Names()
        self._producer: dict[int, Ref] = {}
        self._alive: list[Tensor] = []
        self._path: list[str] = []
        self._given: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._within_leaf = 0
        named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        self._attributes = {id(tensor): path for path, tensor in reversed(named)}

    def take_inputs(self, given: Mapping[str, Any]) -> None:
        """The placeholders."""
        for name, value in given.items():
            if any(isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
                self.add(name, "placeholder", "placeholder", "", (), {}, value)

    def enter(self, path: str) -> Callable[..., None]:
        """A forward pre-hook, before all others: what they do belongs to the module."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._path.append(path)
            self._given.append((args, kwargs))
            self._within_leaf += is_leaf(module)

        return hook

    def leave(self, path: str) -> Callable[..., None]:
        """A forward hook."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
            self._path.pop()
            args, kwargs = self._given.pop()
            if is_leaf(module):
                self._within_leaf -= 1
                if not self._within_leaf:
                    inside = getattr(module, "inplace", False) is True
                    self.add(node_name(path), "call_module", op_of(module), path, args, kwargs, result, inside)

        return hook

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        op, kind = function_op(func)
        if not self._within_leaf:
            place = place_of(sys._getframe(1)) if OPERATIONS.operands(op) else ""
            if op == "setitem":
                self.add(op, kind, op, self._path[-1], args, kwargs or {}, args[0], place=place)
            elif any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
                inside = works_in_place(func, args, kwargs or {})
                path = self._path[-1] if self._path else ""
                self.add(op, kind, op, path, args, kwargs or {}, result, inside, place)
        return result

    def add(
        self,
        name: str,
        kind: Any,
        op: str,
        owner: str,
        args: Any,
        kwargs: Mapping[str, Any],
        result: Any,
        in_place: bool = False,
        place: str = "",
    ) -> None:
        """One node; its results belong to it from now on."""
        inputs = [leaf for leaf in tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor)]
        sources = tuple(self._source(tensor).node for tensor in inputs)
        shapes = tuple(tuple(tensor.shape) for tensor in inputs)
        plain_args, plain_kwargs = self._plain(tuple(args)), self._plain(dict(kwargs))
        own = self._names.unique(name)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for number, tensor in enumerate(outputs):
            self._producer[id(tensor)] = Ref(own, None if isinstance(result, Tensor) else number)
            self._alive.append(tensor)
        output_shapes = tuple(tuple(tensor.shape) for tensor in outputs)
        first: Shape | None = output_shapes[0] if output_shapes else shapes[0] if shapes else None
        self.nodes.append(
            Node(
                name=own,
                kind=kind,
                op=op,
                owner=owner,
                inputs=sources,
                input_shape=shapes[0] if shapes else None,
                output_shape=first,
                batch=self._batch,
                args=plain_args,
                kwargs=plain_kwargs,
                input_shapes=shapes,
                output_shapes=output_shapes,
                in_place=in_place,
                place=place,
            )
        )

    def _source(self, tensor: Tensor) -> Ref:
        """What made a tensor; parameters, buffers and constants get a node of their own."""
        if id(tensor) not in self._producer:
            path = self._attributes.get(id(tensor), "constant")
            self.add(node_name(path), "get_attr", "get_attr", path, (), {}, tensor)
        return self._producer[id(tensor)]

    def _plain(self, value: Any) -> Any:
        """Arguments without tensors: a reference to the node in the place of each."""
        if isinstance(value, Tensor):
            return self._source(value)
        if isinstance(value, Mapping):
            return {key: self._plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return tuple(self._plain(item) for item in value)
        return value if isinstance(value, _PLAIN) else repr(value)
