"""Names of operations: `batch_norm1d`, `linear`, `relu` …, the words that select layers by type."""

from __future__ import annotations

import re

from torch import nn

_IRREGULAR = {
    "ReLU": "relu",
    "ReLU6": "relu6",
    "PReLU": "prelu",
    "RReLU": "rrelu",
    "LeakyReLU": "leaky_relu",
    "ELU": "elu",
    "CELU": "celu",
    "SELU": "selu",
    "GELU": "gelu",
    "GLU": "glu",
    "SiLU": "silu",
    "LogSoftmax": "log_softmax",
    "RMSNorm": "rms_norm",
}


def op_of(module: nn.Module) -> str:
    """The operation a module performs, by the torch class it is or derives from.

    >>> op_of(nn.BatchNorm1d(3)), op_of(nn.Linear(1, 1)), op_of(nn.SiLU())
    ('batch_norm1d', 'linear', 'silu')
    """
    return op_name(_torch_class(module).__name__)


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


def _torch_class(module: nn.Module) -> type[nn.Module]:
    for base in type(module).__mro__:
        if base.__module__.startswith("torch.nn.modules") and base is not nn.Module:
            return base
    return type(module)
