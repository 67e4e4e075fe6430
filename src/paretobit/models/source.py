"""Where a model comes from: the zoo by name, a configuration of HuggingFace, or a user's function."""

import inspect
import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn

from paretobit.errors import BadInput
from paretobit.models.huggingface import PREFIX, Head, Tokens, build_transformer, is_huggingface, plain_configuration
from paretobit.models.pretrained import origin_of
from paretobit.models.zoo import MODELS, Layout
from paretobit.runtime import is_reference, load_function, seeded

Shape = tuple[int, ...]


class ModelSettings(BaseModel):
    """Settings of `[model]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        "jsc-three-linear",
        description="a model of the zoo, path/to/file.py:function, hf:TYPE (hf:vit), hf:path/to/config.json, "
        "or with weights to start from hf:FOLDER or hf:NAME of HuggingFace's hub",
    )
    load: str | None = Field(
        None, description="checkpoint to start from, $VARIABLES filled in; a search without one trains first"
    )
    from_run: str | None = Field(
        None,
        description="the model of another search to start from, in full precision: 'runs/a:best', or of a "
        "trial that trained and is on the front, 'runs/a:17'",
    )
    config: dict[str, Any] = Field({}, description="hf: values in place of those of the configuration")
    head: Head = Field("classifier", description="hf: classifier, or language for logits per token")

    @field_validator("name", "load")
    @classmethod
    def _filled_in(cls, given: str | None) -> str | None:
        return None if given is None else os.path.expandvars(given)

    @property
    def given(self) -> bool:
        """Whether there are weights to start from."""
        if self.load is not None or self.from_run is not None:
            return True
        return is_huggingface(self.name) and origin_of(self.name.removeprefix(PREFIX)).weights is not None


def layout(name: str) -> Layout | None:
    """How the model wants its samples; None where it takes them as they come.

    Raises:
        BadInput: The name is neither in the zoo, nor of HuggingFace, nor a reference to a function.
    """
    if is_reference(name) or is_huggingface(name):
        return None
    if name not in MODELS:
        allowed = [*MODELS.names(), "path/to/file.py:function", "hf:TYPE", "hf:path/to/config.json"]
        raise BadInput(f"unknown {MODELS.noun}", key="model.name", found=name, allowed=allowed)
    return MODELS[name].layout


def build(
    name: str,
    input_shape: Shape,
    num_classes: int,
    seed: int = 0,
    *,
    config: Mapping[str, Any] | None = None,
    head: Head = "classifier",
    tokens: Tokens | None = None,
) -> nn.Module:
    """A freshly initialised model for samples of this shape and so many classes.

    A user's function is called with those of the arguments `input_shape`, `in_features`,
    `num_classes`, `vocab_size` and `pad` that it takes, the last two where the data has them.

    Args:
        name: As in `[model]`, and so are `config` and `head`, which only transformers heed.
        input_shape: Of one sample, without the batch.
        num_classes: Columns of the logits.
        seed: Decides the weights.
        tokens: `vocab_size` and `pad` of the data, where it is text.

    Raises:
        BadInput: The name is unknown, the function does not return a module, or the configuration
            does not fit.
        MissingExtra: The model needs a package that is not installed.
    """
    _check_heeded(name, config, head)
    with seeded(seed):
        if is_huggingface(name):
            return build_transformer(name, input_shape, num_classes, config, head, tokens)
        if not is_reference(name):
            return MODELS[name].build(input_shape, num_classes)
        offered = {"input_shape": input_shape, "in_features": input_shape[0], "num_classes": num_classes}
        return _call(name, {**offered, **(tokens or {})})


def source_of(
    name: str,
    input_shape: Shape,
    num_classes: int,
    *,
    config: Mapping[str, Any] | None = None,
    head: Head = "classifier",
    tokens: Tokens | None = None,
) -> dict[str, Any]:
    """The arguments of `build`, as JSON that needs no other file than a function's own."""
    _check_heeded(name, config, head)
    source: dict[str, Any] = {"input_shape": list(input_shape), "num_classes": num_classes}
    if tokens is not None:
        source["tokens"] = dict(tokens)
    if not is_huggingface(name):
        return {"name": name, **source}
    plain, values = plain_configuration(name, input_shape, config, tokens)
    return {"name": plain, **source, "config": values, "head": head}


def build_again(source: Mapping[str, Any]) -> nn.Module:
    """A model from what `source_of` gave."""
    return build(
        source["name"],
        tuple(source["input_shape"]),
        source["num_classes"],
        config=source.get("config"),
        head=source.get("head", "classifier"),
        tokens=source.get("tokens"),
    )


def _check_heeded(name: str, config: Mapping[str, Any] | None, head: Head) -> None:
    layout(name)
    if not is_huggingface(name) and (config or head != "classifier"):
        key, found = ("config", dict(config)) if config else ("head", head)
        problem = f"'{name}' does not heed this setting"
        raise BadInput(problem, key=f"model.{key}", found=found, allowed="with hf: models")


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
        raise BadInput("the function returned no model", key=reference, found=type(model).__name__, allowed="nn.Module")
    return model
