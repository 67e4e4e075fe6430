"""The models that trials trained: beside the study, or in memory; those of the front are kept."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from paretobit.errors import BadInput, ParetoBitError
from paretobit.models import SavedModel

BASELINE = "baseline"


class TrialModels:
    """Saved models by trial number; that of the trained baseline too.

    Args:
        folder: `trials/` of a run, with a folder `17/` each that `paretobit.load` opens; None: in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._held: dict[str, SavedModel] = {}

    def put(self, name: int | str, saved: SavedModel) -> None:
        """Keep a model; the page is written last, so that a kill leaves a whole one or none."""
        if self._folder is None:
            self._held[str(name)] = saved
        else:
            shutil.rmtree(self._folder / str(name), ignore_errors=True)
            saved.write(self._folder / str(name))

    def get(self, name: int | str) -> SavedModel:
        """A model that was kept.

        Raises:
            ParetoBitError: It was not: the trial is not on the front.
        """
        if str(name) in self._held:
            return self._held[str(name)]
        try:
            if self._folder is not None:
                return SavedModel.read(self._folder / str(name))
        except BadInput:
            pass
        raise ParetoBitError(f"the weights of trial {name} were not kept: it is not on the front")

    def __contains__(self, name: object) -> bool:
        return str(name) in self._names()

    def keep(self, numbers: Iterable[int]) -> None:
        """Let go of all others, the baseline excepted."""
        wanted = {BASELINE, *map(str, numbers)}
        for name in self._names():
            if name not in wanted:
                self._held.pop(name, None)
                if self._folder is not None:
                    shutil.rmtree(self._folder / name, ignore_errors=True)

    def _names(self) -> list[str]:
        if self._folder is None:
            return list(self._held)
        return [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
