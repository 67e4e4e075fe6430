"""Checks of parameters: each refuses with the parameter's name, what was found and what is allowed."""

import math
from typing import Any, get_args

from paretobit.errors import BadInput


def check_int(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is not an integer from `low` to `high`."""
    if type(value) is not int or not low <= value <= high:
        problem = f"{name} is out of range" if type(value) is int else f"{name} is not an integer"
        raise BadInput(problem, key=name, found=value, allowed=f"{low} to {high}")


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Refuse what is not a finite number from `low` to `high`."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= float(value) <= high:  # type: ignore[arg-type]
        problem = f"{name} is out of range" if number else f"{name} is not a number"
        raise BadInput(problem, key=name, found=value, allowed=f"{low:g} to {high:g}")


def check_bool(name: str, value: object) -> None:
    """Refuse what is neither true nor false."""
    if not isinstance(value, bool):
        raise BadInput(f"{name} is true or false", key=name, found=value)


def check_choice(name: str, value: object, choices: Any) -> None:
    """Refuse what is none of the values of a `Literal`."""
    if value not in get_args(choices):
        raise BadInput(f"unknown {name}", key=name, found=value, allowed=get_args(choices))
