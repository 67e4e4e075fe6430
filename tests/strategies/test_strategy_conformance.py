"""Every registered strategy, each of Optuna's samplers among them, keeps every promise of the suite."""

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.data.calibration import Calibration
from paretobit.spaces.knobs import Knob, Tree
from paretobit.strategies import STRATEGIES
from paretobit.strategies.insight.model_insight import ModelInsight
from paretobit.strategies.optuna_samplers import SAMPLERS
from paretobit.strategies.problem import Problem
from paretobit.testing import StrategyConformance
from paretobit.trials.bench import Bench
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import RUNNERS
from paretobit.wanted.wanted import Wanted

NUMBERS = Tree((Knob.of("a", [1, 2, 4, 8]), Knob.of("b", [2, 3, 4]), Knob.of("c", [1, 2, 3])))
CASES = {
    "brute_force": [{"order": "nested"}, {"order": "shuffled"}],
    "optuna": [{"sampler": name} for name, one in SAMPLERS.items() if one.package is None],
    "guided": [{}],
}


def test_every_registered_strategy_is_tested():
    assert set(CASES) == set(STRATEGIES.names()), "a strategy without a case here, or a case without one"


class TestBruteForce(StrategyConformance):
    trials = 80  # more than there are

    @pytest.fixture(params=CASES["brute_force"], ids=lambda settings: settings["order"])
    def make_strategy(self, request, problem_of, mixed_tree):
        return maker("brute_force", problem_of(mixed_tree), request.param)


class TestOptunasSamplers(StrategyConformance):
    trials = 13  # more than the samplers begin with
    repeats = True  # the loop answers what was measured before

    @pytest.fixture(params=CASES["optuna"], ids=lambda settings: settings["sampler"])
    def make_strategy(self, request, problem_of):
        problem = problem_of(NUMBERS, constraints=["cost <= 0.8"])
        return maker("optuna", problem, request.param)


class TestGuided(StrategyConformance):
    trials = 10

    @pytest.fixture(scope="class")
    def problem(self):
        """Three layers, of which the gradients of some rows say which matter."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        x, y = torch.randn(80, 6), torch.randint(0, 3, (80,))
        graph = pb.trace(model, x[:1])
        entry = {"name": "scaled_integer", "data_in_width": [4, 8], "weight_width": [2, 3, 4, 8]}
        space = pb.Quantize(seed={"linear": entry}).bind(graph)
        evidence = Evidence(graph, {"val": (x, y)}, Calibration.of_rows(x, y, 40))
        runners = [
            RUNNERS[name](evidence, RUNNERS[name].Settings()) for name in ("basic_evaluation", "basic_computation")
        ]
        bench = Bench(space, runners, 0)
        wanted = Wanted.of(minimize=["loss", "bitops"])

        def build():
            insight = ModelInsight(space, evidence, bench.cheap_metrics, 0)
            return Problem.build(space.tree, wanted, runners, bench.baseline().metrics, insight)

        return build

    @pytest.fixture(params=CASES["guided"], ids=str)
    def make_strategy(self, request, problem):
        return maker("guided", problem(), request.param)

    def metrics(self, strategy, config):
        return {**super().metrics(strategy, config), **strategy.problem.insight.costs(config)}


def maker(name, problem, settings):
    kind = STRATEGIES[name]
    return lambda seed: kind(problem, seed, kind.Settings(**settings))
