"""Transformers of HuggingFace, built from a configuration: nothing is downloaded, no code of others runs.

A model is named `hf:TYPE` (`hf:bert`, `hf:vit`, `hf:gpt2`: the type's standard configuration), or
`hf:PATH` to a `config.json` or the folder that holds one. Values of `[model.config]` replace those.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput, MissingExtra
from paretobit.runtime import optional

Head = Literal["classifier", "language"]
PREFIX = "hf:"
CONFIG = "config.json"
_SUFFIX = "Logits"
_NO_TOKEN = -1
_AT_RUN = ("attn_implementation",)
"""What a configuration takes and does not keep in its file."""
_NOT_SET_HERE = {
    "architectures",
    "id2label",
    "label2id",
    "model_type",
    "num_labels",
    "problem_type",
    "return_dict",
}
"""Keys of a configuration that the data, the name and the head decide."""


def is_huggingface(name: str) -> bool:
    """Whether a model's name means a transformer of HuggingFace."""
    return name.startswith(PREFIX)


def plain_configuration(
    name: str, shape: tuple[int, ...], values: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, Any]]:
    """A model's name without a path, and the values that build it again for samples of this shape, as JSON.

    Raises:
        BadInput, MissingExtra: As in `build_transformer`.
    """
    kind, given = _given(name, values)
    config = _configuration(kind, given)
    keys = _keys(type(config)) - {"transformers_version", *_of_shape(shape)}
    kept = {key: value for key, value in config.to_diff_dict().items() if key in keys}
    return PREFIX + kind, {**kept, **{key: given[key] for key in _AT_RUN if key in given}}


def build_transformer(
    name: str, shape: tuple[int, ...], classes: int, values: Mapping[str, Any] | None, head: Head
) -> nn.Module:
    """A model with fresh weights that maps a batch to logits.

    Args:
        name: `hf:TYPE`, or `hf:PATH` to a `config.json` or its folder.
        shape: Of one sample: images `(channels, height, width)`, or token ids `(tokens,)`.
        classes: Columns of a classifier's logits.
        values: In place of those of the file, or of the type's standard configuration.
        head: `classifier` gives logits `(rows, classes)`, `language` gives `(rows, tokens, vocabulary)`.

    Returns:
        The model under the names that transformers gives its layers and weights, with a `forward` that
        takes the batch and returns the logits. Every token is attended to, padding as well.

    Raises:
        BadInput: No such type or file, a key that the type does not have, a configuration that is
            impossible or does not fit the data, or a head that the type lacks.
        MissingExtra: transformers is not installed.
    """
    kind, given = _given(name, values)
    config = _configuration(kind, given)
    own = _class_of_head(head, shape, config)
    if own is None:
        problem = f"'{kind}' has no {head} head for samples of this shape"
        raise BadInput(problem, key="model.name", found=shape, allowed=_ALLOWED_SHAPES)
    if head == "classifier":
        config.num_labels = classes
    for key, value in _of_shape(shape).items():
        _fit(config, given, key, value)
    _check_size(config, shape)
    if "use_cache" not in given:
        config.use_cache = False  # of generation: of no use here, and kept keys and values are memory
    built: nn.Module = _made(lambda: _logits_only(own)(config), kind)
    if getattr(config, "pad_token_id", 0) is None:
        config.pad_token_id = _NO_TOKEN  # GPT-2 classifies by the last token that is not this one
    return built


class LogitsOnly:
    """In front of a class of transformers: `forward` takes one tensor and returns the logits."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of a batch of images or token ids, rows first."""
        logits: Tensor = super().forward(inputs, return_dict=True).logits  # type: ignore[misc]
        return logits


def input_dtype(model: nn.Module) -> torch.dtype:
    """What a model takes: token ids (int64) where it is a transformer of text, otherwise float32."""
    text = isinstance(model, LogitsOnly) and getattr(model, "main_input_name", "") == "input_ids"
    return torch.int64 if text else torch.float32


def __getattr__(name: str) -> Any:
    """The class of a model by its name: what pickle asks for when a model comes from another process."""
    if name.endswith(_SUFFIX) and not name.startswith("_"):
        try:
            own = getattr(_transformers(), name.removesuffix(_SUFFIX), None)
        except MissingExtra as error:
            raise AttributeError(str(error)) from error
        if own is not None:
            return _logits_only(own)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def _logits_only(own: type[nn.Module]) -> type[nn.Module]:
    """A subclass that only differs in `forward`; one per class, so that copies have the same type."""
    name = own.__name__ + _SUFFIX
    here = vars(sys.modules[__name__])
    if name not in here:
        here[name] = type(name, (LogitsOnly, own), {"__module__": __name__, "__doc__": LogitsOnly.__doc__})
    found: type[nn.Module] = here[name]
    return found


def _transformers() -> Any:
    return optional("transformers", extra="huggingface", purpose="a model of HuggingFace")


