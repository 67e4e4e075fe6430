"""Functions and arguments on their way out: still there, with a warning that points at the user's own line.

Python shows a `DeprecationWarning` once for every line that causes it, in scripts and under pytest.
What may be deprecated, and for how long, says docs/stability.md.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from paretobit.errors import BadInput

P = ParamSpec("P")
R = TypeVar("R")


def deprecated(new: str, *, since: str, removed_in: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator of a function or method that still works.

    Args:
        new: What to use instead, as the user writes it: `paretobit.load(path)`.
        since: The version that warns first.
        removed_in: The version that no longer has it.
    """

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def warned(*args: P.args, **kwargs: P.kwargs) -> R:
            _warn(f"{function.__qualname__}()", new, since, removed_in)
            return function(*args, **kwargs)

        return warned

    return mark


def renamed_argument(
    old: str, new: str, *, since: str, removed_in: str
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Decorator of a function whose keyword argument `old` is now called `new`; given both, it refuses."""

    def mark(function: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(function)
        def translated(*args: Any, **kwargs: Any) -> R:
            if old in kwargs:
                if new in kwargs:
                    raise BadInput(f"{old}= is the old name of {new}=", key=new, allowed="one of the two")
                _warn(f"{old}= of {function.__qualname__}()", f"{new}=", since, removed_in)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return translated

    return mark


def _warn(old: str, new: str, since: str, removed_in: str) -> None:
    text = f"{old} is deprecated since {since} and goes in {removed_in}: use {new}"
    warnings.warn(text, DeprecationWarning, stacklevel=3)
