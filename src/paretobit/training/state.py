"""The folder of a training: learning curves, the best weights, and all it takes to go on after a kill."""

import copy
import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn, optim

from paretobit.errors import BadInput
from paretobit.storage import TEMPORARY, read_tensors, write_tensors, write_text_atomic
from paretobit.training.history import Epoch, History
from paretobit.training.settings import TrainSettings

TrainingState = dict[str, Any]

# Settings that may change between a training and its continuation.
FREE_ON_RESUME = ("max_epochs",)


def snapshot(model: nn.Module) -> TrainingState:
    """A copy of the model's state, tied weights still tied."""
    return copy.deepcopy(model.state_dict())


def restore(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Put a `snapshot` back."""
    model.load_state_dict(state)


@dataclass(frozen=True)
class Saved:
    """What a folder holds of an interrupted training, read and checked."""

    weights: TrainingState
    best: TrainingState
    optimizer: TrainingState
    epochs: list[Epoch]


class TrainingFolder:
    """Reads and writes the folder of one training.

    `last/state.json` names the files of the last finished epoch and is replaced last, so a process killed at
    any moment leaves a whole epoch behind. `best/` holds the epoch that is kept and is written after it: while
    that is the last one, its weights are those of `last/`, and a kill in between loses nothing. Nothing is
    pickled.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._last, self._best = self.path / "last", self.path / "best"
        self._state, self._curves = self._last / "state.json", self.path / "learning_curves.csv"

    def clear(self) -> None:
        """Remove what an earlier training left: its state first, so that it cannot be resumed by halves."""
        self._state.unlink(missing_ok=True)
        self._sweep(keep=set())
        for path in (self._curves, self._best / "metrics.json", self._best / "weights.safetensors"):
            path.unlink(missing_ok=True)

    def commit(self, model: nn.Module, optimizer: optim.Optimizer, settings: TrainSettings, history: History) -> None:
        """Write the state after the last epoch of `history`."""
        epoch = history.epochs[-1]
        weights = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
        tensors, values = _split(optimizer.state_dict()["state"])
        files = {kind: f"{kind}-{epoch.number:06d}.safetensors" for kind in ("weights", "optimizer")}
        write_tensors(self._last / files["weights"], weights)
        write_tensors(self._last / files["optimizer"], tensors)
        state = {
            "files": files,
            "settings": settings.model_dump(mode="json"),
            "optimizer_values": values,
            "epochs": [asdict(epoch) for epoch in history.epochs],
        }
        write_text_atomic(self._state, json.dumps(state))
        self._sweep(keep={self._state.name, *files.values()})
        if epoch is history.kept:
            self.write_best(weights, epoch)
        self.write_curves(history.epochs)

    def write_best(self, weights: Mapping[str, Tensor], epoch: Epoch) -> None:
        """Write the best weights and the record of their epoch."""
        write_tensors(self._best / "weights.safetensors", weights)
        write_text_atomic(self._best / "metrics.json", json.dumps(asdict(epoch), indent=2) + "\n")

    def write_weights(self, model: nn.Module) -> None:
        """Write a model that was not trained as the best one."""
        state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
        write_tensors(self._best / "weights.safetensors", state)

    def write_curves(self, epochs: list[Epoch]) -> None:
        """Write the table of all epochs."""
        text = io.StringIO()
        table = csv.DictWriter(text, [column.name for column in fields(Epoch)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(epoch) for epoch in epochs)
        write_text_atomic(self._curves, text.getvalue())

    def load(self, settings: TrainSettings) -> Saved | None:
        """The interrupted training, with `best/` and the curves brought up to its last epoch; None without one.

        Raises:
            BadInput: Other settings than those of the interrupted training, or a damaged folder.
        """
        if not self._state.is_file():
            return None
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            earlier, values, files = state["settings"], state["optimizer_values"], state["files"]
            epochs = [Epoch(**record) for record in state["epochs"]]
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"not the state of a training: {error}", source=self._state) from None
        _check_same(earlier, settings, self._state)
        weights = read_tensors(self._last / files["weights"])
        optimizer = _merge(read_tensors(self._last / files["optimizer"]), values)
        if epochs[-1].is_best or settings.keep == "last":
            best = weights
            self.write_best(weights, epochs[-1])
        else:
            best = read_tensors(self._best / "weights.safetensors")
        self.write_curves(epochs)
        return Saved(weights, best, optimizer, epochs)

    def _sweep(self, keep: set[str]) -> None:
        """Remove files in `last/` that no state names, and what a kill left half written elsewhere."""
        stale = [path for path in self._last.glob("*") if path.is_file() and path.name not in keep]
        stale += self._best.glob(f".*{TEMPORARY}")
        stale += self.path.glob(f".{self._curves.name}.*{TEMPORARY}")
        for path in stale:
            path.unlink(missing_ok=True)


def put_back(model: nn.Module, optimizer: optim.Optimizer, saved: Saved, source: object) -> None:
    """Put the weights and the optimiser's state back.

    Raises:
        BadInput: They are those of another model.
    """
    shapes = {name: value.shape for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    for state in (saved.weights, saved.best):
        if shapes != {name: value.shape for name, value in state.items()}:
            raise BadInput("the folder holds the training of another model", key="resume", source=source)
    restore(model, saved.weights)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": saved.optimizer})


def _check_same(earlier: Mapping[str, Any], settings: TrainSettings, source: Path) -> None:
    for key, value in settings.model_dump(mode="json").items():
        before = earlier.get(key, TrainSettings.model_fields[key].default)  # a setting that came later
        if key not in FREE_ON_RESUME and before != value:
            problem = "the interrupted training had another setting"
            raise BadInput(problem, source=source, key=key, found=value, allowed=repr(before))


def _split(state: Mapping[int, Mapping[str, Any]]) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """An optimiser's per-parameter state as tensors named `<parameter>.<name>`, and the plain values."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for index, entries in state.items():
        values[str(index)] = {}
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                values[str(index)][name] = value
    return tensors, values


def _merge(tensors: Mapping[str, Tensor], values: Mapping[str, Mapping[str, Any]]) -> TrainingState:
    """The inverse of `_split`."""
    state: TrainingState = {int(index): dict(entries) for index, entries in values.items()}  # type: ignore[misc]
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state[int(index)][name] = tensor  # type: ignore[index]
    return state
