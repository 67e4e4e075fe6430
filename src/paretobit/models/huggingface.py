"""Transformers of HuggingFace, from a configuration or with weights to start from; no code of others runs.

A model is named `hf:TYPE` (`hf:bert`, `hf:vit`, `hf:gpt2`: the type's standard configuration),
`hf:PATH` to a `config.json` or the folder that holds one, whose weights are taken where it holds some,
or `hf:NAME` for a name on the hub. Values of `[model.config]` replace those of the configuration.
"""

import sys
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput, MissingExtra
from paretobit.models.pretrained import CONFIG, from_weights, origin_of, transformers

Head = Literal["classifier", "language"]
Tokens = Mapping[str, int]
"""What the data says of its token ids: `vocab_size`, one more than the largest, and `pad`, which fills up."""
PREFIX = "hf:"
_SUFFIX = "Logits"
_NO_TOKEN = -1
_AT_RUN = ("attn_implementation",)
"""What a configuration takes and does not keep in its file."""
_NOT_SET_HERE = {"architectures", "id2label", "label2id", "model_type", "num_labels", "problem_type", "return_dict"}
"""Keys of a configuration that the data, the name and the head decide."""


def is_huggingface(name: str) -> bool:
    """Whether a model's name means a transformer of HuggingFace."""
    return name.startswith(PREFIX)


def plain_configuration(
    name: str, shape: tuple[int, ...], values: Mapping[str, Any] | None = None, tokens: Tokens | None = None
) -> tuple[str, dict[str, Any]]:
    """A model's name without a path, and the values that build it again for samples of this shape, as JSON.

    Raises:
        BadInput, MissingExtra: As in `build_transformer`.
    """
    kind, given, _ = _given(name, values)
    config = _configuration(kind, _with_tokens(kind, given, tokens))
    keys = _keys(type(config)) - {"transformers_version", *_of_shape(shape)}
    kept = {key: value for key, value in config.to_diff_dict().items() if key in keys}
    return PREFIX + kind, {**kept, **{key: given[key] for key in _AT_RUN if key in given}}


def build_transformer(
    name: str,
    shape: tuple[int, ...],
    classes: int,
    values: Mapping[str, Any] | None,
    head: Head,
    tokens: Tokens | None = None,
) -> nn.Module:
    """A model that maps a batch to logits, with fresh weights or with those that its name stands for.

    Args:
        name: `hf:TYPE`, `hf:PATH` to a `config.json` or its folder, or `hf:NAME` on the hub.
        shape: Of one sample: images `(channels, height, width)`, or token ids `(tokens,)`.
        classes: Columns of a classifier's logits.
        values: In place of those of the file, or of the type's standard configuration.
        head: `classifier` gives logits `(rows, classes)`, `language` gives `(rows, tokens, vocabulary)`.
        tokens: Of the data. A configuration that does not say its vocabulary or its padding takes them
            from there, and a classifier masks the padding. Without it every token is attended to.

    Returns:
        The model under the names that transformers gives its layers and weights, with a `forward` that
        takes the batch and returns the logits.

    Raises:
        BadInput: No such type or file, a key that the type does not have, a configuration that is
            impossible or does not fit the data, a vocabulary smaller than the tokenizer's, weights that
            do not fit, or a head that the type lacks.
        MissingExtra: transformers is not installed.
    """
    kind, given, weights = _given(name, values)
    config = _configuration(kind, _with_tokens(kind, given, tokens))
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
    ours = _logits_only(own)
    built: Any = _made(lambda: from_weights(ours, config, weights) if weights else ours(config), kind)
    _check_positions(built, shape)
    if tokens is not None and head == "classifier" and len(shape) == 1:
        built.padding = tokens["pad"]
    config = built.config
    if getattr(config, "pad_token_id", 0) is None:
        config.pad_token_id = _NO_TOKEN  # GPT-2 classifies by the last token that is not this one
    made: nn.Module = built
    return made


