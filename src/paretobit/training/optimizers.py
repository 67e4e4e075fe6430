"""Optimisers and learning-rate schedules of torch, by name."""

import inspect
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import nn, optim
from torch.optim import lr_scheduler

from paretobit.errors import BadInput


class SteppingSettings(BaseModel):
    """What of the settings of a training says how weights are stepped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_epochs: int = Field(20, ge=0, description="passes over the training rows; 0 leaves the model as it is")
    learning_rate: float = Field(
        1e-3, gt=0, allow_inf_nan=False, description="initial rate; the peak for onecycle and cyclic"
    )
    optimizer: str = Field("adam", description="a torch optimiser by name, in any case")
    optimizer_settings: dict[str, Any] = Field({}, description="its further arguments, such as weight_decay")
    scheduler: str | None = Field(
        None, description="a torch learning-rate scheduler by name; cosine and plateau are short names"
    )
    scheduler_settings: dict[str, Any] = Field({}, description="its arguments; lengths default to the whole training")
    monitor: Literal["accuracy", "loss"] = Field("accuracy", description="validation metric that ranks epochs")


OPTIMIZERS: dict[str, type[optim.Optimizer]] = {
    name.lower(): value
    for name, value in vars(optim).items()
    if inspect.isclass(value) and issubclass(value, optim.Optimizer) and value is not optim.Optimizer
}
REFUSED_OPTIMIZERS = {
    "lbfgs": "LBFGS calls back for the loss several times a step (a closure), which this loop does not offer",
    "sparseadam": "SparseAdam needs sparse gradients, which no layer here gives",
}
# These take functions or other schedulers, which no settings file can hold.
_UNREACHABLE = ("LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler", "LRScheduler")
_ALIASES = {"cosine": "cosineannealing", "plateau": "reducelronplateau", "warmrestarts": "cosineannealingwarmrestarts"}


def _folded(name: str) -> str:
    """A schedule's name without case, separators and the ending LR.

    >>> _folded("OneCycleLR"), _folded("one_cycle"), _folded("cosine")
    ('onecycle', 'onecycle', 'cosineannealing')
    """
    plain = name.lower().replace("_", "").replace("-", "").removesuffix("lr")
    return _ALIASES.get(plain, plain)


SCHEDULERS: dict[str, type[lr_scheduler.LRScheduler]] = {
    _folded(name): getattr(lr_scheduler, name) for name in lr_scheduler.__all__ if name not in _UNREACHABLE
}
PER_BATCH = (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)


def build_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], settings: SteppingSettings
) -> optim.Optimizer:
    """The optimiser that `settings` name, over `parameters` or groups of them as torch takes them.

    Raises:
        BadInput: Unknown or unusable name, unknown keyword, or a value that torch refuses.
    """
    name = settings.optimizer.lower()
    allowed = [known for known in OPTIMIZERS if known not in REFUSED_OPTIMIZERS]
    if name in REFUSED_OPTIMIZERS:
        raise BadInput(REFUSED_OPTIMIZERS[name], key="optimizer", found=settings.optimizer, allowed=allowed)
    if name not in OPTIMIZERS:
        raise BadInput("unknown optimiser", key="optimizer", found=settings.optimizer, allowed=allowed)
    keywords = {"lr": settings.learning_rate}
    optimizer: optim.Optimizer = _call(
        OPTIMIZERS[name], list(parameters), settings.optimizer_settings, keywords, "optimizer_settings"
    )
    return optimizer


class Schedule:
    """The learning rate over time: a torch scheduler that knows when it is stepped.

    `onecycle` and `cyclic` move after every batch, all others after every epoch. A schedule is a function of
    how often it was stepped (and of the monitored values), so resuming replays it instead of storing it.

    Args:
        optimizer: Whose learning rate is set.
        settings: Name the scheduler; its lengths default to the whole training.
        steps_per_epoch: Batches in an epoch.

    Raises:
        BadInput: Unknown name, unknown keyword, or a value that torch refuses.
    """

    def __init__(self, optimizer: optim.Optimizer, settings: SteppingSettings, steps_per_epoch: int) -> None:
        self._steps_per_epoch = steps_per_epoch
        self._scheduler: Any = None
        if settings.scheduler is None:
            if settings.scheduler_settings:
                found = ", ".join(settings.scheduler_settings)
                raise BadInput("settings without a scheduler", key="scheduler_settings", found=found)
            return
        kind = SCHEDULERS.get(_folded(settings.scheduler))
        if kind is None:
            allowed = [*SCHEDULERS, *_ALIASES]
            raise BadInput("unknown scheduler", key="scheduler", found=settings.scheduler, allowed=allowed)
        defaults = _schedule_defaults(kind, optimizer, settings, steps_per_epoch)
        self._scheduler = _call(kind, optimizer, settings.scheduler_settings, defaults, "scheduler_settings")
        needed = settings.max_epochs * steps_per_epoch
        total = getattr(self._scheduler, "total_steps", needed)
        if total < needed:
            key = "scheduler_settings.total_steps"
            raise BadInput("the schedule is shorter than the training", key=key, found=total, allowed=f">= {needed}")

    def after_batch(self) -> None:
        """Step a schedule that moves with every batch."""
        if isinstance(self._scheduler, PER_BATCH):
            self._scheduler.step()

    def after_epoch(self, value: float) -> None:
        """Step a schedule that moves with every epoch; `value` is the monitored metric."""
        if isinstance(self._scheduler, lr_scheduler.ReduceLROnPlateau):
            self._scheduler.step(value)
        elif self._scheduler is not None and not isinstance(self._scheduler, PER_BATCH):
            self._scheduler.step()

    def replay(self, values: Iterable[float]) -> None:
        """Go through epochs that were trained before, given their monitored metrics."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch expects an optimiser step before each of these
            for value in values:
                for _ in range(self._steps_per_epoch):
                    self.after_batch()
                self.after_epoch(value)


