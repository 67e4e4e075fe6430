"""Each suite accepts what is sound, and names the promise that something broken breaks."""

import inspect
import random
from dataclasses import replace

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.report.figures import FIGURES, Asked, Picture
from paretobit.report.runs import Run, Runs
from paretobit.session.engines.base import SerialEngine
from paretobit.spaces.base import BoundSpace, Dropped, Space
from paretobit.spaces.knobs import Config, Knob, Tree
from paretobit.strategies import BruteForce, StrategySettings
from paretobit.testing import (
    EngineConformance,
    FigureConformance,
    RunnerConformance,
    SpaceConformance,
    StrategyConformance,
)
from paretobit.testing.figure_conformance import small_study
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import Metric, Runner, RunnerSettings


def failures(suite, given):
    """Names of the tests of a suite that fail, run as pytest would with these fixtures."""
    failed = set()
    for name, test in inspect.getmembers(suite, inspect.ismethod):
        if not name.startswith("test_"):
            continue
        wanted = [key for key in inspect.signature(test).parameters if key != "trials"]
        more = [{"trials": t} for t in ("one", "failed")] if "trials" in inspect.signature(test).parameters else [{}]
        for extra in more:
            try:
                test(**{key: given[key]() for key in wanted}, **extra)
            except (Exception, pytest.fail.Exception):
                failed.add(name)
    return failed


TREE = Tree((Knob.of("a", [1, 2, 4]), Knob.of("b", [2, 3, 4]), Knob.of("c", [1, 2, 3])))


class Nested(BruteForce):
    """A sound strategy."""

    Settings = StrategySettings

    def __init__(self, problem, seed, settings):
        super().__init__(problem, seed, BruteForce.Settings())


class Repeating(Nested):
    def ask(self, n):
        return [self.problem.tree.at(0)] * n


class Outside(Nested):
    def ask(self, n):
        return [Config({**config, "a": 3}) for config in super().ask(n)]


class Generous(Nested):
    def ask(self, n):
        return super().ask(n + 1)


class Stingy(Nested):
    def ask(self, n):
        return super().ask(min(n, 2))


class GloballyRandom(Nested):
    def __init__(self, problem, seed, settings):
        super().__init__(problem, seed, settings)
        self._indices = iter(sorted(range(problem.tree.size), key=lambda i: random.random()))


class SharedState(Nested):
    """Remembers, in the class, what any of them proposed."""

    place = 0

    def ask(self, n):
        SharedState.place += n
        return [self.problem.tree.at((SharedState.place + i) % self.problem.tree.size) for i in range(n)]


class ById(Nested):
    """Knows its own proposals only as the objects that they were."""

    def __init__(self, problem, seed, settings):
        super().__init__(problem, seed, settings)
        self._mine = []

    def ask(self, n):
        self._mine += (asked := super().ask(n))
        return asked

    def tell(self, trials):
        if any(trial.config is mine for trial in trials for mine in self._mine):
            next(self._indices)


class NeedsMetrics(Nested):
    def tell(self, trials):
        assert all(trial.metrics["loss"] >= 0 for trial in trials)


class Unlearning(Nested):
    def learn(self, trials):
        pass


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        (Nested, None),
        (Repeating, "test_nothing_is_proposed_twice"),
        (Outside, "test_every_proposal_is_a_configuration_of_the_space"),
        (Generous, "test_it_gives_as_many_as_are_asked_for_and_fewer_only_at_the_end"),
        (Stingy, "test_it_gives_as_many_as_are_asked_for_and_fewer_only_at_the_end"),
        (GloballyRandom, "test_the_seed_and_the_results_decide_and_nothing_else"),
        (SharedState, "test_the_seed_and_the_results_decide_and_nothing_else"),
        (ById, "test_a_fresh_one_that_is_told_what_was_stored_asks_for_the_same"),
        (NeedsMetrics, "test_trials_of_every_state_are_taken_in"),
        (Unlearning, "test_what_another_study_found_is_learnt_alike_each_time"),
    ],
)
def test_a_broken_strategy_fails(problem_of, kind, broken):
    made = lambda: lambda seed: kind(problem_of(TREE), seed, None)  # noqa: E731
    check(failures(StrategyConformance(), {"make_strategy": made}), broken)


