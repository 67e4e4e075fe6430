"""What is searched: a model and its rows, from settings or from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from paretobit.data import Data
from paretobit.data.calibration import Loss
from paretobit.graph import Example
from paretobit.graph.copies import copy_of
from paretobit.spaces import Space
from paretobit.trials.runners.function import Evaluate
from paretobit.workflow.assemble import Pair, Rows, build_model, splits_from
from paretobit.workflow.settings import GivenSettings, Settings
from paretobit.workflow.train import load_data, manifest


@dataclass(frozen=True)
class Given:
    """What only Python has, in place of what a file names; unset: the file says it.

    Attributes:
        model: Any module.
        space: What may vary.
        pairs: Name of a split to inputs and labels.
        evaluate: Measures a model in place of `val`.
        loss: Of an output and a target.
        example: Inputs for the graph where no data is given.
        calibration: Rows in place of so many of the data's.
    """

    model: nn.Module | None = None
    space: Space | None = None
    pairs: Mapping[str, Pair | None] = field(default_factory=dict)
    evaluate: Evaluate | None = None
    loss: Loss | None = None
    example: Example | None = None
    calibration: Rows | None = None

    @property
    def recorded(self) -> GivenSettings:
        """What of it a run folder's `config.toml` can say."""
        functions = {"evaluate": self.evaluate, "loss": self.loss}
        named = {key: _named(function) for key, function in functions.items() if function is not None}
        data = tuple(name for name, pair in self.pairs.items() if pair is not None)
        return GivenSettings(
            model=None if self.model is None else _named(type(self.model)),
            data=data or (() if self.example is None else ("example",)),
            calibration=self.calibration is not None,
            **named,
        )


def _named(thing: Any) -> str:
    kind = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"


@dataclass(frozen=True)
class Subject:
    """A model, the caller's or built, and the rows that it is measured on.

    Attributes:
        page: What a saved model says of where it came from.
        has_weights: Whether the model need not be trained first.
        data: What was loaded; None where rows were given from Python.
    """

    model: nn.Module
    splits: Mapping[str, tuple[Tensor, Tensor]]
    page: Mapping[str, Any]
    has_weights: bool
    data: Data | None = None

    @classmethod
    def of(cls, settings: Settings, given: Given) -> Subject:
        """The subject of settings and of what was given.

        Raises:
            BadInput: The model or the data was given from Python once, and is not now.
        """
        if given.model is not None:
            splits = splits_from(given.pairs, given.model)
            return cls(_of_ordinary_tensors(given.model), splits, _page(given, splits), True)
        settings.check_all_named()
        data = load_data(settings)
        model = build_model(settings.model, data, settings.seed)
        has_weights = settings.model.given or settings.given.model is not None
        splits = {split.name: (split.x, split.y) for split in data.splits}
        return cls(model, splits, manifest(settings, data), has_weights, data)


def _page(given: Given, splits: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """What a saved model can say of one that was given from Python: no source, but what it takes."""
    labels = [y for _, y in splits.values() if not y.is_floating_point()]
    rows = next((x for x, _ in splits.values()), given.example)
    shape = list(rows.shape[1:]) if isinstance(rows, Tensor) else [1]
    classes = 1 + max((int(y.max()) for y in labels), default=0)
    return {"source": None, "sample": {"input_shape": shape, "num_classes": classes}}


def _of_ordinary_tensors(model: nn.Module) -> nn.Module:
    """The model; a copy where it was made in inference mode, whose tensors neither train nor tell of changes."""
    tensors = (*model.parameters(), *model.buffers())
    return copy_of(model) if any(tensor.is_inference() for tensor in tensors) else model