def _is_path(wanted: str) -> bool:
    return wanted.endswith(".json") or "/" in wanted or Path(wanted).is_dir()


def _read(path: Path) -> dict[str, Any]:
    path = path / CONFIG if path.is_dir() else path
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput("no such configuration", key="model.name", found=str(path), allowed=CONFIG) from None
    except (OSError, ValueError) as error:
        raise BadInput(f"not a configuration: {error}", source=path) from None
    if not isinstance(page, dict) or "model_type" not in page:
        raise BadInput("not a configuration of transformers", source=path, allowed="a table with model_type")
    return page


def _given(name: str, values: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """The type of a model and its configuration as far as it is given: the file's values, then `values`."""
    wanted = name.removeprefix(PREFIX)
    page = _read(Path(wanted)) if _is_path(wanted) else {"model_type": wanted}
    kind, known = str(page.pop("model_type")), _transformers().CONFIG_MAPPING
    if kind not in known:
        allowed = [*known, f"the path of a {CONFIG}"]
        raise BadInput("unknown type of transformer", key="model.name", found=kind, allowed=allowed)
    keys = _keys(known[kind])
    unknown = next((key for key in values or {} if key not in keys), None)
    if unknown is not None:
        problem = f"a configuration of '{kind}' has no such key, or it is not set here"
        raise BadInput(problem, key="model.config", found=unknown, allowed=sorted(keys))
    return kind, {key: value for key, value in page.items() if key not in _NOT_SET_HERE} | dict(values or {})


def _keys(kind: Any) -> set[str]:
    """What a configuration of this type can be given."""
    return {*kind().to_dict(), *kind.attribute_map, *_AT_RUN} - _NOT_SET_HERE


def _configuration(kind: str, given: Mapping[str, Any]) -> Any:
    """The configuration; marks of begin and end that are not given stay within a smaller vocabulary."""
    own = _transformers().CONFIG_MAPPING[kind]
    vocabulary, standard = given.get("vocab_size"), own()
    marks = {
        key: vocabulary - 1
        for key in ("bos_token_id", "eos_token_id")
        if isinstance(vocabulary, int) and (getattr(standard, key, None) or 0) >= vocabulary
    }
    return _made(lambda: own.from_dict({**marks, **given}), kind)


_ALLOWED_SHAPES = "images (channels, height, width) or token ids (tokens,)"


def _class_of_head(head: Head, shape: tuple[int, ...], config: Any) -> type[nn.Module] | None:
    """The class that has this head for such samples; None where the type has none."""
    models = _transformers()
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise BadInput("a transformer does not take this shape", found=shape, allowed=_ALLOWED_SHAPES)
    kinds: tuple[Any, ...] = (models.MODEL_FOR_MASKED_LM_MAPPING, models.MODEL_FOR_CAUSAL_LM_MAPPING)
    if len(shape) == 3:
        kinds = (models.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,) if head == "classifier" else ()
    elif head == "classifier":
        kinds = (models.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,)
    classes = (kind[type(config)] for kind in kinds if type(config) in kind)  # loads what it is asked for
    return next((own[0] if isinstance(own, tuple) else own for own in classes), None)


def _of_shape(shape: tuple[int, ...]) -> dict[str, Any]:
    """What images decide in a configuration."""
    if len(shape) == 1:
        return {}
    channels, height, width = shape
    return {"num_channels": channels, "image_size": height if height == width else [height, width]}


def _fit(config: Any, given: Mapping[str, Any], key: str, value: Any) -> None:
    """Set a value that the data decides; the configuration may not contradict it."""
    if not hasattr(config, key):
        return
    if given.get(key, value) != value:
        problem = "the configuration does not fit the data"
        raise BadInput(problem, key=f"model.config.{key}", found=given[key], allowed=str(value))
    setattr(config, key, value)


def _check_size(config: Any, shape: tuple[int, ...]) -> None:
    patch = getattr(config, "patch_size", None)
    if len(shape) == 3 and isinstance(patch, int) and any(side % patch for side in shape[1:]):
        allowed = f"a number that divides {' and '.join(map(str, sorted(set(shape[1:]))))}"
        raise BadInput(
            "patches do not fill the image", key="model.config.patch_size", found=patch, allowed=allowed
        )
    longest = getattr(config, "max_position_embeddings", None)
    if len(shape) == 1 and isinstance(longest, int) and shape[0] > longest:
        key = "model.config.max_position_embeddings"
        raise BadInput(
            "samples are longer than the model", key=key, found=longest, allowed=f"{shape[0]} or more"
        )


def _made(make: Any, kind: str) -> Any:
    """What `make` makes; what transformers objects to becomes an error about the configuration."""
    try:
        return make()
    except BadInput:
        raise
    except Exception as error:  # each type checks its configuration in its own way
        message = " ".join(str(error).split())
        problem = f"transformers cannot build '{kind}' so: {type(error).__name__}: {message}"
        raise BadInput(problem, key="model.config") from error
