"""Optuna behind ask and tell proposes what Optuna alone proposes."""

import warnings

import optuna
import pytest

from paretobit.errors import BadInput
from paretobit.spaces.knobs import Knob, Tree
from paretobit.strategies.optuna_samplers import SAMPLERS, OptunaSettings, OptunaStrategy
from paretobit.studies.trial import Trial


def strategy(problem, seed=0, sampler="tpe", **settings):
    return OptunaStrategy(problem, seed, OptunaSettings(sampler=sampler, sampler_settings=settings))


def drive(made, measure, count):
    proposals = []
    for number in range(count):
        (config,) = made.ask(1)
        proposals.append(config)
        made.tell([measure(number, config)])
    return proposals


def complete(score):
    return lambda number, config: Trial(number, config, "complete", score(config))


def optuna_alone(sampler, tree, objectives, score, count, violation=None):
    """The loop a user of Optuna would write, with hand-written suggest calls for `mixed_tree`."""
    study = optuna.create_study(sampler=sampler, directions=["minimize"] * len(objectives))
    found = []
    for _ in range(count):
        trial = study.ask()
        config = {"depth": [1, 2, 4, 8][trial.suggest_int("depth", 0, 3)]}
        config["kind"] = trial.suggest_categorical("kind", ("x", "y", None))
        config["name"] = trial.suggest_categorical("name", ("float", "integer"))
        if config["name"] == "integer":
            config["width"] = [4, 8][trial.suggest_int("width", 0, 1)]
            config["signed"] = trial.suggest_categorical("signed", (True, False))
        found.append(config)
        metrics = score(config)
        if violation is not None:
            trial.set_constraint("bound", violation(metrics))
        study.tell(trial, [metrics[name] for name in objectives])
    return found


@pytest.mark.parametrize("objectives", [("loss",), ("loss", "cost")])
@pytest.mark.parametrize("seed", [0, 7])
def test_tpe_proposes_what_optuna_alone_proposes(problem_of, mixed_tree, scored, objectives, seed):
    made = strategy(problem_of(mixed_tree, objectives=objectives), seed)
    proposals = drive(made, complete(scored), 60)
    alone = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    expected = optuna_alone(alone, mixed_tree, objectives, scored, 60)
    assert [dict(config) for config in proposals] == expected
    assert len({tuple(c.items()) for c in proposals[10:]}) < 50  # it exploits: it is not the random start


def test_sampler_settings_reach_optuna(problem_of, mixed_tree, scored):
    made = strategy(problem_of(mixed_tree), 3, n_startup_trials=3, n_ei_candidates=5, multivariate=False)
    alone = optuna.samplers.TPESampler(seed=3, n_startup_trials=3, n_ei_candidates=5, multivariate=False)
    expected = optuna_alone(alone, mixed_tree, ("loss",), scored, 40)
    assert [dict(c) for c in drive(made, complete(scored), 40)] == expected
    assert expected != [dict(c) for c in drive(strategy(problem_of(mixed_tree), 3), complete(scored), 40)]


def test_random_proposes_what_optuna_alone_proposes(problem_of, mixed_tree, scored):
    made = strategy(problem_of(mixed_tree), 5, "random")
    expected = optuna_alone(optuna.samplers.RandomSampler(seed=5), mixed_tree, ("loss",), scored, 40)
    assert [dict(c) for c in drive(made, complete(scored), 40)] == expected


@pytest.mark.parametrize("objectives", [("loss",), ("loss", "cost")])
def test_constraints_reach_tpe(problem_of, mixed_tree, scored, objectives):
    problem = problem_of(mixed_tree, objectives=objectives, constraints=("cost <= 20",))
    proposals = [dict(c) for c in drive(strategy(problem, 1), complete(scored), 60)]

    def violation(metrics):
        return max(metrics["cost"] - 20, 0) / 20

    def alone():
        return optuna.samplers.TPESampler(seed=1, multivariate=True)

    assert proposals == optuna_alone(alone(), mixed_tree, objectives, scored, 60, violation)
    assert proposals != optuna_alone(alone(), mixed_tree, objectives, scored, 60)


VERSATILE = [name for name, sampler in SAMPLERS.items() if sampler.categorical and sampler.conditional]