def check(failed, broken):
    assert broken in failed if broken else failed == set(), failed


class Scaling(Space):
    """Multiplies the weights of the first layer; a sound space."""

    name = "scaling"

    def __init__(self, *, factors=(1.0, 2.0, 3.0)):
        self.factors = list(factors)

    def bind(self, graph, calibration=None):
        return BoundScaling(graph, self.factors)

    @staticmethod
    def explain(described, config):
        return {described["layer"]: {"config": {"factor": config["factor"]}}}


class BoundScaling(BoundSpace):
    name = "scaling"
    dropped, matched, unmatched = (), (), ()

    def __init__(self, graph, factors):
        super().__init__(graph)
        self.tree = Tree((Knob.of("factor", factors),))

    def instrument(self, model):
        model[0].given = model[0].weight.detach().clone()

    def factor(self, config):
        return 1.0 if config is None else config["factor"]

    def apply(self, prepared, config):
        with torch.no_grad():
            prepared[0].weight.copy_(prepared[0].given * self.factor(config))
        return prepared

    def describe(self):
        return {"layer": "0"}


class Accumulating(BoundScaling):
    """Multiplies what is there, not what was given."""

    def apply(self, prepared, config):
        with torch.no_grad():
            prepared[0].weight.mul_(self.factor(config))
        return prepared


class Unrestored(BoundScaling):
    """Leaves the last configuration in place of the unmodified model."""

    def apply(self, prepared, config):
        return prepared if config is None else super().apply(prepared, config)


class OnTheOriginal(BoundScaling):
    """Works on the caller's model."""

    def prepare(self):
        self.instrument(self._graph.model)
        return self._graph.model


class IdleKnob(BoundScaling):
    def factor(self, config):
        return 1.0


class DroppedAndThere(BoundScaling):
    dropped = (Dropped("factor", "it changes nothing"),)


class Tensors(BoundScaling):
    """Describes itself in what JSON does not have."""

    def describe(self):
        return {"layer": torch.zeros(1)}


class Forgetting(BoundScaling):
    """Travels without its factors."""

    def __setstate__(self, state):
        self.__dict__.update(state, tree=Tree((Knob.of("factor", [1.0]),)))


class Reordered(BoundScaling):
    """Every one bound has another order of its options."""

    turn = 0

    def __init__(self, graph, factors):
        Reordered.turn += 1
        turn = Reordered.turn % len(factors)
        super().__init__(graph, [*factors[turn:], *factors[:turn]])


class Forgetful(Scaling):
    """Writes fewer settings than it has."""

    def to_settings(self):
        return {}


class Silent(Scaling):
    """Spells all configurations alike."""

    @staticmethod
    def explain(described, config):
        return {}


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        (BoundScaling, None),
        (Accumulating, "test_what_was_applied_before_leaves_no_trace"),
        (Unrestored, "test_what_was_applied_before_leaves_no_trace"),
        (OnTheOriginal, "test_what_was_applied_before_leaves_no_trace"),
        (IdleKnob, "test_every_knob_acts"),
        (DroppedAndThere, "test_every_knob_acts"),
        (Tensors, "test_a_configuration_is_spelt_out_without_the_model"),
        (Silent, "test_a_configuration_is_spelt_out_without_the_model"),
        (Forgetting, "test_it_travels_to_another_process"),
        (Reordered, "test_the_tree_has_every_configuration_once"),
        (Forgetful, "test_settings_bring_it_back"),
    ],
)
def test_a_broken_space_fails(kind, broken):
    inputs = torch.linspace(-1, 1, 12).view(4, 3)
    torch.manual_seed(0)
    graph = pb.trace(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).eval(), inputs)
    described = kind if issubclass(kind, Space) else Scaling
    space = described(factors=[1.0, 2.0, 5.0])
    if issubclass(kind, BoundSpace):
        binding = type("Binding", (Scaling,), {"bind": lambda self, g, c=None: kind(g, self.factors)})
        space = binding(factors=[1.0, 2.0, 5.0])
    given = {
        "space": lambda: space,
        "graph": lambda: graph,
        "inputs": lambda: inputs,
        "calibration": lambda: None,
        "bound": lambda: space.bind(graph),
    }
    check(failures(SpaceConformance(), given), broken)


