"""Which rows can be trained on, and in which batches."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput
from paretobit.training.history import Monitor
from paretobit.training.settings import TrainSettings

Split = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


def check_rows(train: Split, val: Split | None, settings: TrainSettings, loss: Loss | None, classes: bool) -> Monitor:
    """Refuse rows that cannot be trained on.

    Returns:
        The metric to monitor: that of the settings, or the loss where targets are not classes.

    Raises:
        BadInput: Rows, settings and loss do not fit together.
    """
    for name, split in _named(train, val):
        x, y = split
        if len(x) == 0 or len(x) != len(y):
            raise BadInput("inputs and targets do not pair up", key=name, found=f"{len(x)} and {len(y)} rows")
        if y.dtype != train[1].dtype or y.shape[1:] != train[1].shape[1:]:
            raise BadInput("targets unlike the training targets", key=name, found=str(y.dtype))
    if loss is None and not classes:
        found = f"{train[1].dtype} of shape {tuple(train[1].shape)}"
        raise BadInput("targets that are not classes need a loss", key="y", found=found, allowed="int64 (rows,)")
    if loss is not None and settings.label_smoothing:
        raise BadInput("label smoothing has no effect on a loss of your own", key="label_smoothing")
    if settings.early_stopping is not None and val is None:
        raise BadInput("early stopping needs validation rows", key="early_stopping", found=settings.early_stopping)
    if not classes and "monitor" in settings.model_fields_set and settings.monitor == "accuracy":
        raise BadInput("no accuracy without classes", key="monitor", found="accuracy", allowed=["loss"])
    return settings.monitor if classes else "loss"


def _named(train: Split, val: Split | None) -> Iterator[tuple[str, Split]]:
    yield "train", train
    if val is not None:
        yield "val", val


def is_classes(y: Tensor) -> bool:
    """Whether targets are class labels, int64 `(rows,)`."""
    return y.dtype == torch.int64 and y.ndim == 1


def batch_sizes(x: Tensor, batch_size: int, model: nn.Module) -> list[int]:
    """Rows of each batch. BatchNorm cannot train on one row, so a last row alone joins the batch before it.

    Raises:
        BadInput: Vectors come one at a time to a model with BatchNorm.

    >>> batch_sizes(torch.zeros(9, 2), 4, nn.BatchNorm1d(2)), batch_sizes(torch.zeros(9, 2), 4, nn.Linear(2, 2))
    ([4, 5], [4, 4, 1])
    """
    full, rest = divmod(len(x), batch_size)
    sizes = [batch_size] * full + ([rest] if rest else [])
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return sizes
    if sizes[-1] == 1 and batch_size > 1 and len(sizes) > 1:
        sizes[-2:] = [batch_size + 1]
    if sizes[-1] == 1 and x.ndim == 2:
        raise BadInput("BatchNorm cannot train on one row", key="batch_size", found=batch_size, allowed="2 or more")
    return sizes