@pytest.mark.parametrize("sampler", VERSATILE)
def test_the_seed_decides(problem_of, mixed_tree, scored, sampler):
    problem = problem_of(mixed_tree)
    first = drive(strategy(problem, 1, sampler), complete(scored), 30)
    assert first == drive(strategy(problem, 1, sampler), complete(scored), 30)
    assert first != drive(strategy(problem, 2, sampler), complete(scored), 30)


@pytest.mark.parametrize("sampler", VERSATILE)
def test_values_come_back_with_their_own_types(problem_of, scored, sampler):
    tree = Tree(
        (
            Knob.of("float", [0.5, 2.0, 1e-9]),
            Knob.of("int", [8, -4, 16]),
            Knob.of("mixed", [1, 0.25]),
            Knob.of("flag", [False, True]),
            Knob.of("none", [None, "NA"]),
            Knob.of("one", [3]),
        )
    )
    made = strategy(problem_of(tree), 0, sampler)
    proposals = drive(made, lambda n, c: Trial(n, c, "complete", {"loss": c["float"]}), 30)
    for config in proposals:
        assert tree.check(config) == config
    for knob in tree.knobs:
        seen = {(type(config[knob.name]), config[knob.name]) for config in proposals}
        assert seen == {(type(value), value) for value in knob.values}


def test_infeasible_and_failed_trials_are_taken_in(problem_of, mixed_tree, scored):
    problem = problem_of(mixed_tree, objectives=("loss", "cost"), constraints=("cost <= 20",))

    def measure(number, config):
        if number % 5 == 0:
            return Trial(number, config, "failed", {}, "boom")
        metrics = scored(config)
        if metrics["cost"] > 20:  # rejected before the loss was known
            return Trial(number, config, "infeasible", {"cost": metrics["cost"]})
        return Trial(number, config, "complete", metrics)

    proposals = drive(strategy(problem, 2), measure, 80)
    late = [scored(config)["cost"] <= 20 for config in proposals[40:]]
    assert sum(late) >= 0.65 * len(late)  # at random it is 0.44: it learnt what is rejected
    assert proposals == drive(strategy(problem, 2), measure, 80)


def test_a_configuration_in_flight_twice_is_told_twice(problem_of, scored):
    tree = Tree((Knob.of("depth", [1, 2]),))
    made = strategy(problem_of(tree), 0)
    asked = made.ask(6)
    for number, config in enumerate(asked):
        made.tell([Trial(number, config, "complete", {"loss": float(config["depth"])})])
    assert len(made.ask(1)) == 1
    states = [trial.state.name for trial in made._study.trials]
    assert states == ["COMPLETE"] * 6 + ["RUNNING"]


def test_optuna_neither_warns_nor_prints(problem_of, mixed_tree, scored, capfd):
    problem = problem_of(mixed_tree, objectives=("loss", "cost"), constraints=("cost <= 20",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sampler in VERSATILE:
            drive(strategy(problem, 0, sampler), complete(scored), 40)
    assert capfd.readouterr() == ("", "")


def test_an_unknown_sampler_is_refused_with_the_closest_match():
    with pytest.raises(BadInput, match="did you mean 'tpe'"):
        OptunaSettings(sampler="tpee")


@pytest.mark.parametrize(
    ("settings", "key", "message"),
    [
        ({"n_startup": 3}, "sampler_settings.n_startup", "did you mean 'n_startup_trials'"),
        ({"n_startup_trials": "lots"}, "sampler_settings.n_startup_trials", "found 'lots'; allowed: int"),
        ({"n_ei_candidates": True}, "sampler_settings.n_ei_candidates", "found True; allowed: int"),
        ({"group": True, "multivariate": False}, "sampler_settings", "Optuna's tpe sampler refuses"),
    ],
    ids=["unknown", "text for a number", "truth value for a number", "refused by Optuna"],
)
def test_settings_that_a_sampler_lacks_or_refuses_are_refused_by_name(problem_of, mixed_tree, settings, key, message):
    with pytest.raises(BadInput, match=message) as refused:
        strategy(problem_of(mixed_tree), 0, **settings)
    assert refused.value.key == key


def test_a_space_that_the_grid_cannot_list_is_refused(problem_of):
    tree = Tree(tuple(Knob.of(f"k{i}", list(range(10))) for i in range(9)))
    with pytest.raises(BadInput, match="1,000,000,000 configurations: 1,000,000 at most"):
        strategy(problem_of(tree), 0, "grid")
