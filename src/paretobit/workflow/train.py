"""Training from settings, and testing what was trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paretobit import data as data_room
from paretobit.data import Data
from paretobit.document import Document
from paretobit.errors import under
from paretobit.models import source_of, write_manifest
from paretobit.runtime import device, one_thread
from paretobit.training import Epoch, Evaluation, History, TrainSettings, check_fit, evaluate, fit
from paretobit.training.evaluate import Batches, check_classifier, evaluate_batches, run_on_view
from paretobit.workflow.assemble import build_model, data_for
from paretobit.workflow.other_run import OtherRun
from paretobit.workflow.settings import Settings

_ROWS = 1024


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, what happened, and what each split says."""

    model: nn.Module
    data: Data
    history: History
    results: Mapping[str, Evaluation]


@dataclass(frozen=True)
class ClassFigures:
    """One class on a split: share of its rows found, of rows called so that are so, their harmonic mean."""

    name: str
    rows: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Tested:
    """A model on one split."""

    split: str
    overall: Evaluation
    classes: tuple[ClassFigures, ...]


def train(
    settings: Settings,
    folder: Path,
    *,
    data: Data | None = None,
    resume: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> TrainedModel:
    """Train a model from settings into a folder.

    Args:
        settings: Sections `model`, `data` and `train`.
        folder: Gets `best/` (which `paretobit.load` opens), `last/` and `learning_curves.csv`.
        data: The data, where it is loaded already and in the model's layout.
        resume: Go on where the folder's training stopped.
        on_epoch: Called after every epoch.
    """
    data = data or load_data(settings)
    with one_thread():
        model = build_model(settings.model, data, settings.seed)
        write_manifest(folder / "best", **manifest(settings, data))
        train_rows, val_rows = ((s.x, s.y) for s in (data.train, data.val))
        history = fit(
            model, train_rows, val_rows, settings.train,
            folder=folder, resume=resume, augment=data.augment, on_epoch=on_epoch,
        )  # fmt: skip
        model.cpu()
        return TrainedModel(model, data, history, results_of(model, data))


def results_of(model: nn.Module, data: Data) -> dict[str, Evaluation]:
    """What each split says of a model."""
    return {split.name: evaluate(model, split.x, split.y, _ROWS) for split in data.splits}


def load_data(settings: Settings) -> Data:
    """The data in the layout the model wants."""
    name = settings.model.name
    if settings.model.from_run is not None:
        name = OtherRun.of(settings.model).source["name"]
    return data_for(name, data_room.load(settings.data))


def check_device(settings: Settings, document: Document) -> None:
    """Refuse, before any work, a device to train on that this machine lacks."""
    with document.placing("train"):
        device(settings.train.device)


def check_trainable(model: nn.Module, data: Data, settings: TrainSettings) -> None:
    """Refuse, before any work, a model that cannot be trained on this data with these settings.

    Raises:
        BadInput: The model is no classifier of this data, or training would refuse it.
    """
    check_classifier(model, data.train.x, data.train.y)
    with under("train", TrainSettings.model_fields):
        check_fit(model, (data.train.x, data.train.y), (data.val.x, data.val.y), settings)


def manifest(settings: Settings, data: Data) -> dict[str, Any]:
    """What a saved model keeps about where it came from."""
    if settings.model.from_run is not None:
        known = OtherRun.of(settings.model).known
    else:
        own, of_data = settings.model, (data.input_shape, data.num_classes)
        source = source_of(own.name, *of_data, config=own.config, head=own.head, tokens=data.tokens)
        known = {"source": source}
    return {
        **known,
        "data": settings.data.model_dump(),
        "classes": list(data.classes),
        "preprocessing": data.preprocessing,
    }


def open_checkpoint(settings: Settings) -> tuple[nn.Module, Data]:
    """The model of the settings with the weights of its checkpoint, and its data."""
    data = load_data(settings)
    model = build_model(settings.model, data, settings.seed)
    check_classifier(model, data.train.x, data.train.y)
    return model, data


def figures(model: nn.Module, data: Data, split: str) -> Tested:
    """Figures of a model on one split, overall and per class."""
    from sklearn.metrics import precision_recall_fscore_support

    rows, predicted = data.split(split), []

    def run(batch: Tensor, _: int) -> Tensor:
        logits = run_on_view(model, batch)
        predicted.append(logits.argmax(1))
        return logits

    with one_thread(), torch.no_grad():
        overall = evaluate_batches(run, Batches(rows.x, rows.y, _ROWS))
    precision, recall, f1, support = precision_recall_fscore_support(
        rows.y, torch.cat(predicted), labels=range(data.num_classes), zero_division=0.0
    )
    classes = tuple(
        ClassFigures(name, int(support[i]), float(precision[i]), float(recall[i]), float(f1[i]))
        for i, name in enumerate(data.classes)
    )
    return Tested(split, overall, classes)
