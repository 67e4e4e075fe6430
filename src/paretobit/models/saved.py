"""Models on disk: a folder with the weights and a page that says how to build the model again.

best/
  weights.safetensors   the float weights and statistics
  model.json            source, formats of every layer, what else is known
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from paretobit.errors import BadInput
from paretobit.formats import FULL, parse
from paretobit.models.checkpoint import load_state, read_state, save_weights
from paretobit.models.source import Shape, build
from paretobit.passes.transform import apply_assignment, assignment_of
from paretobit.storage import write_text_atomic

MANIFEST, WEIGHTS = "model.json", "weights.safetensors"
VERSION = 1
_SOURCE = {"name", "input_shape", "num_classes"}


def source_of(name: str, input_shape: Shape, num_classes: int) -> dict[str, Any]:
    """What `build` needs, as JSON."""
    return {"name": name, "input_shape": list(input_shape), "num_classes": num_classes}


def write_manifest(
    folder: Path, *, source: Mapping[str, Any] | None, layers: Mapping[str, Any] | None = None, **known: Any
) -> None:
    """Write `model.json`.

    Args:
        folder: Created if need be.
        source: From `source_of`; None for a model that only exists in Python.
        layers: Path of a layer to the text of each slot's format.
        known: Anything else worth keeping: data settings, metrics, the trial.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = {"version": VERSION, "source": source, "layers": layers or {}, **known}
    write_text_atomic(folder / MANIFEST, json.dumps(page, indent=2) + "\n")


def save(
    folder: str | Path, model: nn.Module, *, source: Mapping[str, Any] | None = None, **known: Any
) -> None:
    """Save a model, quantised or not, so that `load` gives it back bit for bit."""
    folder = Path(folder)
    layers = {
        path: {slot: str(f) for slot, f in slots.items() if f is not FULL}
        for path, slots in assignment_of(model).items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder / WEIGHTS)
    write_manifest(folder, source=source, layers={p: s for p, s in layers.items() if s}, **known)


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The `model.json` of a saved model, or of the best one in a run folder.

    Raises:
        BadInput: There is none, or it cannot be read.
    """
    page_path = _folder(path) / MANIFEST
    try:
        page: dict[str, Any] = json.loads(page_path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        allowed = "a saved model's folder or a run folder"
        raise BadInput("no saved model here", found=str(path), allowed=allowed) from None
    except (OSError, ValueError) as error:
        raise BadInput(f"not a saved model: {error}", source=page_path) from None
    if not isinstance(page, dict) or not {"source", "layers"} <= page.keys():
        raise BadInput("not a saved model: keys are missing", source=page_path, allowed="what `save` wrote")
    if page["source"] is not None and not page["source"].keys() >= _SOURCE:
        found = sorted(page["source"])
        raise BadInput("keys are missing", source=page_path, key="source", found=found, allowed=sorted(_SOURCE))
    if page.get("version") != VERSION:
        raise BadInput(
            "saved by another version", source=page_path, found=page.get("version"), allowed=[str(VERSION)]
        )
    return page


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """A saved model, in evaluation mode.

    Args:
        path: A saved model's folder (`runs/x/best`), or the run folder around it.
        model: The module to load into, for models that only exist in Python; it is copied.

    Raises:
        BadInput: No model there, or its source cannot be built again without `model`.
        CheckpointMismatch: The weights do not fit.
    """
    page = read_manifest(path)
    if model is not None:
        loaded = copy.deepcopy(model)
    elif page["source"] is not None:
        source = page["source"]
        loaded = build(source["name"], tuple(source["input_shape"]), source["num_classes"])
    else:
        raise BadInput("this model was given from Python: pass it as load(path, model=module)", found=str(path))
    weights = _folder(path) / WEIGHTS
    load_state(loaded, read_state(weights), weights)
    modules = dict(loaded.named_modules())
    for layer in page["layers"]:
        if layer not in modules:
            raise BadInput(
                "the model has no such layer", source=path, found=layer, allowed=filter(None, modules)
            )
    apply_assignment(loaded, {p: {slot: parse(f) for slot, f in s.items()} for p, s in page["layers"].items()})
    return loaded.eval()


def _folder(path: str | Path) -> Path:
    """The folder of a saved model: itself, or `best` within a run folder."""
    path = Path(path)
    if not path.is_dir():
        raise BadInput("no such folder", found=str(path), allowed="a saved model's folder or a run folder")
    return path if (path / MANIFEST).is_file() or not (path / "best").is_dir() else path / "best"