class LogitsOnly:
    """In front of a class of transformers: `forward` takes one tensor and returns the logits.

    Attributes:
        padding: Token id that fills up rows at their end and is not attended to; None for none.
    """

    padding: int | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of a batch of images or token ids, rows first.

        Where padding is known, a batch is cut to its longest row first, and each row's logits are those of
        the row without its padding. A row of nothing but padding counts as one token of it.
        """
        mask = {}
        if self.padding is not None:
            longest, ragged = _extent(inputs, self.padding)
            if longest < inputs.shape[1]:
                inputs = inputs[:, :longest]
            # Without a mask where none is needed: attention is faster so, and its trace has no masks in it.
            if ragged:
                mask = {"attention_mask": _mask(inputs, self.padding)}
        logits: Tensor = super().forward(inputs, **mask, return_dict=True).logits  # type: ignore[misc]
        return logits


def _extent(inputs: Tensor, pad: int) -> tuple[int, bool]:
    """Tokens of the longest row, and whether any row is shorter. Who records a run does not see how."""
    if torch.compiler.is_exporting():  # what is exported takes any batch of this width
        return inputs.shape[1], True
    with torch._C.DisableTorchFunction():
        kept = inputs != pad
        places = kept.any(0).nonzero()
        longest = int(places[-1]) + 1 if len(places) else 1
        return longest, longest > 1 and not bool(kept[:, :longest].all())


def _mask(inputs: Tensor, pad: int) -> Tensor:
    """1 where a token is attended to, else 0; of each row at least the first, or attention has no weights."""
    first = torch.arange(inputs.shape[1], device=inputs.device) == 0
    return ((inputs != pad) | first).to(torch.int64)


def input_dtype(model: nn.Module) -> torch.dtype:
    """What a model takes: token ids (int64) where it is a transformer of text, otherwise float32."""
    text = isinstance(model, LogitsOnly) and getattr(model, "main_input_name", "") == "input_ids"
    return torch.int64 if text else torch.float32


def example_input(model: nn.Module, shape: tuple[int, ...], rows: int = 2) -> Tensor:
    """What a model of samples of this shape runs on, rows×shape: zeros, or tokens none of which is padding."""
    token = 1 if getattr(model, "padding", None) == 0 else 0
    return torch.full((rows, *shape), token, dtype=input_dtype(model))


def __getattr__(name: str) -> Any:
    """The class of a model by its name: what pickle asks for when a model comes from another process."""
    if name.endswith(_SUFFIX) and not name.startswith("_"):
        try:
            own = getattr(transformers(), name.removesuffix(_SUFFIX), None)
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


def _given(name: str, values: Mapping[str, Any] | None) -> tuple[str, dict[str, Any], str | None]:
    """The type of a model, its configuration as far as it is given (the file's values, then `values`), and
    where its weights are, if anywhere."""
    origin = origin_of(name.removeprefix(PREFIX))
    page, known = dict(origin.page), transformers().CONFIG_MAPPING
    kind = str(page.pop("model_type"))
    if kind not in known:
        allowed = [*known, f"the path of a {CONFIG}"]
        raise BadInput("unknown type of transformer", key="model.name", found=kind, allowed=allowed)
    keys = _keys(known[kind])
    unknown = next((key for key in values or {} if key not in keys), None)
    if unknown is not None:
        problem = f"a configuration of '{kind}' has no such key, or it is not set here"
        raise BadInput(problem, key="model.config", found=unknown, allowed=sorted(keys))
    given = {key: value for key, value in page.items() if key not in _NOT_SET_HERE} | dict(values or {})
    return kind, given, origin.weights


def _with_tokens(kind: str, given: Mapping[str, Any], tokens: Tokens | None) -> dict[str, Any]:
    """The configuration, and what it does not say of token ids as the data has it; it may not contradict it."""
    if tokens is None:
        return dict(given)
    keys = _keys(transformers().CONFIG_MAPPING[kind])
    wanted = {"vocab_size": tokens["vocab_size"], "pad_token_id": tokens["pad"]}
    told = {key: value for key, value in wanted.items() if key in keys and given.get(key) is None}
    full = {**given, **told}
    if "vocab_size" in keys and full["vocab_size"] < tokens["vocab_size"]:
        problem, allowed = "the tokenizer has more ids than the model", f"{tokens['vocab_size']} or more"
        raise BadInput(problem, key="model.config.vocab_size", found=full["vocab_size"], allowed=allowed)
    if "pad_token_id" in keys and full["pad_token_id"] != tokens["pad"]:
        problem, found = "the model pads with another token than the data", full["pad_token_id"]
        allowed = f"{tokens['pad']}, or the model's own tokenizer"
        raise BadInput(problem, key="model.config.pad_token_id", found=found, allowed=allowed)
    return full


def _keys(kind: Any) -> set[str]:
    """What a configuration of this type can be given."""
    return {*kind().to_dict(), *kind.attribute_map, *_AT_RUN} - _NOT_SET_HERE


def _configuration(kind: str, given: Mapping[str, Any]) -> Any:
    """The configuration; marks of begin and end that are not given stay within a smaller vocabulary."""
    own = transformers().CONFIG_MAPPING[kind]
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
    models = transformers()
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
        raise BadInput("patches do not fill the image", key="model.config.patch_size", found=patch, allowed=allowed)
    longest = getattr(config, "max_position_embeddings", None)
    if len(shape) == 1 and isinstance(longest, int) and shape[0] > longest:
        key = "model.config.max_position_embeddings"
        raise BadInput("samples are longer than the model", key=key, found=longest, allowed=f"{shape[0]} or more")


def _check_positions(model: nn.Module, shape: tuple[int, ...]) -> None:
    """RoBERTa and its kin count positions from behind the number of their padding."""
    for path, module in model.named_modules():
        if not path.endswith("position_embeddings") or not isinstance(module, nn.Embedding):
            continue
        usable = module.num_embeddings - (-1 if module.padding_idx is None else module.padding_idx) - 1
        if len(shape) == 1 and shape[0] > usable:
            longest = module.num_embeddings
            key, allowed = "model.config.max_position_embeddings", f"{shape[0] + longest - usable} or more"
            raise BadInput("samples are longer than the model", key=key, found=longest, allowed=allowed)


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
