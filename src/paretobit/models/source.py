"""Where a model comes from: the zoo by name, or a user's function."""

from __future__ import annotations

import inspect
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from paretobit.errors import BadInput
from paretobit.models.zoo import MODELS
from paretobit.runtime import is_reference, load_function, seeded

Shape = tuple[int, ...]


class ModelSettings(BaseModel):
    """Settings of `[model]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("jsc-three-linear", description="a model of the zoo, or path/to/file.py:function")
    load: str | None = Field(None, description="checkpoint to start from; a search without one trains first")


def layout(name: str) -> Literal["features", "image"] | None:
    """How the model wants its samples; None where it takes them as they come.

    Raises:
        BadInput: The name is neither in the zoo nor a reference to a function.
    """
    if is_reference(name):
        return None
    try:
        return MODELS[name].layout
    except BadInput as error:
        error.allowed = [*MODELS.names(), "path/to/file.py:function"]
        raise error.located(None, "model.name") from None


def build(name: str, input_shape: Shape, num_classes: int, seed: int = 0) -> nn.Module:
    """A freshly initialised model for samples of this shape and so many classes.

    A user's function is called with those of the arguments `input_shape`, `in_features` and
    `num_classes` that it takes.

    Raises:
        BadInput: The name is unknown, or the function does not return a module.
    """
    layout(name)
    with seeded(seed):
        if not is_reference(name):
            return MODELS[name].build(input_shape, num_classes)
        return _call(
            name, {"input_shape": input_shape, "in_features": input_shape[0], "num_classes": num_classes}
        )


def _call(reference: str, offered: dict[str, Any]) -> nn.Module:
    function = load_function(reference)
    if not callable(function):
        raise BadInput("not a function", key=reference, found=function)
    parameters = inspect.signature(function).parameters
    arguments = {key: value for key, value in offered.items() if key in parameters}
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in arguments
    ]
    if missing:
        raise BadInput(
            "the function needs arguments that are not offered", key=reference, found=missing, allowed=offered
        )
    try:
        model = function(**arguments)
    except (Exception, SystemExit) as error:
        raise BadInput(f"the function raised {type(error).__name__}: {error}", key=reference) from error
    if not isinstance(model, nn.Module):
        raise BadInput(
            "the function returned no model", key=reference, found=type(model).__name__, allowed="nn.Module"
        )
    return model
