"""The model of another search, to go on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from paretobit.data import Data
from paretobit.errors import BadInput
from paretobit.models import ModelSettings, SavedModel

_BEST = "best"


@dataclass(frozen=True)
class OtherRun:
    """A model that another search made, and the folder that it is saved in."""

    folder: Path
    saved: SavedModel

    @classmethod
    def of(cls, settings: ModelSettings) -> OtherRun:
        """The model that `from_run` names: `runs/a`, `runs/a:best`, or `runs/a:17`.

        Raises:
            BadInput: There is none, or other keys name a model too.
        """
        text = settings.from_run or ""
        for key in ("name", "load", "config", "head"):
            if key in settings.model_fields_set:
                raise BadInput("the model is given twice: from_run says which", key=f"model.{key}", found=text)
        path, colon, which = text.rpartition(":")
        run = Path(path if colon else text)
        which = which if colon else _BEST
        if not run.is_dir():
            raise BadInput("no such run folder", key="model.from_run", found=text)
        folder = run / _BEST if which == _BEST else run / "trials" / which
        if not folder.is_dir():
            kept = sorted(p.name for p in (run / "trials").glob("*") if p.name.isdigit())
            problem = "the run keeps no such model, only the best and those that trials on the front trained"
            raise BadInput(problem, key="model.from_run", found=which, allowed=[_BEST, *kept])
        return cls(folder, SavedModel.read(folder))

    @property
    def source(self) -> Mapping[str, Any]:
        """What builds it.

        Raises:
            BadInput: It was given from Python.
        """
        source: Mapping[str, Any] | None = self.saved.page["source"]
        if source is None:
            problem = "that model was given from Python: it cannot be built from a file"
            raise BadInput(problem, key="model.from_run", found=str(self.folder))
        return source

    def model(self, data: Data) -> nn.Module:
        """The model in full precision, with the weights that it had.

        Raises:
            BadInput: It was made for other data.
        """
        for key, here in (("input_shape", list(data.input_shape)), ("num_classes", data.num_classes)):
            if self.source[key] != here:
                problem = f"the model of the other run was made for other data: its {key}"
                raise BadInput(problem, key="model.from_run", found=self.source[key], allowed=str(here))
        return self.saved.put_into(self.saved.shaped(None, self.folder), self.folder, formats=False)

    @property
    def known(self) -> dict[str, Any]:
        """What a model that comes of it is saved with."""
        page = self.saved.page
        return {"source": dict(self.source), **({"resized": page["resized"]} if page.get("resized") else {})}
