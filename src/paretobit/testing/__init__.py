"""Tests to inherit: whoever adds a format, strategy, space, runner, engine or figure proves its promises.

Each suite is a class of tests that one or two fixtures fill. Needs pytest and hypothesis:
`pip install 'paretobit[testing]'`.
"""

from pathlib import Path

from paretobit.runtime import optional

for _package in ("pytest", "hypothesis"):
    optional(_package, extra="testing", purpose="paretobit.testing")

import pytest  # noqa: E402 (after the message that says how to get it)

for _file in sorted(Path(__file__).parent.glob("[a-z]*.py")):
    pytest.register_assert_rewrite(f"paretobit.testing.{_file.stem}")  # failures show the values compared

from paretobit.testing.conformance import FormatConformance  # noqa: E402
from paretobit.testing.engine_conformance import EngineConformance  # noqa: E402
from paretobit.testing.figure_conformance import FigureConformance  # noqa: E402
from paretobit.testing.runner_conformance import RunnerConformance  # noqa: E402
from paretobit.testing.space_conformance import SpaceConformance  # noqa: E402
from paretobit.testing.strategy_conformance import StrategyConformance  # noqa: E402

__all__ = [
    "EngineConformance",
    "FigureConformance",
    "FormatConformance",
    "RunnerConformance",
    "SpaceConformance",
    "StrategyConformance",
]
