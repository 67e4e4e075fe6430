"""Models on disk: a folder with the weights and a page that says how to build the model again.

best/
  weights.safetensors   the float weights and statistics
  model.json            source, formats of every layer, what else is known
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from paretobit.errors import BadInput
from paretobit.formats import FULL, parse
from paretobit.graph import ModelGraph, trace, width_groups
from paretobit.graph.copies import copy_of
from paretobit.models.checkpoint import load_state, read_state, save_weights
from paretobit.models.huggingface import example_input
from paretobit.models.source import build_again
from paretobit.nn import places_of
from paretobit.passes.layers.assignment import apply_assignment, assignment_of
from paretobit.passes.transform import folds_of, resize, with_folds
from paretobit.passes.transform.prune_activation import InputPruning, input_prunings_of, set_input_pruning
from paretobit.plugins import load_installed
from paretobit.storage import write_text_atomic

MANIFEST, WEIGHTS = "model.json", "weights.safetensors"
VERSION = 1
_SOURCE = {"name", "input_shape", "num_classes"}  # config and head besides, for transformers


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


def resized(graph: ModelGraph, widths: Mapping[str, int]) -> dict[str, Any] | None:
    """What `load` needs to give a model other widths than its source has; None where none differ.

    Args:
        graph: Of the model with the widths of its source.
        widths: Width group to channels.
    """
    changed = {group.name: widths[group.name] for group in width_groups(graph) if group.name in widths}
    inputs = [node for node in graph if node.kind == "placeholder" and node.output_shape is not None]
    if not changed or not inputs:
        return None
    return {"widths": changed, "input_shapes": [list(node.output_shape or ()) for node in inputs]}


@dataclass(frozen=True)
class SavedModel:
    """A model as it is saved, in memory.

    Attributes:
        page: What `model.json` says.
        tensors: Weights, statistics and masks, by name.
    """

    page: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        *,
        source: Mapping[str, Any] | None = None,
        resized: Mapping[str, Any] | None = None,
        **known: Any,
    ) -> SavedModel:
        """A model, quantised or not; the tensors are the model's own, on the CPU.

        Args:
            model: Any module.
            source: From `source_of`; None for a model that only exists in Python.
            resized: From `resized`, for a model with other widths than its source.
            known: Anything else worth keeping in `model.json`.
        """
        if resized is not None:
            known["resized"] = resized
        layers = {
            path: {slot: str(f) for slot, f in slots.items() if f is not FULL}
            for path, slots in assignment_of(model).items()
        }
        layers = {path: slots for path, slots in layers.items() if slots}
        inputs = {path: dataclasses.asdict(pruning) for path, pruning in input_prunings_of(model).items()}
        if inputs:
            known["input_pruning"] = inputs
        if places := places_of(model):
            known["places"] = places
        page = {"version": VERSION, "source": source, "layers": layers, "folded": folds_of(model), **known}
        state = {name: t.detach().cpu() for name, t in model.state_dict().items() if isinstance(t, Tensor)}
        return cls(page, state)

    @classmethod
    def read(cls, path: str | Path) -> SavedModel:
        """What `write` wrote.

        Raises:
            BadInput: There is no saved model, or it cannot be read.
        """
        return cls(read_manifest(path), read_state(_folder(path) / WEIGHTS))

    def write(self, folder: str | Path) -> None:
        """Write the weights and then the page, each in one step."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.tensors, folder / WEIGHTS)
        write_text_atomic(folder / MANIFEST, json.dumps(self.page, indent=2) + "\n")

    def __reduce__(self) -> tuple[Any, ...]:
        """As bytes: tensors would go to another process as handles of memory that the first one frees."""
        from safetensors.torch import save as to_bytes

        return _from_bytes, (self.page, to_bytes({n: t.clone().contiguous() for n, t in self.tensors.items()}))

    def put_into(self, model: nn.Module, where: object = None, formats: bool = True) -> nn.Module:
        """Make a float model of the saved shape the saved one, in place; in evaluation mode.

        Args:
            model: Of the same layers.
            where: Named in messages.
            formats: False leaves every layer in full precision.

        Raises:
            CheckpointMismatch: The weights do not fit.
        """
        with_folds(model, self.page.get("folded", {}))
        load_state(model, self.tensors, where)
        if formats:
            layers = self.page["layers"].items()
            formats_of = {p: {slot: parse(f) for slot, f in s.items()} for p, s in layers}
            apply_assignment(model, formats_of, self.page.get("places", {}))
        for path, pruning in self.page.get("input_pruning", {}).items():
            set_input_pruning(model.get_submodule(path), InputPruning(**pruning))
        return model.eval()

    def shaped(self, model: nn.Module | None, where: object = None) -> nn.Module:
        """A float model of the saved shape, with weights of its own.

        Args:
            model: One of the shape of the source, which is copied; None builds it from the source.
            where: Named in messages.

        Raises:
            BadInput: The source is a model that was given from Python.
        """
        if model is not None:
            built = copy_of(model)
        elif self.page["source"] is not None:
            built = build_again(self.page["source"])
        else:
            problem = "this model was given from Python: pass it as load(path, model=module)"
            raise BadInput(problem, found=str(where))
        for path in self.page.get("identity", []):
            built.set_submodule(path, nn.Identity())
        if widths := self.page.get("resized"):  # the weights of these widths are about to be loaded
            example = tuple(example_input(built, tuple(s[1:]), s[0]) for s in widths["input_shapes"])
            return resize(trace(built, example), widths["widths"], "scratch").model
        return built


def _from_bytes(page: Mapping[str, Any], content: bytes) -> SavedModel:
    from safetensors.torch import load as from_bytes

    return SavedModel(page, from_bytes(content))


def save(folder: str | Path, model: nn.Module, **known: Any) -> None:
    """Save a model, quantised or not, so that `load` gives it back bit for bit.

    Args:
        folder: Where to.
        model: Any module.
        known: As in `SavedModel.of`: `source`, `resized`, and anything else worth keeping.
    """
    SavedModel.of(model, **known).write(folder)


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
        raise BadInput("saved by another version", source=page_path, found=page.get("version"), allowed=[str(VERSION)])
    return page


def load(path: str | Path, model: nn.Module | None = None, *, formats: bool = True) -> nn.Module:
    """A saved model, in evaluation mode.

    Args:
        path: A saved model's folder (`runs/x/best`), or the run folder around it.
        model: The module to load into, for models that only exist in Python; it is copied.
        formats: False leaves every layer in full precision, with the saved weights.

    Raises:
        BadInput: No model there, or its source cannot be built again without `model`.
        CheckpointMismatch: The weights do not fit.
    """
    load_installed()
    saved = SavedModel.read(path)
    return saved.put_into(saved.shaped(model, path), _folder(path) / WEIGHTS, formats)


def _folder(path: str | Path) -> Path:
    """The folder of a saved model: itself, or `best` within a run folder."""
    path = Path(path)
    if not path.is_dir():
        raise BadInput("no such folder", found=str(path), allowed="a saved model's folder or a run folder")
    return path if (path / MANIFEST).is_file() or not (path / "best").is_dir() else path / "best"
