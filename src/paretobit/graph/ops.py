"""Names of operations: `batch_norm1d`, `linear`, `relu` …, the words that select layers by type."""

import inspect
import re
from typing import Any, Literal

from torch import nn

from paretobit.graph.operations import OPERATIONS

_ONE_WORD = ("ReLU", "ReLU6", "PReLU", "RReLU", "ELU", "CELU", "SELU", "GELU", "GLU", "SiLU")
_IRREGULAR = {
    **{name: name.lower() for name in _ONE_WORD},
    "LeakyReLU": "leaky_relu",
    "RMSNorm": "rms_norm",
    "Conv1D": "linear",  # of transformers: a linear layer with the weight transposed
}


def op_of(module: nn.Module) -> str:
    """The operation a module performs, by the torch class it is or derives from.

    >>> op_of(nn.BatchNorm1d(3)), op_of(nn.Linear(1, 1)), op_of(nn.SiLU())
    ('batch_norm1d', 'linear', 'silu')
    """
    return OPERATIONS.word_of_layer(module) or op_name(_torch_class(module).__name__)


def class_name(module: nn.Module) -> str:
    """Name of the torch class a module is or derives from: `Linear`, `BatchNorm1d`.

    >>> class_name(nn.ReLU())
    'ReLU'
    """
    return _torch_class(module).__name__


def op_name(class_name: str) -> str:
    """Snake case of a class name; `BatchNorm1d` is `batch_norm1d`.

    >>> op_name("Conv2d"), op_name("AdaptiveAvgPool2d"), op_name("linear")
    ('conv2d', 'adaptive_avg_pool2d', 'linear')
    """
    if class_name in _IRREGULAR:
        return _IRREGULAR[class_name]
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name).lower()


_WHOLE = ("torch.nn.modules.", "transformers.pytorch_utils.Conv1D")


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is one operation: a layer of torch's, or one of ours.

    Modules of others are looked into, whether or not they have children, and so are torch's layers
    with another `forward`. A layer whose weight is parametrised is one all the same.
    """
    if hasattr(module, "slot_names") or isinstance(module, nn.MultiheadAttention):
        return True
    if OPERATIONS.word_of_layer(module) is not None:
        return True
    if any(name != "parametrizations" for name, _ in module.named_children()):
        return False
    layer = _torch_class(module)
    known = f"{layer.__module__}.{layer.__name__}".startswith(_WHOLE)
    return known and type(module).forward is layer.forward


def function_op(function: Any) -> tuple[str, Literal["call_function", "call_method"]]:
    """The operation that a torch function performs, and its kind in fx words.

    >>> import torch
    >>> function_op(torch.Tensor.__add__), function_op(torch.Tensor.view), function_op(torch.matmul)
    (('add', 'call_function'), ('view', 'call_method'), ('matmul', 'call_function'))
    """
    name = str(getattr(function, "__name__", function))
    if name == "__get__":  # a property: x.T
        return str(getattr(function.__self__, "__name__", name)), "call_function"
    method = inspect.ismethoddescriptor(function) or "Tensor." in str(getattr(function, "__qualname__", ""))
    operator = name.startswith("__")
    return OPERATIONS.word(name), "call_method" if method and not operator else "call_function"


def _torch_class(module: nn.Module) -> type[nn.Module]:
    for base in type(module).__mro__:
        if base.__module__.startswith("torch.nn.modules") and base is not nn.Module:
            return base
    return type(module)
