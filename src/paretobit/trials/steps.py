"""What can be set about the steps of a trial."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from paretobit.errors import BadInput
from paretobit.spaces import SPACES, Space
from paretobit.spaces.base import Stage, Step
from paretobit.training import TrainSettings
from paretobit.training.distillation import Distillation
from paretobit.trials.halving import HalvingSettings

CALIBRATE, EVALUATE = "calibrate", "evaluate"
TRAINS = ("train", "finetune")
OF_NO_SPACE = (*TRAINS, CALIBRATE, EVALUATE)
"""Steps that are there whatever varies."""


def words(stage: Stage, steps: Iterable[Step] | None = None) -> list[str]:
    """The words of steps at a stage, in the order in which they come by themselves; unset: all registered."""
    known = (entry.value.acts_at() for entry in SPACES) if steps is None else steps
    found = sorted((step for step in known if step.stage == stage and step.word), key=lambda step: step.order)
    return list(dict.fromkeys(step.word for step in found))


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
        description="in order: those of the spaces (`paretobit list spaces`: build, channel_multiplier, "
        "quantize, prune), train, finetune, calibrate, evaluate; unset: what makes the shape, what "
        "compresses, train, evaluate; train comes before that where there are no weights to start from",
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
        allowed = [*words("shape"), *words("compress"), *OF_NO_SPACE]
        for step in steps:
            if step not in allowed:
                raise BadInput("unknown step", key="steps", found=step, allowed=allowed)
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
        shapes = words("shape")
        others = [step not in shapes for step in steps]
        if others != sorted(others):
            late = next(s for i, s in enumerate(steps) if s in shapes and any(others[:i]))
            raise BadInput("a model has its shape before anything else is done", key="steps", found=late)
        if any(a == b == EVALUATE for a, b in itertools.pairwise(steps)) or steps[0] == EVALUATE:
            raise BadInput("nothing happened since the last evaluation", key="steps", found=list(steps))
        for step in TRAINS:
            if step in self.model_fields_set and step not in steps:
                raise BadInput("settings of a step that is not there", key=step, allowed=list(steps))
        if self.control and not self._compressed_before("finetune"):
            problem = "the control needs a step finetune after one that compresses"
            raise BadInput(problem, key="control", found=list(steps))
        return self

    def _compressed_before(self, step: str) -> bool:
        before = self.steps[: self.steps.index(step)] if step in self.steps else ()
        return any(s in words("compress") for s in before)

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

    def completed(self, spaces: Sequence[Space], has_weights: bool) -> PipelineSettings:
        """The same with the steps that were left to be decided.

        Args:
            spaces: What varies at once.
            has_weights: Whether there are weights worth compressing before the training.

        Raises:
            BadInput: A step has nothing to apply, or a space no step that applies it.
        """
        acting = [space.acts_at() for space in spaces]
        steps = self.steps
        if not steps:
            compress = words("compress", acting)
            middle = [*compress, "train"] if has_weights else ["train", *compress]
            steps = (*words("shape", acting), *middle, EVALUATE)
        for step in steps:
            if step not in OF_NO_SPACE and step not in (one.word for one in acting):
                problem, allowed = f"the space has nothing for the step '{step}'", words("shape", acting)
                allowed += [*words("compress", acting), *OF_NO_SPACE]
                raise BadInput(problem, key="steps", found=step, allowed=allowed)
        for space, step_of in zip(spaces, acting, strict=True):
            applying = _applying(step_of)
            if not any(step in applying for step in steps):
                problem = f"the space '{space.name}' varies what no step applies"
                said = " or ".join(f"with '{word}'" for word in applying) or "a space with a word of its own"
                raise BadInput(problem, key="steps", found=list(steps), allowed=said)
        if self.steps:
            return self
        return type(self).model_validate({**self.model_dump(exclude_unset=True), "steps": steps})


def _applying(step: Step) -> tuple[str, ...]:
    """The words at which a step is taken."""
    if step.stage == "train":
        return TRAINS
    if step.stage == "calibrate":
        return (CALIBRATE,)
    return () if step.word in OF_NO_SPACE else (step.word,)