class Mean(Runner):
    """The mean output of the model; a sound runner."""

    metrics = (Metric("mean", "minimize", "of outputs"),)

    def measure(self, candidate):
        with torch.no_grad():
            return {"mean": float(candidate.applied(torch.ones(2, 3)).mean())}


class Undelivered(Mean):
    metrics = (*Mean.metrics, Metric("other", "minimize", "of nothing"))


class Unsaid(Mean):
    def measure(self, candidate):
        return {**super().measure(candidate), "more": 1.0}


class NotANumber(Mean):
    def measure(self, candidate):
        return {"mean": float("nan")}


class Unitless(Mean):
    metrics = (Metric("mean", "minimize", ""),)


class Averaging(Mean):
    """Keeps what it measured before."""

    def measure(self, candidate):
        self.kept = [*getattr(self, "kept", []), super().measure(candidate)["mean"]]
        return {"mean": sum(self.kept) / len(self.kept)}


class Defaulting(Mean):
    """Gives a number where there is none."""

    def measure(self, candidate):
        try:
            return super().measure(candidate)
        except RuntimeError:
            return {"mean": 0.0}


class Changing(Mean):
    def measure(self, candidate):
        measured = super().measure(candidate)
        with torch.no_grad():
            next(candidate.applied.parameters()).add_(1.0)
        return measured


class NotCheap(Mean):
    """Says that it needs no model."""

    metrics = (Metric("mean", "minimize", "of outputs", cheap=True),)


class LosesSettings(Mean):
    def __init__(self, evidence, settings, factor=1):
        super().__init__(evidence, settings)
        self.factor = factor

    def measure(self, candidate):
        return {"mean": self.factor + super().measure(candidate)["mean"]}


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        (Mean, None),
        (Undelivered, "test_what_is_declared_is_delivered_and_nothing_else"),
        (Unsaid, "test_what_is_declared_is_delivered_and_nothing_else"),
        (NotANumber, "test_what_is_declared_is_delivered_and_nothing_else"),
        (Unitless, "test_metrics_say_their_direction_and_unit"),
        (Averaging, "test_nothing_stays_from_one_candidate_to_the_next"),
        (Defaulting, "test_a_model_that_cannot_run_is_an_error_and_no_number"),
        (Changing, "test_the_model_is_left_as_it_was"),
        (NotCheap, "test_costs_need_no_model"),
        (LosesSettings, "test_the_same_on_the_same_graph"),
    ],
)
def test_a_broken_runner_fails(kind, broken):
    torch.manual_seed(0)
    graph = pb.trace(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).eval(), torch.ones(1, 3))
    more = {"factor": 5} if kind is LosesSettings else {}
    made = lambda: kind(Evidence(graph, {}), RunnerSettings(), **more)  # noqa: E731
    candidates = RunnerConformance.candidates.__wrapped__
    given = {"runner": made, "candidates": lambda: candidates(RunnerConformance(), made())}
    check(failures(RunnerConformance(), given), broken)


class Backwards(SerialEngine):
    """The newest first."""

    workers = 2

    def next(self):
        self._queue.reverse()
        return super().next()


class Unseeded(SerialEngine):
    """Runs on generators of its own."""

    def next(self):
        finished = super().next()
        drawn = {**finished.outcome.metrics, "drawn": random.random()}
        return replace(finished, outcome=replace(finished.outcome, metrics=drawn))


