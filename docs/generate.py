"""Write docs/reference.md from the registries: `make docs`."""

from __future__ import annotations

from pathlib import Path

from paretobit.report import to_markdown
from paretobit.workflow.catalogue import catalogue

TARGET = Path(__file__).parent / "reference.md"
_HEAD = """# Reference

Written by `make docs` from the registries; `paretobit list` prints the same.
"""


def reference() -> str:
    """The page as text."""
    parts = [_HEAD]
    for kind, rows in catalogue().items():
        parts.append(f"## {kind.capitalize()}\n\n{to_markdown(rows)}")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
