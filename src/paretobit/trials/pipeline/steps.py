"""What can be set about the steps of a trial."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from paretobit.errors import BadInput
from paretobit.training import TrainSettings
from paretobit.training.distillation import Distillation
from paretobit.trials.pipeline.halving import HalvingSettings

EVALUATE = "evaluate"
SHAPES = ("build", "channel_multiplier")
TRAINS = ("train", "finetune")
COMPRESSES = ("quantize", "prune")
STEPS = (*SHAPES, *TRAINS, *COMPRESSES, "calibrate", EVALUATE)
SHAPE_OF = {"build": "architecture", "channel_multiplier": "channel_multiplier"}
"""Step that gives a model its shape to the space that says which."""


class TrainingStep(TrainSettings):
    """Settings of a step that trains.

    Raises:
        BadInput: A seed is given.
    """

    teacher: bool | Distillation = Field(
        False,
        description="learn from the outputs of the float model as well: that of this trial before it was "
        "compressed, or the given one where nothing is compressed yet; a table says how",
    )

    @property
    def plain(self) -> TrainSettings:
        """What the training loop is told, without a seed."""
        own = {key: value for key, value in self.model_dump(exclude_unset=True).items() if key != "teacher"}
        return TrainSettings(**own)

    @model_validator(mode="after")
    def _seed_is_the_trials(self) -> TrainingStep:
        if "seed" in self.model_fields_set:
            problem = "a trial's seed comes from the study's seed and its configuration"
            raise BadInput(problem, key="seed", found=self.seed, allowed="the seed of the search")
        return self


class CalibrateStep(BaseModel):
    """Settings of the step `calibrate`, which works on the calibration rows of the search."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_norm: bool = Field(True, description="estimate the statistics of BatchNorm anew")
    scales: bool = Field(True, description="find fixed scales of data anew")


class PipelineSettings(BaseModel):
    """Settings of `[search.pipeline]`: what is done to the model of a configuration, in which order.

    Raises:
        BadInput: The steps make no sense in this order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: tuple[str, ...] = Field(
        (),
        description="in order: build, channel_multiplier, train, quantize, prune, calibrate, finetune, "
        "evaluate; unset: shapes, quantize, prune, train, evaluate, as far as the space has them; train comes "
        "before quantize where there are no weights to start from",
    )
    weights: Literal["given", "scratch"] | None = Field(
        None,
        description="what a trial starts from: given (the checkpoint's or the model's, inherited where widths "
        "change) or scratch (drawn anew); unset: given where there are any",
    )
    train: TrainingStep = Field(default_factory=lambda: TrainingStep(), description="of the step train")
    finetune: TrainingStep = Field(default_factory=lambda: TrainingStep(), description="of the step finetune")
    calibrate: CalibrateStep = Field(default_factory=lambda: CalibrateStep(), description="of that step")
    control: bool = Field(
        False, description="train the model a second time without compressing it, as long as finetune does"
    )
    stop: HalvingSettings | None = Field(None, description="successive halving: end trials that fall behind")

    @field_validator("steps")
    @classmethod
    def _known(cls, steps: tuple[str, ...]) -> tuple[str, ...]:
        for step in steps:
            if step not in STEPS:
                raise BadInput("unknown step", key="steps", found=step, allowed=STEPS)
        for step in set(steps) - {EVALUATE}:
            if steps.count(step) > 1:
                raise BadInput("a step is there twice", key="steps", found=step, allowed=f"{EVALUATE} only")
        return steps

    @model_validator(mode="after")
    def _in_order(self) -> PipelineSettings:
        steps = self.steps
        if not steps:
            return self
        if steps[-1] != EVALUATE:
            raise BadInput("a trial ends with its evaluation", key="steps", found=steps[-1], allowed=[EVALUATE])
        others = [step not in SHAPES for step in steps]
        if others != sorted(others):
            late = next(s for i, s in enumerate(steps) if s in SHAPES and any(others[:i]))
            raise BadInput("a model has its shape before anything else is done", key="steps", found=late)
        if any(a == b == EVALUATE for a, b in itertools.pairwise(steps)) or steps[0] == EVALUATE:
            raise BadInput("nothing happened since the last evaluation", key="steps", found=list(steps))
        for step in TRAINS:
            if step in self.model_fields_set and step not in steps:
                raise BadInput("settings of a step that is not there", key=step, allowed=list(steps))
        if self.control and not self._compressed_before("finetune"):
            problem = "the control needs a step finetune after quantize or prune"
            raise BadInput(problem, key="control", found=list(steps))
        return self

    def _compressed_before(self, step: str) -> bool:
        before = self.steps[: self.steps.index(step)] if step in self.steps else ()
        return any(s in COMPRESSES for s in before)

    @property
    def trains(self) -> bool:
        """Whether any step trains."""
        return any(step in self.steps for step in TRAINS)

    @property
    def from_nothing(self) -> bool:
        """Whether the given weights may be untrained: trials train them first."""
        return self._first(TRAINS) == "train" and not self._compressed_before("train")

    @property
    def stages(self) -> tuple[str, ...]:
        """The steps after which the model is evaluated before the end."""
        pairs = itertools.pairwise(self.steps)
        return tuple(step for step, then in pairs if then == EVALUATE)[:-1]

    def _first(self, wanted: Sequence[str]) -> str | None:
        return next((step for step in self.steps if step in wanted), None)

    def completed(self, spaces: Sequence[str], has_weights: bool) -> PipelineSettings:
        """The same with the steps that were left to be decided.

        Args:
            spaces: Names of the spaces that vary at once.
            has_weights: Whether there are weights worth compressing before the training.

        Raises:
            BadInput: A step has nothing to apply, or a space no step that applies it.
        """
        if not self.steps:
            shapes = [step for step, space in SHAPE_OF.items() if space in spaces]
            compresses = [step for step in COMPRESSES if step in spaces]
            middle = [*compresses, "train"] if has_weights else ["train", *compresses]
            steps = (*shapes, *middle, EVALUATE)
            return type(self).model_validate({**self.model_dump(exclude_unset=True), "steps": steps})
        for step in self.steps:
            if step in (*SHAPES, *COMPRESSES) and SHAPE_OF.get(step, step) not in spaces:
                problem = f"the space has nothing for the step '{step}'"
                raise BadInput(problem, key="steps", found=step, allowed=[*spaces, *TRAINS, EVALUATE])
        needs = {SHAPE_OF.get(step, step): step for step in (*SHAPES, *COMPRESSES)} | {"correct": "calibrate"}
        for space in spaces:
            if needs.get(space, EVALUATE) not in self.steps:
                problem = f"the space '{space}' varies what no step applies"
                raise BadInput(problem, key="steps", found=list(self.steps), allowed=f"with '{needs[space]}'")
        if "training" in spaces and not self.trains:
            raise BadInput("the space 'training' varies what no step does", key="steps", allowed=list(TRAINS))
        return self
