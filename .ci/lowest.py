"""Print every dependency that pyproject.toml declares at its lowest version, as constraints for pip.

python .ci/lowest.py [pyproject.toml]
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

_LOWEST = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9.]+)")


def lowest(pyproject: str) -> Iterator[str]:
    """`name==version` of everything required, extras included.

    Raises:
        SystemExit: A requirement has no lower bound.
    """
    project = tomllib.loads(pyproject)["project"]
    for requirements in (project["dependencies"], *project["optional-dependencies"].values()):
        for requirement in requirements:
            if requirement.startswith(f"{project['name']}["):
                continue
            bounded = _LOWEST.match(requirement)
            if bounded is None:
                raise SystemExit(f"no lower bound: {requirement}")
            yield f"{bounded[1]}=={bounded[2]}"


if __name__ == "__main__":
    given = Path(*sys.argv[1:]) if sys.argv[1:] else Path(__file__).parents[1] / "pyproject.toml"
    print("\n".join(lowest(given.read_text(encoding="utf-8"))))
