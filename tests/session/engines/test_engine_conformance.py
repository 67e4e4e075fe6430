"""Every registered engine keeps every promise of the suite."""

import pytest

from paretobit.session.engines.base import ENGINES, Execution
from paretobit.testing import EngineConformance
from paretobit.wanted.wanted import nothing_wanted

CASES = {"serial": Execution(), "processes": Execution(workers=2)}


def test_every_registered_engine_is_tested():
    assert set(CASES) == set(ENGINES.names()), "an engine without a case here, or a case without one"


class TestEveryEngine(EngineConformance):
    @pytest.fixture(params=CASES)
    def make_engine(self, request):
        kind, execution = ENGINES[request.param], CASES[request.param]
        return lambda bench, make_bench: kind.of(bench, make_bench, nothing_wanted, execution)
