"""Names and arguments on their way out: still there, with a warning that points at the user's own line.

Python shows a `DeprecationWarning` once for every line that causes it, in scripts and under pytest.
What may be deprecated, and for how long, says docs/stability.md.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from paretobit.errors import BadInput

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Deprecation:
    """What replaces an old way, and until when the old way works.

    Args:
        new: What to use instead, as the user writes it: `paretobit.load`, `n_trials`.
        since: The version that warns first.
        removed_in: The version that no longer has it.

    >>> print(Deprecation("load(path)", since="0.3.0", removed_in="0.5.0").of("restore()"))
    restore() is deprecated since 0.3.0 and goes in 0.5.0: use load(path)
    """

    new: str
    since: str
    removed_in: str

    def of(self, old: str) -> str:
        """The text of the warning about `old`."""
        return f"{old} is deprecated since {self.since} and goes in {self.removed_in}: use {self.new}"

    def warn(self, old: str, *, above: int = 1) -> None:
        """Warn that `old` is used, at the line `above` frames above the function that calls this."""
        warnings.warn(self.of(old), DeprecationWarning, stacklevel=above + 2)


def deprecated(new: str, *, since: str, removed_in: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator of a function or method that still works; arguments as those of `Deprecation`."""
    notice = Deprecation(new, since, removed_in)

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def warned(*args: P.args, **kwargs: P.kwargs) -> R:
            notice.warn(f"{function.__qualname__}()")
            return function(*args, **kwargs)

        return warned

    return mark


def renamed_argument(
    old: str, new: str, *, since: str, removed_in: str
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Decorator of a function whose keyword argument `old` is now called `new`.

    The function raises `BadInput` where both are given.
    """
    notice = Deprecation(f"{new}=", since, removed_in)

    def mark(function: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(function)
        def translated(*args: Any, **kwargs: Any) -> R:
            if old in kwargs:
                if new in kwargs:
                    raise BadInput(f"{old}= is the old name of {new}=", key=new, allowed="one of the two")
                notice.warn(f"{old}= of {function.__qualname__}()")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return translated

    return mark


def renamed_names(
    module: str, names: Mapping[str, str], *, since: str, removed_in: str
) -> Callable[[str], Any]:
    """A `__getattr__` for `module` in which old names still lead to what they meant.

    Args:
        module: `__name__` of the module that had them.
        names: Old name to where it is now, `package.module.name`: the very same thing, so that `isinstance`
            and pickles agree.
        since: The version that warns first.
        removed_in: The version that no longer has them.
    """

    def lookup(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        Deprecation(names[name], since, removed_in).warn(f"{module}.{name}")
        home, _, new = names[name].rpartition(".")
        return getattr(importlib.import_module(home), new)

    return lookup
