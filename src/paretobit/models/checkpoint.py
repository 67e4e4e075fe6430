"""Weights on disk: read from the common containers without running code, fitted to a model, saved."""

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput, CheckpointMismatch
from paretobit.nn.masks import SUFFIX, masks_in_state, place_masks
from paretobit.storage import read_tensors, write_tensors

WEIGHTS = "weights.safetensors"
OF_TRANSFORMERS = "model.safetensors"
PICKLES = (".pt", ".pth", ".th", ".ckpt")
SUFFIXES = (".safetensors", *PICKLES)
# What training frameworks put around a state dict, and in front of its names.
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.", "_orig_mod.")
SHOWN = 6


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, on the CPU, under the names the file gives them.

    Args:
        path: A `.safetensors` file; a `.pt`, `.pth`, `.th` or Lightning `.ckpt` file whose state dict stands
            alone or under `state_dict`, `model_state_dict` or `model`; or a folder that holds
            `weights.safetensors`, `best/weights.safetensors` or, as transformers has it,
            `model.safetensors`.

    Raises:
        BadInput: The file is missing, of unknown kind, damaged, holds no tensors, or would have to run code.
    """
    path = _file(Path(path))
    state = read_tensors(path) if path.suffix == ".safetensors" else _find_state(_unpickle(path))
    if state is None:
        raise BadInput("not a checkpoint", source=path, allowed=f"a state dict, or one under {', '.join(WRAPPERS)}")
    if not state:
        raise BadInput("no tensors in the checkpoint", source=path)
    return state


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: object) -> None:
    """Copy `state` into `model`: all of it, or nothing.

    Prefixes that wrappers add (`module.`, `model.`) are taken off where that makes the names fit; BatchNorm's
    `num_batches_tracked` may be absent or extra; of tied weights one name suffices. Masks of pruned weights
    that the state has and the model has not are placed.

    Args:
        model: Changed in place.
        state: Names to tensors; converted to the dtype and device of the model's.
        source: Where the state came from, for messages.

    Raises:
        CheckpointMismatch: Names are missing or unexpected, or shapes differ; the model is untouched.
    """
    target = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    given = _without_prefixes(state, target)
    present = {_place(target[name]) for name in given if name in target}
    missing = [name for name in target if name not in given and _place(target[name]) not in present]
    missing = [name for name in missing if not _is_counter(name)]
    masks = masks_in_state(given, model)
    masked = {f"{path}.{name}{SUFFIX}".lstrip(".") for path, names in masks.items() for name in names}
    unexpected = [n for n in given if n not in target and n not in masked and not _is_counter(n)]
    misshapen = [name for name in given if name in target and given[name].shape != target[name].shape]
    if missing or unexpected or misshapen:
        reports = (
            _listed("missing", (f"{name} {_shape(target[name])}" for name in missing)),
            _listed("unexpected", (f"{name} {_shape(given[name])}" for name in unexpected)),
            _listed(
                "of another shape",
                (f"{name} {_shape(given[name])}, the model's is {_shape(target[name])}" for name in misshapen),
            ),
        )
        problem = "the weights do not fit the model: " + "; ".join(report for report in reports if report)
        raise CheckpointMismatch(problem, source=source)
    place_masks(model, masks)
    fitting = {name: tensor for name, tensor in given.items() if name in target or name in masked}
    model.load_state_dict(fitting, strict=False)


def save_weights(model: nn.Module | Mapping[str, Tensor], path: str | Path) -> None:
    """Write a model's state dict, or a mapping of names to tensors, to a safetensors file in one step.

    Tied weights are written under each of their names, so `load_state` restores them.

    Raises:
        BadInput: The name does not end in `.safetensors`, or there is nothing to write.
    """
    if Path(path).suffix != ".safetensors":
        raise BadInput("weights are saved as safetensors", key="path", found=str(path), allowed="*.safetensors")
    state = model.state_dict() if isinstance(model, nn.Module) else model
    tensors = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise BadInput("no tensors to save", key="model", source=path)
    write_tensors(path, tensors)


def _file(path: Path) -> Path:
    if path.is_dir():
        candidates = [path / WEIGHTS, path / "best" / WEIGHTS, path / OF_TRANSFORMERS]
        found = [candidate for candidate in candidates if candidate.is_file()]
        if not found:
            allowed = f"a folder with {WEIGHTS}, best/{WEIGHTS} or {OF_TRANSFORMERS}"
            raise BadInput("no weights in the folder", found=str(path), allowed=allowed)
        return found[0]
    if not path.exists():
        raise BadInput("no such file", found=str(path))
    if path.suffix not in SUFFIXES:
        raise BadInput("unknown kind of checkpoint", source=path, found=path.suffix, allowed=SUFFIXES)
    return path


def _unpickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: said better below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way at all
        message = str(error).partition("WeightsUnpickler error:")[2].strip() or str(error).strip()
        if code := re.search(r"GLOBAL ([\w.]+)|unrecognized (?:function|class) (.+)", message):
            raise BadInput(
                f"refused: reading this checkpoint would run code from it ({code[1] or code[2]})",
                source=path,
                allowed="plain tensors: save model.state_dict(), not the model or its training objects",
            ) from None
        first = next(iter(message.splitlines()), type(error).__name__)
        raise BadInput(f"the checkpoint is damaged, or is not one: {first}", source=path) from None


def _find_state(data: Any) -> dict[str, Tensor] | None:
    """The state dict inside what a checkpoint holds; None when there is no mapping to look in."""
    if not isinstance(data, Mapping):
        return None
    for wrapper in WRAPPERS:
        if isinstance(data.get(wrapper), Mapping):
            return _find_state(data[wrapper])
    return {str(name): value.detach() for name, value in data.items() if isinstance(value, Tensor)}


def _without_prefixes(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` under the names that fit `target` best, of those that taking off prefixes gives."""
    best = names = dict(state)
    while prefix := _common_prefix(names):
        stripped = {name.removeprefix(prefix): tensor for name, tensor in names.items()}
        if len(stripped) < len(names):
            break
        names = stripped
        if len(names.keys() & target.keys()) > len(best.keys() & target.keys()):
            best = names
    return best


def _common_prefix(names: Iterable[str]) -> str | None:
    names = list(names)
    common = (p for p in PREFIXES if 2 * sum(name.startswith(p) for name in names) > len(names))
    return next(common, None)


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == "num_batches_tracked"


def _place(tensor: Tensor) -> object:
    """Equal for two names of one tensor and for nothing else."""
    address = tensor.data_ptr()
    return (address, tensor.shape, tensor.stride()) if address else id(tensor)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _listed(title: str, items: Iterable[str]) -> str:
    items = list(items)
    if not items:
        return ""
    rest = f", and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return f"{len(items)} {title}: {', '.join(items[:SHOWN])}{rest}"
