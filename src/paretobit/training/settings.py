"""What can be set about training."""

from __future__ import annotations

import re
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from paretobit.errors import BadInput
from paretobit.runtime import MAX_SEED
from paretobit.training.optimizers import Schedule, SteppingSettings, build_optimizer


class TrainSettings(SteppingSettings):
    """Settings of one training; everything is checked when they are made.

    Raises:
        BadInput: The optimiser or scheduler is unknown or does not take its settings.
        pydantic.ValidationError: A value is of the wrong type or out of range, or a key is unknown.
    """

    batch_size: int = Field(256, ge=1, description="rows per step")
    early_stopping: int | None = Field(None, ge=1, description="stop after so many epochs without a better one")
    keep: Literal["best", "last"] = Field(
        "best", description="which epoch's weights the model is left with; the last where nothing validates"
    )
    learned_scales: bool = Field(
        False, description="train the scales of scaled_integer formats with the weights (LSQ), then fix them"
    )
    gradient_clip: float | None = Field(
        None, gt=0, description="largest Euclidean norm of the gradient of all parameters together"
    )
    label_smoothing: float = Field(0.0, ge=0, le=1, description="probability given to all classes alike")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="decides the order of rows, dropout and augmentation")
    device: str = Field("cpu", description="cpu, cuda or auto")

    @model_validator(mode="after")
    def _can_be_built(self) -> TrainSettings:
        """Build both on a stand-in parameter, so that torch refuses bad settings now and not mid-run."""
        if not re.fullmatch(r"cpu|auto|(gpu|cuda)(:\d+)?", self.device):
            raise BadInput("unknown device", key="device", found=self.device, allowed=["cpu", "cuda", "gpu", "auto"])
        named = (self.optimizer, self.optimizer_settings, self.scheduler, self.scheduler_settings)
        if named != ("adam", {}, None, {}):  # torch's first optimiser imports its compiler: a second
            stand_in = build_optimizer([nn.Parameter(torch.zeros(1, 1))], self)
            Schedule(stand_in, self, steps_per_epoch=1)
        return self
