"""How rows are written: a line of names, and what is true of them all."""

from dataclasses import replace
from typing import Any

from paretobit.graph.operations.row import OPERATIONS, Kind, Operand, Operation


def rows(kind: Kind, names: str, operands: tuple[Operand, ...] = (), **facts: Any) -> None:
    """Register an operation for each name; others by which torch knows it follow after `=`.

    The word `*` for a fact is the name of the operation itself.
    """
    row = Operation(kind, operands, **facts)
    for text in names.split():
        name, *aliases = text.split("=")
        own: dict[str, Any] = {fact: name for fact in ("widths", "cost") if getattr(row, fact) == "*"}
        summary = f"{kind}: {', '.join((name, *aliases))}"
        OPERATIONS.register(name, summary=summary)(replace(row, aliases=tuple(aliases), **own))


def operands(*places: tuple[str, int, str]) -> tuple[Operand, ...]:
    """Operands from slots, positions and names."""
    return tuple(Operand(slot, position, tuple(names.split())) for slot, position, names in places)


FIRST = ("data_in", 0, "input self")
OF_DATA = operands(FIRST)
"""Of a function whose first argument is its data."""
