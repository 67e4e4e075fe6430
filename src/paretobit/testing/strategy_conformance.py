"""The conformance suite of strategies: what every strategy promises, as a class of tests to inherit."""

import hashlib
import pickle
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch

from paretobit.spaces.knobs import Config
from paretobit.strategies import Strategy
from paretobit.studies.trial import State, Trial
from paretobit.testing.inputs import asked_for

MakeStrategy = Callable[[int], Strategy]
STATES: tuple[State, ...] = ("complete", "infeasible", "failed", "complete", "stopped", "duplicate")


class StrategyConformance:
    """Tests that hold for every strategy; one fixture makes fresh ones.

    Example::

        class TestMyStrategy(StrategyConformance):
            @pytest.fixture
            def make_strategy(self, my_problem):
                return lambda seed: MyStrategy(my_problem, seed, MySettings())

    Attributes:
        repeats: Whether it may ask for a configuration again, as samplers do.
        trials: How many proposals it is tried on, fewer where the space ends.
    """

    repeats: ClassVar[bool] = False
    trials: ClassVar[int] = 24

    make_strategy = asked_for("make_strategy", "what makes a strategy from a seed")

    def metrics(self, strategy: Strategy, config: Config) -> dict[str, float]:
        """What a configuration measures: a number above zero of its text for every metric asked about."""
        names = {name for objective in strategy.problem.objectives for name in objective.metrics}
        names |= {constraint.metric for constraint in strategy.problem.constraints}
        texts = {name: f"{name} {config.to_json()}" for name in sorted(names)}
        return {name: 0.1 + hashlib.sha256(text.encode()).digest()[0] / 256 for name, text in texts.items()}

    def test_the_seed_and_the_results_decide_and_nothing_else(self, make_strategy: MakeStrategy) -> None:
        first = self._run(make_strategy(3))
        random.seed(17)
        torch.manual_seed(17)
        assert self._run(make_strategy(3)) == first
        assert self._run(make_strategy(3), in_flight=3) == self._run(make_strategy(3), in_flight=3)

    def test_every_proposal_is_a_configuration_of_the_space(self, make_strategy: MakeStrategy) -> None:
        strategy = make_strategy(0)
        found = self._run(strategy)
        assert found
        for config in found:
            assert strategy.problem.tree.check(config) == config

    def test_nothing_is_proposed_twice(self, make_strategy: MakeStrategy) -> None:
        for in_flight in (1, 3):
            strategy = make_strategy(1)
            found = self._run(strategy, in_flight=in_flight)
            assert self.repeats or len(set(found)) == len(found) <= strategy.problem.tree.size

    def test_it_gives_as_many_as_are_asked_for_and_fewer_only_at_the_end(self, make_strategy: MakeStrategy) -> None:
        strategy, number = make_strategy(0), 0
        for n in (1, 2, 5, 1):
            asked = strategy.ask(n)
            assert len(asked) <= n
            if len(asked) < n:
                assert strategy.ask(1) == []
                return
            strategy.tell([self._trial(strategy, number + i, config) for i, config in enumerate(asked)])
            number += n

    def test_a_fresh_one_that_is_told_what_was_stored_asks_for_the_same(self, make_strategy: MakeStrategy) -> None:
        whole = self._run(make_strategy(2), in_flight=3)
        found, another = [], self._steps(make_strategy(8))
        for config in self._steps(make_strategy(2), in_flight=3, stored=True):
            next(another, None)  # another search in the same process
            found.append(config)
        assert found == whole

    def test_trials_of_every_state_are_taken_in(self, make_strategy: MakeStrategy) -> None:
        for states in (STATES, ("failed",), ("infeasible",)):
            strategy = make_strategy(4)
            found = self._run(strategy, states)
            assert all(strategy.problem.tree.check(config) == config for config in found)
            assert self._run(make_strategy(4), states) == found
            assert self.repeats or len(set(found)) == len(found)

    def test_what_another_study_found_is_learnt_alike_each_time(self, make_strategy: MakeStrategy) -> None:
        givens = self._run(make_strategy(5))[:4]
        runs = []
        for _ in range(2):
            strategy = make_strategy(6)
            strategy.learn([self._trial(strategy, i, config) for i, config in enumerate(givens)])
            runs.append(self._run(strategy))
        assert runs[0] == runs[1]
        assert self.repeats or not set(givens) & set(runs[0])

    def _run(self, strategy: Strategy, states: tuple[State, ...] = ("complete",), in_flight: int = 1) -> list[Config]:
        return list(self._steps(strategy, in_flight, states))

    def _steps(
        self, strategy: Strategy, in_flight: int = 1, states: tuple[State, ...] = ("complete",), stored: bool = False
    ) -> Iterator[Config]:
        """Proposals one by one, told in order when so many are in flight."""
        waiting: deque[Trial] = deque()
        for number in range(self.trials):
            if len(waiting) == in_flight:
                strategy.tell([waiting.popleft()])
            asked = strategy.ask(1)
            if not asked:
                return
            trial = self._trial(strategy, number, asked[0], states[number % len(states)])
            waiting.append(pickle.loads(pickle.dumps(trial)) if stored else trial)
            yield asked[0]

    def _trial(self, strategy: Strategy, number: int, config: Config, state: State = "complete") -> Trial:
        measured = self.metrics(strategy, config)
        cheap = {c.metric: measured[c.metric] for c in strategy.problem.constraints}
        metrics = {"failed": {}, "infeasible": cheap, "stopped": cheap}.get(state, measured)
        error = "Traceback: on purpose" if state == "failed" else None
        return Trial(number, config, state, metrics, error, 0 if state == "duplicate" else None)
