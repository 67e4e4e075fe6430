"""How the benchmarks print: one line of JSON, or a line per figure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def show(result: Mapping[str, Any], as_json: bool) -> None:
    """Print figures by name."""
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:30} {value}")
