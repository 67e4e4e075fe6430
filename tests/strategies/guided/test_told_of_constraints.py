"""Every sampler learns of broken constraints in the way it understands, cheap ones included."""

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.spaces.knobs import Knob, Tree
from paretobit.strategies.optuna_samplers import SAMPLERS, OptunaSettings, OptunaStrategy
from paretobit.studies.answers import rejected_unrun
from paretobit.studies.trial import Trial

TREE = Tree(tuple(Knob.of(f"k{i}", list(range(8))) for i in range(4)))
BOUND = 10
TOLD = {name: sampler.rejected for name, sampler in SAMPLERS.items()}


def metrics(config):
    """The loss pulls up, the cost down; 23 % of the configurations keep the bound, and the mean cost is 14."""
    return {"loss": 28.0 - sum(config.values()), "cost": float(sum(config.values()))}


def drive(problem_of, sampler, count, rejected_early, objectives=("loss",), seed=0):
    """The costs of what is proposed, and the strategy."""
    problem = problem_of(TREE, objectives=objectives, constraints=(f"cost <= {BOUND}",))
    strategy = OptunaStrategy(problem, seed, OptunaSettings(sampler=sampler))
    costs = []
    for number in range(count):
        (config,) = strategy.ask(1)
        measured = metrics(config)
        keeps = measured["cost"] <= BOUND
        if rejected_early and not keeps:
            measured = {"cost": measured["cost"]}
        strategy.tell([Trial(number, config, "complete" if keeps else "infeasible", measured)])
        costs.append(metrics(config)["cost"])
    return costs, strategy


def test_every_sampler_says_how_it_is_told():
    assert TOLD == {
        "tpe": "pruned",
        "random": "unused",
        "nsgaii": "evolved",
        "nsgaiii": "evolved",
        "qmc": "unused",
        "grid": "unused",
        "bruteforce": "unused",
        "cmaes": "penalty",
        "gp": "worst",
    }


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(
    ("sampler", "count"), [("tpe", 90), ("nsgaii", 450), ("nsgaiii", 450), ("cmaes", 150), ("gp", 30)]
)
def test_samplers_that_learn_learn_what_is_rejected(problem_of, sampler, count, early):
    costs, _ = drive(problem_of, sampler, count, early)
    late = costs[-count // 3 :]
    assert sum(late) / len(late) <= 11.5  # they press against the bound; at random it is 14
    assert sum(cost <= BOUND + 1 for cost in late) >= 0.5 * len(late)  # at random it is 0.31


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("sampler", ["random", "qmc", "bruteforce"])
def test_samplers_that_learn_nothing_stay_as_they_are(problem_of, sampler, early):
    def proposals(constraints):
        problem = problem_of(Tree(TREE.knobs[:2]), constraints=constraints)
        strategy = OptunaStrategy(problem, 3, OptunaSettings(sampler=sampler))
        found = []
        for number in range(20):
            (config,) = strategy.ask(1)
            measured = metrics(config)
            if constraints and early and measured["cost"] > 5:
                measured = {"cost": measured["cost"]}
            strategy.tell([Trial(number, config, "complete", measured)])
            found.append(config)
        return found

    assert proposals(()) == proposals(("cost <= 5",))


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "nsgaiii", "gp"])
def test_violations_stand_beside_the_losses_in_optunas_own_words(problem_of, sampler):
    _, strategy = drive(problem_of, sampler, 12, False, objectives=("loss", "cost"))
    for trial in strategy._study.trials:
        config = [trial.params[f"k{i}"] for i in range(4)]
        excess = max(sum(config) - BOUND, 0) / BOUND
        assert list(trial.constraints.values()) == pytest.approx([excess])
        assert trial.values == [28.0 - sum(config), sum(config)]


def test_a_rejected_trial_has_the_worst_losses_so_far_and_none_before(problem_of):
    problem = problem_of(TREE, objectives=("loss", "cost"), constraints=("cost <= 10",))
    given = [{"cost": 20.0}, {"loss": 3.0, "cost": 9.0}, {"loss": 1.0, "cost": 10.0}, {"cost": 25.0}]
    expected = {
        "tpe": [None, [3.0, 9.0], [1.0, 10.0], None],
        "gp": [None, [3.0, 9.0], [1.0, 10.0], [3.0, 10.0]],
        "nsgaii": [[0.0, 0.0], [3.0, 9.0], [1.0, 10.0], [3.0, 10.0]],
    }
    for sampler, values in expected.items():
        strategy = OptunaStrategy(problem, 0, OptunaSettings(sampler=sampler))
        for number, measured in enumerate(given):
            (config,) = strategy.ask(1)
            strategy.tell([Trial(number, config, "complete", measured)])
        assert [trial.values for trial in strategy._study.trials] == values


def test_for_cmaes_what_breaks_a_constraint_comes_after_all_else(problem_of):
    _, strategy = drive(problem_of, "cmaes", 30, True)
    for trial in strategy._study.trials:
        cost = sum(trial.params[f"k{i}"] for i in range(4))
        violation = max(cost - BOUND, 0) / BOUND
        assert trial.values == pytest.approx([1e100 * (1 + violation)] if violation else [28.0 - cost])


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsgaii"])
def test_trials_that_a_cheap_constraint_rejects_count_and_never_reach_the_model(sampler):
    calls = []

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            calls.append(len(x))
            return self.layer(x)

    torch.manual_seed(0)
    model, rows = Counting(), (torch.randn(16, 4), torch.randint(0, 3, (16,)))
    seed = {"linear": {"data_in_width": list(range(2, 17)), "weight_width": list(range(2, 17))}}
    arguments = {
        "space": pb.Quantize(seed=seed),
        "val": rows,
        "minimize": ["loss", "bitops"],
        "strategy": sampler,
        "n_trials": 60,
        "calibration": 0,
        "runners": {"basic_evaluation": {"batch_size": 16}, "basic_computation": {}},
    }
    pb.search(model, **{**arguments, "n_trials": 1})
    overhead = len(calls) - 1  # tracing, checks, the baseline
    calls.clear()
    study = pb.search(model, **arguments, subject_to="bitops <= 200")  # 12 · 16 is the most that is left
    counts = study.counts()
    assert sum(counts.values()) == 60
    rejected = rejected_unrun(study, study.facts["metrics"])
    assert rejected == counts["infeasible"] > 20
    repeated = 1  # a trial, after the search
    assert len(calls) - overhead - repeated == counts["complete"] > 0
    assert study.facts["repeated"]["trial"] is not None
    assert all(trial.metrics["total_bitops"] <= 200 for trial in study.front())
