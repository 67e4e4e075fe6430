"""Saved models, opened with the data they were made for, or with what their user names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from paretobit import data as data_room
from paretobit.data import Data, DataSettings
from paretobit.document import Document, validate
from paretobit.errors import BadInput
from paretobit.models import ModelSettings, load, read_manifest, source_of
from paretobit.models.source import build_again
from paretobit.training.evaluate import check_classifier
from paretobit.workflow.assemble import data_for


def named(settings: ModelSettings) -> str | None:
    """The model that the user names, where he does: what builds a model that was given from Python."""
    return settings.name if "name" in settings.model_fields_set else None


def load_saved(path: str | Path, model: str | None = None) -> tuple[nn.Module, Mapping[str, Any]]:
    """A saved model, and what it was built from.

    Args:
        path: Its folder, or a run folder.
        model: `path/to/file.py:function`, which builds one that was given from Python.

    Raises:
        BadInput: It was given from Python and nothing else builds it.
    """
    page = read_manifest(path)
    if page["source"] is not None:
        return load(path), page["source"]
    if model is None:
        problem = "this model was given from Python: pass --model, or model= from Python"
        raise BadInput(problem, found=str(path), allowed="path/to/file.py:function")
    sample = page.get("sample", {"input_shape": [1], "num_classes": 1})  # for functions that take neither
    source = source_of(model, tuple(sample["input_shape"]), sample["num_classes"])
    return load(path, build_again(source)), source


def open_saved(path: str | Path, data: DataSettings | None = None, model: str | None = None) -> tuple[nn.Module, Data]:
    """A saved model, as in `load_saved`, and the data it was made for, or other `data`.

    Raises:
        BadInput: Nothing says what the data was, or builds the model.
    """
    page = read_manifest(path)
    opened, source = load_saved(path, model)
    if data is None:
        if "data" not in page:
            problem = "the saved model does not say which data it was made for: pass --data"
            raise BadInput(problem, found=str(path), allowed="a data set by name")
        data = validate(DataSettings, page["data"], Document(), "data")
    loaded = data_for(source["name"], data_room.load(data))
    check_classifier(opened, loaded.train.x, loaded.train.y)
    return opened, loaded
