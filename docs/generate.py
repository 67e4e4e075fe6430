"""Write the pages that come from the registries, and their pictures: `make docs`."""

from __future__ import annotations

from pathlib import Path

from formats_page import IMAGES, formats_page, pictures

from paretobit.report import to_markdown
from paretobit.workflow.catalogue import catalogue

FOLDER = Path(__file__).parent
_HEAD = """# Reference

Written by `make docs` from the registries; `paretobit list` prints the same.
[formats.md](formats.md) says more of the number formats.
"""


def reference() -> str:
    """The page of everything registered, as text."""
    parts = [_HEAD]
    for kind, rows in catalogue().items():
        parts.append(f"## {kind.capitalize()}\n\n{to_markdown(rows)}")
    return "\n".join(parts)


def generated() -> dict[str, str]:
    """Every generated file, by its path from this folder."""
    images = {f"{IMAGES}/{name}": text for name, text in pictures().items()}
    return {"reference.md": reference(), "formats.md": formats_page(), **images}


if __name__ == "__main__":
    files = generated()
    for path, text in files.items():
        (FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / path).write_text(text, encoding="utf-8", newline="\n")
    for old in (FOLDER / IMAGES).glob("*.svg"):
        if f"{IMAGES}/{old.name}" not in files:
            old.unlink()
