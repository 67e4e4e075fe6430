"""Learning from a teacher: the distillation of Hinton et al. 2015, arXiv 1503.02531."""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.graph.copies import copy_of
from paretobit.training.evaluate import run_on_view


class Distillation(BaseModel):
    """How a student learns from its teacher; only for trainings that have one.

    Raises:
        pydantic.ValidationError: A value is of the wrong type or out of range, or a key is unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    teacher_weight: float = Field(
        0.5, gt=0, le=1, description="share of the loss that is the distance to the teacher, the labels have the rest"
    )
    teacher_temperature: float = Field(
        2.0, gt=0, allow_inf_nan=False, description="divides the logits of both before they are compared"
    )


def distance(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """`T² · KL(softmax(targets / T) || softmax(logits / T))` in nats, the mean over rows, 0-d.

    T² keeps its gradient of the size of that of the labels (section 2 of the paper).

    >>> distance(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]]), 2.0).item()
    0.0
    """
    student, teacher = (F.log_softmax(values / temperature, 1) for values in (logits, targets))
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


class Teacher:
    """A copy of the teaching model, in evaluation mode: the caller's own is left alone.

    Args:
        model: Maps `(rows, ...)` to logits `(rows, classes)`.
        settings: See `Distillation`.
        place: Device to run on.
    """

    def __init__(self, model: nn.Module, settings: Distillation, place: torch.device) -> None:
        self.settings = settings
        self._model = copy_of(model).to(place).eval()

    def logits(self, x: Tensor) -> Tensor:
        """`(rows, classes)` of a batch, which is left as it is."""
        with torch.no_grad():
            return run_on_view(self._model, x)

    def loss(self, hard: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """`(1 - weight) · hard + weight · distance`, 0-d; `targets` are the teacher's logits."""
        weight = self.settings.teacher_weight
        soft = distance(logits, targets, self.settings.teacher_temperature)
        return (1 - weight) * hard + weight * soft

    def check(self, x: Tensor, shape: tuple[int, ...]) -> None:
        """Refuse a teacher that does not run on the student's rows, or has other classes.

        Args:
            x: Some rows.
            shape: Of the student's logits for them.

        Raises:
            BadInput: Such a teacher.
        """
        try:
            found = tuple(self.logits(x).shape)
        except Exception as error:  # a user's model can fail in any way at all
            problem = f"the teacher does not run on this data: {type(error).__name__}: {error}"
            raise BadInput(problem, key="teacher", found=tuple(x.shape)) from error
        if found != shape:
            raise BadInput("the teacher has not the student's classes", key="teacher", found=found, allowed=str(shape))
