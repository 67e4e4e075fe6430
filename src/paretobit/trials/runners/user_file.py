"""A user's measurement in a file: `path/to/file.py:function` as a runner."""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from torch import Tensor, nn

from paretobit.errors import BadInput
from paretobit.runtime import load_function
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners.base import Candidate
from paretobit.trials.runners.function import FunctionRunner
from paretobit.wanted.metric import Direction

Splits = Mapping[str, tuple[Tensor, Tensor]]
_DECLARED = ("directions", "units")


class FileFunction:
    """A function of a file, called as `function(model, **settings)` or `function(model, splits, **settings)`.

    It is imported anew wherever this is unpickled: what a user writes needs no installed module.

    Args:
        reference: `path/to/file.py:function`.
        splits: `train`, `val` and, where there is one, `test`: inputs and labels. It is given them
            where it takes two arguments without a default.
        settings: Its keyword arguments.

    Raises:
        BadInput: No such file or function, or one that does not take these arguments.
    """

    def __init__(self, reference: str, splits: Splits, settings: Mapping[str, Any]) -> None:
        path, _, name = reference.rpartition(":")
        self.function: Callable[..., Any] = load_function(reference)
        self.reference, self.settings = f"{Path(path).resolve()}:{name}", dict(settings)
        if not callable(self.function):
            raise BadInput("not a function", key=reference, found=self.function)
        self._splits = splits if self._takes_splits() else None
        self._check(reference)

    def __call__(self, model: nn.Module) -> Any:
        """What the function returns for a model."""
        return self.function(*self._arguments(model), **self.settings)

    def declared(self, key: str) -> Mapping[str, str]:
        """Its attribute `directions` or `units`: name of a metric to a word."""
        found: Mapping[str, str] = getattr(self.function, key, {})
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "function"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.function = load_function(self.reference)

    def _arguments(self, model: Any) -> tuple[Any, ...]:
        return (model,) if self._splits is None else (model, self._splits)

    def _takes_splits(self) -> bool:
        try:
            parameters = inspect.signature(self.function).parameters.values()
        except (TypeError, ValueError):  # some built-in callables have none
            return False
        by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = [p for p in parameters if p.kind in by_position and p.default is p.empty]
        return len([p for p in needed if p.name not in self.settings]) >= 2

    def _check(self, reference: str) -> None:
        """Refuse settings that the function does not take, before any work."""
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):
            return
        try:
            signature.bind(*self._arguments(None), **self.settings)
        except TypeError as error:
            problem = f"the function does not take this: {error}"
            raise BadInput(problem, key=reference, found=list(self.settings), allowed=signature.parameters) from None


class FileRunner(FunctionRunner):
    """Runs `function(model, **settings) -> {name: number}` of a file, or one that is given the data as well.

    Args:
        evidence: Its splits are for functions that take two arguments.
        reference: `path/to/file.py:function`.
        settings: Keyword arguments of the function; `directions` and `units` are for the runner: metric
            to `maximize` or `minimize`, and to what one of it is. The function may have attributes of
            these names.
        directions: Of metrics that are objectives and that nothing else says the direction of.

    Raises:
        BadInput: The function cannot be had, or does not take the settings.
    """

    def __init__(
        self, evidence: Evidence, reference: str, settings: Mapping[str, Any], directions: Mapping[str, Any]
    ) -> None:
        own = {key: value for key, value in settings.items() if key not in _DECLARED}
        self._function = FileFunction(reference, evidence.splits, own)
        said = {key: {**self._function.declared(key), **_table(settings, key)} for key in _DECLARED}
        for name, word in said["directions"].items():
            if word not in get_args(Direction):
                raise BadInput("not a direction", key=f"directions.{name}", found=word, allowed=get_args(Direction))
        super().__init__(evidence, self._function, {**directions, **said["directions"]})
        self._reference, self._units = reference, said["units"]

    @property
    def identity(self) -> dict[str, Any]:
        """Function, settings, and the text of its file: what it imports cannot be compared."""
        path, _, name = self._function.reference.rpartition(":")
        text = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
        settings = self._function.settings
        return {"runner": type(self).__name__, "function": name, "file": text, "settings": settings}

    @property
    def reference(self) -> str:
        """Where the function is, as it was written."""
        return self._reference

    def measure(self, candidate: Candidate) -> dict[str, float]:
        """Call the function and check what it returned; its units are known from then on."""
        known = bool(self.metrics)
        measured = super().measure(candidate)
        if not known:
            self.metrics = tuple(replace(m, unit=self._units.get(m.name, m.unit)) for m in self.metrics)
        return measured


def _table(settings: Mapping[str, Any], key: str) -> Mapping[str, str]:
    table = settings.get(key, {})
    if not isinstance(table, Mapping):
        raise BadInput("not a table", key=key, found=table, allowed="metric to word")
    return table
