"""The space `training`: how a trial trains, in place of what the settings of its steps say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import ValidationError
from torch import nn

from paretobit.data.calibration import Calibration
from paretobit.errors import BadInput, located
from paretobit.graph import ModelGraph
from paretobit.schemas import Entries
from paretobit.spaces.base import SPACES, BoundSpace, Dropped, Given, Space, Step, Weights
from paretobit.spaces.format_knobs import as_list
from paretobit.spaces.knobs import Config, Knob, Tree
from paretobit.training import TrainSettings

TRAIN, FINETUNE = "train", "finetune"
_NOT_VARIED = ("seed", "device")


@SPACES.register("training")
class Training(Space):
    """Batch size, learning rate, epochs, optimiser: any setting of training.

    Args:
        seed: Setting of training, but seed and device, to its choices, for the step `train`; under `finetune` a
            table for that step.

    Raises:
        BadInput: No such setting, or a value that it cannot have.

    >>> Training(seed={"learning_rate": [1e-3, 1e-2], "finetune": {"max_epochs": [1, 2]}}).tree.size
    4
    """

    name: ClassVar[str] = "training"
    step: ClassVar[Step | None] = Step("train", "train")
    needs_training: ClassVar[bool] = True

    def __init__(self, seed: Annotated[Mapping[str, Any], Entries(noun="settings")]) -> None:
        self.check(seed=seed)
        self.seed = dict(seed)
        later = self.seed.get(FINETUNE, {})
        if not isinstance(later, Mapping):
            raise BadInput("not a table", key=f"seed.{FINETUNE}", found=later)
        first = {key: choices for key, choices in self.seed.items() if key != FINETUNE}
        self.choices = {**_checked(first, TRAIN, "seed"), **_checked(later, FINETUNE, f"seed.{FINETUNE}")}
        self.tree = Tree(tuple(Knob.of(key, values) for key, values in self.choices.items() if len(values) > 1))

    def bind(self, graph: ModelGraph, calibration: Calibration | None = None) -> BoundTraining:
        return BoundTraining(self, graph)

    @staticmethod
    def explain(described: Mapping[str, Any], config: Config) -> dict[str, Any]:
        """`{"train": {"config": {"learning_rate": 0.01}}}`."""
        spelt: dict[str, Any] = {}
        for key, values in described["choices"].items():
            step, _, name = key.partition(".")
            chosen = config.get(key, values[0])
            spelt.setdefault(step, {"config": {}})["config"][name] = chosen
        return spelt


class BoundTraining(BoundSpace):
    """The space `training` over one model."""

    name = "training"

    def __init__(self, space: Training, graph: ModelGraph) -> None:
        super().__init__(graph)
        self._choices, self.tree = space.choices, space.tree
        single = [key for key, values in space.choices.items() if len(values) == 1]
        self.dropped = tuple(Dropped(key, "there is one choice, which is taken") for key in single)
        self.matched, self.unmatched = (), tuple(node.name for node in graph.layers)

    def train_settings(self, step: str, given: Given, config: Config) -> Given:
        chosen = {
            key.partition(".")[2]: config.get(key, values[0])
            for key, values in self._choices.items()
            if key.startswith(f"{step}.")
        }
        return type(given).model_validate({**given.model_dump(exclude_unset=True), **chosen})

    def check_steps(self, steps: Mapping[str, TrainSettings]) -> None:
        """Refuse choices for a step that is not taken, or that its other settings do not go with.

        Raises:
            BadInput: Which one.
        """
        for key, values in self._choices.items():
            step, _, name = key.partition(".")
            if step not in steps:
                raise BadInput(f"no step '{step}' is taken", key="seed", found=key, allowed=list(steps))
            for value in values:
                given = steps[step].model_dump(exclude_unset=True)
                type(steps[step]).model_validate({**given, name: value})

    def weights(self, config: Config) -> Weights:
        return {}

    def apply(self, prepared: nn.Module, config: Config | None) -> nn.Module:
        return prepared

    def describe(self) -> dict[str, Any]:
        return {"choices": self._choices}


def _checked(seed: Mapping[str, Any], step: str, place: str) -> dict[str, list[Any]]:
    """`step.setting` to its choices, every one of them possible by itself."""
    allowed = [key for key in TrainSettings.model_fields if key not in _NOT_VARIED]
    found = {}
    for key, choices in seed.items():
        if key not in allowed:
            raise BadInput("no setting of training", key=f"{place}.{key}", found=key, allowed=allowed)
        listed = as_list(choices)
        for value in listed:
            with located(key=f"{place}.{key}"):
                if not isinstance(value, str | int | float | bool | None):
                    raise BadInput("not a plain value", found=value)
                try:
                    TrainSettings.model_validate({key: value})
                except ValidationError as error:
                    raise BadInput(error.errors()[0]["msg"], found=value) from None
        found[f"{step}.{key}"] = listed
    return found
