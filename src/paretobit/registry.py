"""The one registry class: names to things, refused twice, helpful when a name is unknown."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Generic, TypeVar

from paretobit.errors import BadInput

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered thing and the line that describes it."""

    name: str
    value: T
    summary: str


class Registry(Generic[T]):
    """Names to values of one kind.

    Args:
        noun: What the values are, singular, for messages.

    >>> planets = Registry("planet")
    >>> _ = planets.register("mars", summary="the red one")(4)
    >>> planets["mars"]
    4
    >>> planets["marz"]
    Traceback (most recent call last):
    ...
    paretobit.errors.BadInput: unknown planet: found 'marz'; allowed: mars; did you mean 'mars'?
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._entries: dict[str, Entry[T]] = {}

    def register(self, name: str, *, summary: str = "") -> Callable[[T], T]:
        """Decorator that files its argument under `name`.

        The summary defaults to the first line of the value's docstring.

        Raises:
            BadInput: The name is taken, both sides are named; or the value has another `name` of its own.
        """

        def file(value: T) -> T:
            if name in self._entries:
                raise BadInput(
                    f"two {self.noun}s are registered as '{name}'",
                    found=_origin(value),
                    allowed=f"one; the first is {_origin(self._entries[name].value)}",
                )
            own = getattr(value, "name", name)
            if isinstance(own, str) and own != name:
                raise BadInput(f"registered as '{name}' and named otherwise", found=own, allowed=[name])
            FILED.append((self, name, _module_at_work()))
            doc = (getattr(value, "__doc__", None) or "").strip()
            self._entries[name] = Entry(name, value, summary or (doc.splitlines()[0] if doc else ""))
            return value

        return file

    def __getitem__(self, name: str) -> T:
        if name not in self:
            raise BadInput(f"unknown {self.noun}", found=name, allowed=self.names())
        return self._entries[name].value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._entries

    def __iter__(self) -> Iterator[Entry[T]]:
        return iter(self._entries.values())

    def remove(self, name: str) -> None:
        """Take an entry out again."""
        del self._entries[name]

    def names(self) -> list[str]:
        """Registered names, in order of registration."""
        return list(self._entries)


FILED: list[tuple[Registry[Any], str, str]] = []
"""Registry, name, and the module that filed it, in order."""


def withdraw(module: str) -> None:
    """Take out what a module has registered whose import failed."""
    for filed in [filed for filed in FILED if filed[2] == module]:
        FILED.remove(filed)
        if filed[1] in filed[0]:
            filed[0].remove(filed[1])


def _module_at_work() -> str:
    """The module that is being imported, whose code has led here."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals.get("__name__"))


def _origin(value: object) -> str:
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", repr(value))
    return f"{module}.{name}" if module else name
