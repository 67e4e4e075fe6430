"""Where the configuration and the weights of a transformer come from: its type, a folder, or the hub."""

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from paretobit.errors import BadInput, CheckpointMismatch, first_line
from paretobit.runtime import optional

CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SHOWN = 6
_POOLER = re.compile(r"(^|\.)pooler\.")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """What a name of a transformer stands for.

    Args:
        page: Values of the configuration, `model_type` among them.
        weights: Folder, or name on the hub, of the weights to start from; None for fresh ones.
    """

    page: dict[str, Any]
    weights: str | None = None


def transformers() -> Any:
    """The package.

    Raises:
        MissingExtra: It is not installed.
    """
    return optional("transformers", extra="huggingface", purpose="a model of HuggingFace")


def origin_of(wanted: str) -> Origin:
    """What follows `hf:`: a type, the path of a `config.json`, a folder with one, or a name on the hub.

    A folder may hold weights beside its configuration; a path of the file itself means the configuration
    alone. A name on the hub has a dash or one slash in it and is no type (`bert-base-uncased`).

    Raises:
        BadInput: There is no such file, it is no configuration, or the hub does not give it.
        MissingExtra: transformers is not installed.
    """
    known = transformers().CONFIG_MAPPING
    path = Path(wanted).expanduser()
    if path.is_dir():
        has_weights = any((path / name).is_file() for name in _WEIGHTS)
        return Origin(_read(path / CONFIG), str(path) if has_weights else None)
    if wanted in known:
        return Origin({"model_type": wanted})
    if wanted.endswith(".json") or wanted.startswith((".", "~", "/")) or wanted.count("/") > 1:
        return Origin(_read(path))
    if "/" not in wanted and "-" not in wanted:
        allowed = [*known, f"the path of a {CONFIG}"]
        raise BadInput("unknown type of transformer", key="model.name", found=wanted, allowed=allowed)
    return Origin(_from_hub(wanted), wanted)


def from_weights(kind: type[nn.Module], config: Any, weights: str) -> nn.Module:
    """A model with the weights of a folder or of the hub; what they lack of its head is fresh, and said so.

    Args:
        kind: Class of the model, of transformers.
        config: Its configuration.
        weights: Of an `Origin`.

    Returns:
        The model in float32. Weights that it does not have, of another head, are left out.

    Raises:
        BadInput: The weights cannot be read without running code, or not at all.
        CheckpointMismatch: They lack weights of the body, or have them in other shapes.
    """
    try:
        model, info = kind.from_pretrained(  # type: ignore[attr-defined]
            weights,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            weights_only=True,
        )
    except Exception as error:  # files, network, pickles: each in its own way
        problem = f"the weights cannot be loaded: {first_line(error)}"
        raise BadInput(problem, key="model.name", found=weights) from error
    misshapen = {name: (tuple(given), tuple(wanted)) for name, given, wanted in info["mismatched_keys"]}
    fresh = {*info["missing_keys"], *misshapen}
    inside = f"{model.base_model_prefix}."  # what is below the head; a pooler is trained with the head
    body = sorted(name for name in fresh if name.startswith(inside) and not _POOLER.search(name))
    if body:
        listed = [
            f"{name} {misshapen[name][0]} for {misshapen[name][1]}" if name in misshapen else name for name in body
        ]
        allowed = f"weights of this configuration; hf:PATH/{CONFIG} starts from fresh ones"
        problem = f"the weights do not fit the model: {', '.join(listed[:_SHOWN])}"
        raise CheckpointMismatch(problem, source=weights, allowed=allowed)
    if fresh:
        _log.warning("%s: these weights are fresh, not from there: %s", weights, ", ".join(sorted(fresh)))
    found: nn.Module = model.train()
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput("no such configuration", key="model.name", found=str(path), allowed=CONFIG) from None
    except (OSError, ValueError) as error:
        raise BadInput(f"not a configuration: {error}", source=path) from None
    if not isinstance(page, dict) or "model_type" not in page:
        raise BadInput("not a configuration of transformers", source=path, allowed="a table with model_type")
    return page


def _from_hub(name: str) -> dict[str, Any]:
    models = transformers()
    try:
        page, _ = models.PreTrainedConfig.get_config_dict(name)
    except Exception as error:  # no network, no such name, no access
        problem = f"neither a type of transformer nor to be had from HuggingFace's hub: {first_line(error)}"
        allowed = [*models.CONFIG_MAPPING, f"the path of a {CONFIG}"]
        raise BadInput(problem, key="model.name", found=name, allowed=allowed) from error
    if "model_type" not in page:
        raise BadInput("not a configuration of transformers", source=name, allowed="a table with model_type")
    return {key: value for key, value in page.items() if not key.startswith("_")}