def _schedule_defaults(
    kind: type[Any], optimizer: optim.Optimizer, settings: SteppingSettings, steps_per_epoch: int
) -> dict[str, Any]:
    epochs = max(1, settings.max_epochs)
    momentum = bool({"momentum", "betas"} & optimizer.defaults.keys())
    peak = settings.learning_rate
    own_length = {"total_steps", "epochs", "steps_per_epoch"} & settings.scheduler_settings.keys()
    length = {} if own_length else {"total_steps": epochs * steps_per_epoch}
    half_cycle = max(1, epochs * steps_per_epoch // 6)
    defaults: dict[str, dict[str, Any]] = {
        "StepLR": {"step_size": max(1, epochs // 3)},
        "MultiStepLR": {"milestones": [max(1, epochs // 2), max(1, 3 * epochs // 4)]},
        "ExponentialLR": {"gamma": math.pow(0.01, 1 / epochs)},
        "CosineAnnealingLR": {"T_max": epochs},
        "CosineAnnealingWarmRestarts": {"T_0": max(1, epochs // 3)},
        "PolynomialLR": {"total_iters": epochs},
        "ReduceLROnPlateau": {"mode": "max" if settings.monitor == "accuracy" else "min"},
        "OneCycleLR": {"max_lr": peak, "cycle_momentum": momentum, **length},
        "CyclicLR": {"base_lr": peak / 10, "max_lr": peak, "step_size_up": half_cycle, "cycle_momentum": momentum},
    }
    return defaults.get(kind.__name__, {})


def _call(kind: type[Any], subject: Any, given: Mapping[str, Any], defaults: Mapping[str, Any], key: str) -> Any:
    """`kind(subject, **defaults, **given)`, with what does not fit reported under `key`."""
    fixed = {"self", "params", "optimizer", "lr", "last_epoch"}
    allowed = [name for name in inspect.signature(kind).parameters if name not in fixed]
    for name in given:
        if name not in allowed:
            problem = f"{kind.__name__} has no such setting"
            raise BadInput(problem, key=f"{key}.{name}", found=name, allowed=allowed)
    try:
        return kind(subject, **{**defaults, **given})
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise BadInput(f"{kind.__name__} refuses its settings: {error}", key=key, found=dict(given)) from None
