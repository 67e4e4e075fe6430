"""Everything that can go wrong, as one tree.

ParetoBitError                 exit code 1
├── BadInput                   exit code 2: the user can fix it; names file, key, found, allowed
│   ├── MissingExtra           an optional package is not installed
│   └── CheckpointMismatch     weights that do not fit the model
├── MetricError                a runner could not deliver a metric it promised
└── StudyError                 the study on disk is locked, corrupt, or not the one expected
"""

import difflib
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_UNSET: Any = ...  # a singleton also on the other side of a process boundary


class ParetoBitError(Exception):
    """Base of every error raised on purpose by this package."""

    exit_code = 1


class BadInput(ParetoBitError):
    """Input that was refused at the door, before any work.

    Args:
        problem: What is wrong, in one clause.
        source: File the input came from, when there is one.
        key: Key, flag or argument at fault; dotted for nested keys.
        line: Line number within `source`, counted from 1.
        found: The offending value.
        allowed: What would have been accepted: names, or a description.

    >>> print(BadInput("unknown optimiser", key="train.optimizer", found="adm", allowed=["adam", "sgd"]))
    unknown optimiser (train.optimizer): found 'adm'; allowed: adam, sgd; did you mean 'adam'?
    """

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        source: object = None,
        key: str | None = None,
        line: int | None = None,
        found: Any = _UNSET,
        allowed: str | Iterable[str] | None = None,
    ) -> None:
        self.problem, self.key, self.line = problem, key, line
        self.source = None if source is None else str(source)
        self.found = found
        self.allowed = allowed if allowed is None or isinstance(allowed, str) else [str(a) for a in allowed]
        super().__init__(problem)

    @property
    def closest(self) -> str | None:
        """The allowed name that resembles what was found, if any."""
        if self.found is _UNSET or isinstance(self.allowed, str):
            return None
        return closest_match(str(self.found), self.allowed or ())

    def __str__(self) -> str:
        place = self.source or ""
        if self.line:
            place += f":{self.line}" if place else f"line {self.line}"
        where = ", ".join(part for part in (place, self.key) if part)
        head = f"{self.problem} ({where})" if where else self.problem
        details = []
        if self.found is not _UNSET:
            details.append(f"found {self.found!r}")
        if self.allowed is not None:
            listed = self.allowed if isinstance(self.allowed, str) else ", ".join(self.allowed) or "nothing"
            details.append(f"allowed: {listed}")
        if self.closest:
            details.append(f"did you mean '{self.closest}'?")
        return f"{head}: {'; '.join(details)}" if details else head


class MissingExtra(BadInput):
    """An optional package is needed and absent."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package '{package}': pip install 'paretobit[{extra}]'")
        self.args = (package, extra, purpose)  # what rebuilds it when it comes from another process


class CheckpointMismatch(BadInput):
    """Weights whose names or shapes do not fit the model."""


class MetricError(ParetoBitError):
    """A runner could not deliver a metric it promised."""


class StudyError(ParetoBitError):
    """The study on disk is locked, corrupt, or not the one expected."""


@contextmanager
def under(place: str, keys: Container[str] | None = None) -> Iterator[None]:
    """The key of a `BadInput` raised inside the block is one below `place`.

    Args:
        place: What the key is prefixed with; the key itself where the error names none.
        keys: Errors about keys of other tables, and about none, are left as they are, where this is given.
    """
    try:
        yield
    except BadInput as error:
        if keys is None or (error.key is not None and error.key.split(".")[0] in keys):
            error.key = f"{place}.{error.key}" if error.key else place
        raise


@contextmanager
def located(source: object = None, key: str | None = None) -> Iterator[None]:
    """A `BadInput` raised inside the block has this source and this key, where it does not name its own."""
    try:
        yield
    except BadInput as error:
        error.source = error.source or (None if source is None else str(source))
        error.key = error.key or key
        raise


def first_line(error: Exception) -> str:
    """What somebody else's error says, in a line: its class, and how its message begins."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def closest_match(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like `name`, or None when none is close.

    >>> closest_match("linaer", ["linear", "relu"])
    'linear'
    """
    folded = {str(c).lower(): str(c) for c in candidates}
    matches = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None
