"""The conformance suite of engines: what every engine promises, as a class of tests to inherit."""

import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch
from torch import nn

from paretobit.graph import trace
from paretobit.session.engines.base import Engine
from paretobit.spaces import Quantize
from paretobit.spaces.knobs import Config
from paretobit.testing.inputs import asked_for
from paretobit.trials.bench import Bench
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import Candidate, Metric, Runner, RunnerSettings

MakeEngine = Callable[[Bench, Callable[[], Bench]], Engine]
WIDTHS = (3, 4, 5, 6)


class EngineConformance:
    """Tests that hold for every engine; one fixture makes it, of a bench here and what makes one elsewhere.

    Example::

        class TestMyEngine(EngineConformance):
            @pytest.fixture
            def make_engine(self):
                return lambda bench, make_bench: MyEngine.of(bench, make_bench, nothing_wanted, Execution(2))
    """

    make_engine = asked_for("make_engine", "what makes an engine")

    def test_outcomes_are_those_of_the_bench_in_the_order_of_submission(self, make_engine: MakeEngine) -> None:
        bench = small_bench()
        configs = [bench_config(width) for width in WIDTHS]  # the first takes longest
        expected = [small_bench().evaluate(config) for config in configs]
        with closing(make_engine(bench, small_bench)) as engine:
            assert engine.workers >= 1
            for i in range(0, len(configs), engine.workers):
                together = configs[i : i + engine.workers]
                for config in together:
                    engine.submit(config)
                for number, config in enumerate(together, i):
                    finished = engine.next()
                    assert finished.config == config
                    assert finished.outcome == expected[number]  # to the last bit
                    assert finished.seconds > 0

    def test_an_exception_in_a_trial_is_a_failed_outcome_and_the_next_one_runs(self, make_engine: MakeEngine) -> None:
        with closing(make_engine(small_bench(), small_bench)) as engine:
            for width, state in ((2, "failed"), (4, "complete")):
                engine.submit(bench_config(width))
                outcome = engine.next().outcome
                assert outcome.state == state
                assert ("no such luck" in (outcome.error or "")) == (state == "failed")
                assert bool(outcome.metrics) == (state == "complete")

    def test_closing_leaves_no_process_in_the_middle_of_a_trial_too(self, make_engine: MakeEngine) -> None:
        before = _children()
        engine = make_engine(small_bench(), small_bench)
        for width in WIDTHS[: engine.workers]:
            engine.submit(bench_config(width))
        engine.next()
        engine.close()
        engine.close()  # twice is no mistake
        assert _children() <= before


class _Small(Runner):
    """Sums up what the model computes, and draws; the wider, the sooner it is done, and 2 bits are too few."""

    metrics = (Metric("total", "minimize", "of outputs"), Metric("drawn", "minimize", "of nothing"))

    def measure(self, candidate: Candidate) -> dict[str, float]:
        width = int(candidate.formats["0"]["weight"].element_bits)
        if width == 2:
            raise RuntimeError("no such luck")
        time.sleep(0.05 * (max(WIDTHS) - width))
        total = candidate.applied(torch.linspace(-9, 9, 40).view(10, 4)).abs().sum()
        return {"total": float(total), "drawn": float(torch.rand(1))}


def small_bench() -> Bench:
    """A bench of one small layer, whose measurement draws and fails at a width of 2."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        graph = trace(nn.Sequential(nn.Linear(4, 3)).eval(), torch.ones(1, 4))
    widths = {"name": "integer", "weight_width": [2, *WIDTHS], "weight_frac_width": 1}
    space = Quantize(seed={"linear": widths}).bind(graph)
    return Bench(space, [_Small(Evidence(graph, {}), RunnerSettings())], seed=5)


def bench_config(width: int) -> Config:
    """A configuration of `small_bench`."""
    return Config({"0.weight_width": width})


def _children() -> set[str]:
    """Process numbers of what this process started and still runs; none where the system does not say."""
    found: set[str] = set()
    for listed in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        found.update(listed.read_text().split())
    return found