class Rounding(SerialEngine):
    """Hands results on in single precision, less a bit."""

    def next(self):
        finished = super().next()
        rounded = {name: round(value, 5) for name, value in finished.outcome.metrics.items()}
        return replace(finished, outcome=replace(finished.outcome, metrics=rounded))


class Raising(SerialEngine):
    def next(self):
        finished = super().next()
        if finished.outcome.state == "failed":
            raise RuntimeError("a trial failed")
        return finished


class Silencing(SerialEngine):
    """A failed trial is one without a reason."""

    def next(self):
        finished = super().next()
        return replace(finished, outcome=replace(finished.outcome, error=None))


class Leaving(SerialEngine):
    """Starts a process that nobody ends."""

    def submit(self, config, bar=None):
        import subprocess
        import sys

        left.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        super().submit(config, bar)


left = []


@pytest.fixture
def ended():
    yield
    while left:
        process = left.pop()
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        (SerialEngine, None),
        (Backwards, "test_outcomes_are_those_of_the_bench_in_the_order_of_submission"),
        (Unseeded, "test_outcomes_are_those_of_the_bench_in_the_order_of_submission"),
        (Rounding, "test_outcomes_are_those_of_the_bench_in_the_order_of_submission"),
        (Raising, "test_an_exception_in_a_trial_is_a_failed_outcome_and_the_next_one_runs"),
        (Silencing, "test_an_exception_in_a_trial_is_a_failed_outcome_and_the_next_one_runs"),
        (Leaving, "test_closing_leaves_no_process_in_the_middle_of_a_trial_too"),
    ],
)
def test_a_broken_engine_fails(ended, kind, broken):
    given = {"make_engine": lambda: lambda bench, make_bench: kind(bench)}
    check(failures(EngineConformance(), given), broken)


def sound(runs, asked):
    if asked.metric not in (None, "loss"):
        raise BadInput("no such metric", found=asked.metric)
    losses = [trial.metrics["loss"] for trial in runs.study if "loss" in trial.metrics]
    if not losses:
        raise BadInput("no trial was measured")
    return Picture(f"{len(losses)} trials.", lambda figure: figure.subplots().plot(losses), (3, 2))


def crashing(runs, asked):
    """Where a trial was not measured."""
    [trial.metrics["loss"] for trial in runs.study]
    return sound(runs, asked)


def restyling(runs, asked):
    import matplotlib as mpl

    mpl.rcParams["lines.linewidth"] += 1
    return sound(runs, asked)


def drawing_chance(runs, asked):
    return replace(sound(runs, asked), paint=lambda figure: figure.subplots().plot([random.random(), 0]))


def deaf(runs, asked):
    """Whatever metric is asked for."""
    return sound(runs, Asked())


def empty(runs, asked):
    return replace(sound(runs, asked), paint=lambda figure: None)


def speechless(runs, asked):
    return replace(sound(runs, asked), reading=" ")


@pytest.mark.parametrize(
    ("make", "broken"),
    [
        (sound, None),
        (crashing, "test_few_or_broken_trials_are_drawn_or_refused_with_the_reason"),
        (restyling, "test_nothing_outside_the_picture_changes"),
        (drawing_chance, "test_the_same_runs_give_the_same_bytes"),
        (deaf, "test_what_is_not_there_is_refused_by_name"),
        (empty, "test_it_is_a_figure_of_matplotlib_and_says_what_it_shows"),
        (speechless, "test_it_is_a_figure_of_matplotlib_and_says_what_it_shows"),
    ],
)
def test_a_broken_figure_fails(tmp_path, make, broken):
    import matplotlib as mpl

    kind = replace(FIGURES["knob"], make=make, takes=frozenset({"metric"}))
    runs = Runs([Run("many", small_study())])
    with mpl.rc_context():
        check(
            failures(FigureConformance(), {"kind": lambda: kind, "runs": lambda: runs, "tmp_path": lambda: tmp_path}),
            broken,
        )
