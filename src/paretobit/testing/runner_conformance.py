"""The conformance suite of runners: what every runner promises, as a class of tests to inherit."""

import copy
import json
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from paretobit.graph.copies import copy_of
from paretobit.spaces import Quantize
from paretobit.testing.inputs import asked_for
from paretobit.trials.outcome import measure
from paretobit.trials.runners import Candidate, Runner

Candidates = Sequence[Candidate]


class RunnerConformance:
    """Tests that hold for every runner; one fixture says which, on the evidence of a float model.

    Example::

        class TestMyRunner(RunnerConformance):
            @pytest.fixture
            def runner(self):
                return MyRunner(Evidence(paretobit.trace(model, x[:1]), {"val": (x, y)}), MySettings())

    Attributes:
        exact: Whether the same candidate measures the same bits; what reads a clock does not.
    """

    exact: ClassVar[bool] = True

    runner = asked_for("runner", "a runner")

    @pytest.fixture
    def candidates(self, runner: Runner) -> Candidates:
        """The float model, and two quantised ones of its shape."""
        graph = runner.evidence.graph
        entry = {"name": "scaled_integer", "weight_width": [2, 6], "data_in_width": 8}
        space = Quantize(seed={"default": entry}, share="type").bind(graph)
        configs = [space.tree.at(0), space.tree.at(space.tree.size - 1)]
        models = [space.apply(space.prepare(), config) for config in configs]
        formats = [space.formats(config) for config in configs]
        float_model = Candidate({}, copy_of(graph.model).eval())
        return [float_model, *(Candidate(f, m) for f, m in zip(formats, models, strict=True))]

    def test_what_is_declared_is_delivered_and_nothing_else(self, runner: Runner, candidates: Candidates) -> None:
        for candidate in candidates:
            measured = measure([runner], candidate)  # as the bench does: refuses what is missing or no number
            assert set(measured) == {metric.name for metric in runner.metrics} != set()
            assert all(type(value) in (int, float) and not math.isnan(value) for value in measured.values())

    def test_metrics_say_their_direction_and_unit(self, runner: Runner, candidates: Candidates) -> None:
        runner.measure(candidates[0])
        names = [name for metric in runner.metrics for name in (metric.name, metric.short) if name]
        assert len(set(names)) == len(names) > 0
        for metric in runner.metrics:
            assert metric.name.isidentifier()
            assert metric.direction in ("maximize", "minimize")
            assert metric.unit.strip() or runner.metrics_from_running

    def test_nothing_stays_from_one_candidate_to_the_next(self, runner: Runner, candidates: Candidates) -> None:
        first = [self._measured(runner, candidate) for candidate in candidates]
        again = [self._measured(runner, candidate) for candidate in reversed(candidates)]
        assert again[::-1] == first
        assert self._measured(runner, candidates[0]) == first[0]

    def test_costs_need_no_model(self, runner: Runner, candidates: Candidates) -> None:
        for candidate in candidates if runner.cheap else ():
            alone = Candidate(candidate.formats, None)
            assert self._measured(runner, alone) == self._measured(runner, candidate)

    def test_a_model_that_cannot_run_is_an_error_and_no_number(self, runner: Runner) -> None:
        if not runner.cheap:
            with pytest.raises(Exception):  # noqa: B017, PT011 (whatever says why)
                measure([runner], Candidate({}, _Broken()))

    def test_the_model_is_left_as_it_was(self, runner: Runner, candidates: Candidates) -> None:
        for candidate in candidates if not runner.may_change_model else ():
            before, mode = copy.deepcopy(candidate.applied.state_dict()), candidate.applied.training
            runner.measure(candidate)
            after = candidate.applied.state_dict()
            assert candidate.applied.training == mode
            assert all(torch.equal(before[name], after[name]) for name in before)

    def test_settings_come_back(self, runner: Runner) -> None:
        settings = runner.settings
        written = json.loads(json.dumps(settings.model_dump(mode="json")))
        assert type(settings).model_validate(written) == settings
        json.dumps(runner.identity, default=str)
        with pytest.raises(ValueError, match="no_such_setting"):
            type(settings).model_validate({"no_such_setting": 1})

    def test_the_same_on_the_same_graph(self, runner: Runner, candidates: Candidates) -> None:
        expected = self._measured(runner, candidates[-1])
        other = runner.on(runner.evidence.graph)
        assert type(other) is type(runner)
        assert other.identity == runner.identity
        assert self._measured(other, candidates[-1]) == expected

    def _measured(self, runner: Runner, candidate: Candidate) -> dict[str, Any]:
        """What is compared: without the values where a clock is read."""
        torch.manual_seed(candidate.seed)
        found = runner.measure(candidate)
        return dict(found) if self.exact else dict.fromkeys(found)


class _Broken(nn.Module):
    def forward(self, *given: Any, **named: Any) -> Any:
        raise RuntimeError("this model cannot run")
