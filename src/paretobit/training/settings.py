"""What can be set about training."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from paretobit.training.optimizers import Schedule, build_optimizer


class TrainSettings(BaseModel):
    """Settings of one training; everything is checked when they are made.

    Args:
        max_epochs: Passes over the training rows; 0 leaves the model as it is.
        batch_size: Rows per step.
        learning_rate: Initial rate; the peak for `onecycle` and `cyclic`.
        optimizer: A torch optimiser by name, in any case.
        optimizer_settings: Its further keyword arguments, such as `weight_decay`.
        scheduler: A torch learning-rate scheduler by name; case, underscores and a final "LR" do not matter;
            "cosine" and "plateau" are short names. None keeps the rate constant.
        scheduler_settings: Its keyword arguments; lengths default to the whole training.
        early_stopping: Stop after this many epochs without a better one.
        monitor: The validation metric that ranks epochs.
        gradient_clip: Largest Euclidean norm of the gradient of all parameters together.
        label_smoothing: Probability given to all classes alike, in [0, 1].
        seed: Decides the order of rows, dropout and augmentation.
        device: `cpu`, `cuda` or `auto`.

    Raises:
        BadInput: The optimiser or scheduler is unknown or does not take its settings.
        pydantic.ValidationError: A value is of the wrong type or out of range, or a key is unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_epochs: int = Field(20, ge=0)
    batch_size: int = Field(256, ge=1)
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    optimizer: str = "adam"
    optimizer_settings: dict[str, Any] = {}
    scheduler: str | None = None
    scheduler_settings: dict[str, Any] = {}
    early_stopping: int | None = Field(None, ge=1)
    monitor: Literal["accuracy", "loss"] = "accuracy"
    gradient_clip: float | None = Field(None, gt=0)
    label_smoothing: float = Field(0.0, ge=0, le=1)
    seed: int = Field(0, ge=0)
    device: str = "cpu"

    @model_validator(mode="after")
    def _can_be_built(self) -> TrainSettings:
        """Build both on a stand-in parameter, so that torch refuses bad settings now and not mid-run."""
        stand_in = build_optimizer([nn.Parameter(torch.zeros(1, 1))], self)
        Schedule(stand_in, self, steps_per_epoch=1)
        return self
