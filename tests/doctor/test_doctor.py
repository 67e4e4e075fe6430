"""Every check of the doctor passes on what is sound and fails on what was broken for it."""

from __future__ import annotations

import contextlib
import os
import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.doctor import CHECKS, Patient
from paretobit.doctor import trials as doctor_trials
from paretobit.doctor.examine import examined
from paretobit.doctor.ladder import Ladder, full_precision, is_width
from paretobit.errors import BadInput
from paretobit.graph import trace
from paretobit.registry import Entry
from paretobit.runtime import one_thread, seeded
from paretobit.session.session import Session
from paretobit.spaces.knobs import Knob, Tree
from paretobit.strategies import STRATEGIES, StrategySettings
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import RUNNERS, FunctionRunner, Runner, RunnerSettings
from paretobit.wanted.metric import Metric
from paretobit.wanted.wanted import Wanted

WEIGHTS = [*(f"integer(width={width}, frac_width=2)" for width in (3, 4, 6, 8)), "NA"]
DATA = ["integer(width=4, frac_width=2)", "NA"]
KNOWN = ("basic_evaluation", "basic_computation", "average_bitwidth", "model_size")


def nothing_rejected(metrics):
    return 0.0


@pytest.fixture
def sound():
    """A model, data whose labels the model can tell, and a space with full precision in it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))
    with torch.no_grad():
        net(torch.randn(64, 6))
    generator = torch.Generator().manual_seed(1)
    net.eval()
    splits = {}
    for name, rows in (("train", 200), ("val", 150), ("test", 80)):
        x = torch.randn(rows, 6, generator=generator)
        with torch.no_grad():
            splits[name] = (x, net(x).argmax(1))
    return net.train(), splits


@pytest.fixture
def patient_of(sound):
    """Makes a patient of the sound search, with whatever is to be broken."""
    net, splits = sound

    def make(
        *broken,
        known=KNOWN,
        space=None,
        bind=lambda bound: bound,
        data=None,
        maximize="accuracy",
        minimize="total_bitops",
        subject_to=(),
        strategy="optuna",
        model=net,
        **more,
    ):
        given = {**splits, **(data or {})}
        evidence = Evidence(trace(model, splits["train"][0][:2]), given)
        runners = tuple(RUNNERS[name](evidence, RUNNERS[name].Settings()) for name in known)
        runners += tuple(make_runner(evidence) for make_runner in broken)
        described = space or pb.Quantize(seed={"linear": {"weight": WEIGHTS, "data_in": DATA}})
        bound = bind(described.bind(evidence.graph))
        settings = STRATEGIES[strategy].Settings() if strategy in STRATEGIES else StrategySettings()
        session = Session(
            model=model,
            evidence=evidence,
            space=bound,
            runners=runners,
            wanted=Wanted.of(maximize, minimize, subject_to),
            strategy=strategy,
            strategy_settings=more.pop("settings", settings),
            n_trials=1,
            seed=3,
            best=more.pop("question", None),
        )
        return Patient(session, **more)

    with one_thread(), seeded(3):
        yield make


def extra(value, *, cheap=False, direction="minimize"):
    """A runner of one metric, `extra`, that a function of the runner and the candidate gives."""

    class Extra(Runner):
        metrics = (Metric("extra", direction, "of something", cheap=cheap),)

        def measure(self, candidate):
            return {"extra": value(self, candidate)}

    return lambda evidence: Extra(evidence, RunnerSettings())


@pytest.fixture
def without_worker(monkeypatch):
    """Starting a process takes seconds."""
    monkeypatch.delitem(CHECKS._entries, "a worker process agrees")


def found(check, patient):
    return CHECKS[check](patient)


def test_a_sound_search_passes_every_check_within_the_evaluations_it_was_given(patient_of):
    patient = patient_of()
    checks = examined(patient)
    assert [check.name for check in checks] == CHECKS.names()
    assert {check.name: check.said for check in checks if check.state != "ok"} == {}
    assert sum(check.evaluations for check in checks) == patient.counted <= 20


@pytest.mark.usefixtures("without_worker")
def test_more_evaluations_look_at_more_configurations(patient_of):
    few, many = patient_of(evaluations=12), patient_of(evaluations=60)
    assert (len(few.samples), len(many.samples)) == (2, 8)
    assert len(set(many.samples)) == 8
    examined(few)
    assert few.counted <= 14
    with pytest.raises(BadInput, match="too few"):
        patient_of(evaluations=11)


def test_a_configuration_that_cannot_be_measured_is_named(patient_of):
    def value(runner, candidate):
        if candidate.formats:
            raise ValueError("no such kernel")
        return 1.0

    finding = found("configurations run", patient_of(extra(value)))
    assert finding.state == "failed"
    assert finding.said == "3 of 3 configurations fail: ValueError: no such kernel"


def test_a_runner_that_remembers_leaks(patient_of):
    class Count:
        calls = 0

        def __call__(self, runner, candidate):
            self.calls += 1
            return float(self.calls)

    finding = found("trials do not leak", patient_of(extra(Count())))
    assert finding.state == "failed"
    assert finding.evidence["different"] == finding.evidence["compared"] == 4
    assert "extra is" in finding.said


def test_a_space_that_leaves_a_trace_in_the_float_model_leaks(patient_of):
    def bind(bound):
        apply = bound.apply
        bound.apply = lambda model, config: model if config is None else apply(model, config)
        return bound

    finding = found("trials do not leak", patient_of(bind=bind))
    assert finding.state == "failed"
    assert finding.evidence["different"] == 1
    assert "the baseline" in finding.said


def test_a_copy_that_is_never_the_same_twice_is_told_from_the_used_one(patient_of):
    def bind(bound):
        prepare, made = bound.prepare, []

        def another():
            model = prepare()
            made.append(model)
            next(model.parameters()).data.add_(0.1 * (len(made) - 1))
            return model

        bound.prepare = another
        return bound

    patient = patient_of(bind=bind)
    assert found("trials do not leak", patient).state == "ok"
    assert found("a fresh copy agrees", patient).state == "failed"


def test_a_metric_of_the_process_is_told_in_a_worker(patient_of):
    patient = patient_of(extra(lambda runner, candidate: float(os.getpid())))
    finding = found("a worker process agrees", patient)
    assert finding.state == "failed"
    assert str(os.getpid()) in finding.said


def test_what_cannot_travel_to_a_worker_is_not_a_failure(patient_of):
    lock = threading.Lock()
    finding = found("a worker process agrees", patient_of(extra(lambda runner, candidate: float(lock.locked()))))
    assert finding.state == "not applicable"
    assert "cannot be sent to worker processes" in finding.said


def strategy_of(draw):
    """A strategy that asks for the configuration of a number."""

    class Odd(STRATEGIES["brute_force"]):
        def __init__(self, problem, seed, settings):
            self.problem = problem

        def ask(self, n):
            return [self.problem.tree.at(int(draw.random() * self.problem.tree.size)) for _ in range(n)]

    return Entry("odd", Odd, "for tests")


def test_a_strategy_that_draws_without_its_seed_does_not_reproduce(patient_of, monkeypatch):
    monkeypatch.setitem(STRATEGIES._entries, "odd", strategy_of(random.Random(0)))
    finding = found("seeds reproduce", patient_of(strategy="odd"))
    assert finding.state == "failed"
    assert "something else from trial 0 on" in finding.said


class Ignoring(StrategySettings):
    order: str = "shuffled"


def test_a_strategy_that_ignores_its_seed_is_told(patient_of):
    class Constant:
        def random(self):
            return 0.5

    patient = patient_of(settings=Ignoring())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STRATEGIES._entries, "optuna", strategy_of(Constant()))
        finding = found("seeds reproduce", patient)
    assert finding.state == "failed"
    assert "although it draws" in finding.said


def test_brute_force_draws_nothing_and_is_said_to(patient_of):
    finding = found("seeds reproduce", patient_of(strategy="brute_force"))
    assert (finding.state, finding.evidence["other_seed_differs"]) == ("ok", False)
    assert "draws nothing" in finding.said


def test_full_precision_that_rounds_is_told(patient_of):
    def bind(bound):
        apply = bound.apply
        rounded = bound.tree.at(0)
        bound.apply = lambda model, config: apply(
            model, config if config is None or any(bound.formats(config).values()) else rounded
        )
        return bound

    patient = patient_of()
    config = full_precision(patient.space, patient.evidence.graph)
    assert set(config.values()) == {"float"}
    assert found("the unmodified model is the baseline", patient).state == "ok"
    finding = found("the unmodified model is the baseline", patient_of(bind=bind))
    assert finding.state == "failed"
    assert "full precision is not the baseline" in finding.said


def test_a_prepared_copy_that_computes_something_else_is_told(patient_of):
    def bind(bound):
        instrument = bound.instrument

        def wrongly(model):
            instrument(model)
            model[-1].bias.data[0] += 1e-3

        bound.instrument = wrongly
        return bound

    finding = found("the unmodified model is the baseline", patient_of(bind=bind))
    assert finding.state == "failed"
    assert finding.evidence["different_outputs"] == 64


def test_a_space_without_full_precision_says_so(patient_of):
    space = pb.Quantize(seed={"linear": {"weight_width": [3, 8], "weight_frac_width": 2}})
    finding = found("the unmodified model is the baseline", patient_of(space=space))
    assert finding.state == "ok"
    assert "leaves the model as it is" in finding.said


def test_widths_and_sparsities_that_leave_the_model_as_it_is_are_found(patient_of):
    widths = pb.ChannelMultiplier(by="group", seed={"default": [2, 1]})
    for space in (widths, pb.Prune(seed={"linear": {"sparsity": [0.5, 0.0]}})):
        patient = patient_of(space=space)
        assert found("the unmodified model is the baseline", patient).evidence["config"] is not None
        assert found("the unmodified model is the baseline", patient).state == "ok"


def test_a_cost_that_rises_where_a_width_falls_is_named(patient_of):
    def value(runner, candidate):
        return float(sum(32 - f.element_bits for slots in candidate.formats.values() for f in slots.values()))

    finding = found("costs fall with the widths", patient_of(extra(value, cheap=True)))
    assert finding.state == "failed"
    assert "extra from" in finding.said
    assert found("costs fall with the widths", patient_of()).evidence["steps"] == 2 * (4 + 1) + 1
    spared = extra(value, cheap=True, direction="maximize")  # the same, read the other way, is a saving
    assert found("costs fall with the widths", patient_of(spared)).state == "ok"


def test_a_knob_that_does_nothing_is_named(patient_of):
    def bind(bound):
        bound.tree = Tree((*bound.tree.knobs, Knob.of("idle", [1, 2, 3])))
        return bound

    finding = found("every knob has an effect", patient_of(bind=bind))
    assert finding.state == "failed"
    assert finding.evidence["without_effect"] == ["idle"]


def test_a_knob_without_cost_is_measured_while_evaluations_are_left(patient_of):
    space = pb.Quantize(seed={"linear": {"weight_width": 6, "weight_frac_width": [2, 4]}})
    assert found("every knob has an effect", patient_of(space=space)).evidence["knobs_that_change_results"] == 2
    patient = patient_of(space=space)
    patient.counted = patient.evaluations
    finding = found("every knob has an effect", patient)
    assert len(finding.evidence["untested"]) == 2
    assert "were not measured" in finding.said


def test_an_objective_that_never_moves_fails_and_another_metric_is_a_note(patient_of):
    finding = found("every metric moves", patient_of())
    assert (finding.state, finding.evidence["still"]) == ("ok", ["total_flops"])
    assert "total_flops, which nothing asks for" in finding.said
    for broken in ({"minimize": "total_flops"}, {"subject_to": "total_flops <= 1e9"}):
        finding = found("every metric moves", patient_of(**broken))
        assert (finding.state, finding.said) == ("failed", "no knob moves total_flops")


def test_rows_in_two_splits_are_counted(patient_of, sound):
    x, y = sound[1]["train"]
    mixed = torch.cat([x[:100], torch.randn(50, 6)]), torch.cat([y[:100], y[:50]])
    finding = found("splits share no rows", patient_of(data={"val": mixed}))
    assert finding.state == "failed"
    assert finding.evidence["val in train"] == 100
    few = torch.cat([x[:2], torch.randn(148, 6)]), y[:150]
    finding = found("splits share no rows", patient_of(data={"val": few}))
    assert (finding.state, finding.evidence["val in train"]) == ("ok", 2)


def test_zeros_of_either_sign_are_one_row(patient_of):
    zeros = torch.zeros(40, 6), torch.zeros(40, dtype=torch.long)
    finding = found("splits share no rows", patient_of(data={"test": zeros, "train": (-zeros[0], zeros[1])}))
    assert (finding.state, finding.evidence["test in train"]) == ("failed", 40)


def test_a_class_that_a_split_lacks_is_named(patient_of, sound):
    x, y = sound[1]["test"]
    finding = found("every split has every class", patient_of(data={"test": (x[y != 1], y[y != 1])}))
    assert (finding.state, finding.said) == ("failed", "of 3 classes test lacks 1")
    assert finding.evidence["test"]["1"] == 0


def test_numbers_that_are_not_finite_are_counted(patient_of, sound):
    x, y = (part.clone() for part in sound[1]["test"])
    x[0, 0], x[3, 2] = float("nan"), float("inf")
    finding = found("every number is finite", patient_of(data={"test": (x, y)}))
    assert (finding.state, finding.said) == ("failed", "not finite: 2 in inputs of test")


def test_differences_within_the_noise_are_told(patient_of, sound):
    x, y = sound[1]["val"]
    finding = found("validation can tell", patient_of(data={"val": (x[:75], 1 - y[:75].clamp(max=1))}))
    p = finding.evidence["accuracy"]
    assert finding.evidence["noise"] == pytest.approx(2 * (p * (1 - p) / 75) ** 0.5)
    finding = found("validation can tell", patient_of(subject_to="accuracy >= baseline - 0.001"))
    assert finding.state == "failed"
    assert "less than one row of 150" in finding.said
    wide = pb.Quantize(seed={"linear": {"weight_width": [24, 26], "weight_frac_width": 18}})
    patient = patient_of(space=wide, data={"val": (x, (y + (x[:, 0] > 0.5)) % 3)})
    assert found("configurations run", patient).state == "ok"
    finding = found("validation can tell", patient)
    assert finding.state == "failed"
    assert "are noise" in finding.said
    assert found("validation can tell", patient_of(trained=False)).state == "not applicable"


@pytest.mark.usefixtures("without_worker")
def test_a_metric_that_does_not_survive_storing_is_told(patient_of):
    patient = patient_of(extra(lambda runner, candidate: np.float32(0.1)))
    assert found("configurations run", patient).state == "ok"
    check = next(check for check in examined(patient) if check.name.startswith("the study"))
    assert check.state == "failed"
    assert "float32" in check.said


def test_what_is_stored_in_fewer_bits_is_told(patient_of, monkeypatch):
    from paretobit.doctor import store

    class Coarse(store.Study):
        def add(self, trial):
            rounded = {name: float(np.float32(value)) for name, value in trial.metrics.items()}
            super().add(store.Trial(trial.number, trial.config, trial.state, rounded, seed=trial.seed))

    patient = patient_of()
    assert found("configurations run", patient).state == "ok"
    monkeypatch.setattr(store, "Study", Coarse)
    finding = found("the study gives back what it was given", patient)
    assert (finding.state, finding.evidence["different"]) == ("failed", 3)


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda runner: runner.evidence.splits["test"][0].add_(1.0), "data"),
        (lambda runner: runner.evidence.graph.model[0].weight.data.mul_(1.5), "model"),
        (lambda runner: runner.evidence.graph.model[1].eval(), "modes of the model"),
        (lambda runner: torch.set_default_dtype(torch.float64), "settings of the interpreter"),
        (lambda runner: torch.set_grad_enabled(False), "gradient recording"),
        (lambda runner: torch.set_num_threads(2), "threads"),
    ],
)
def test_what_a_trial_changes_of_the_callers_is_named(patient_of, harm, named):
    def value(runner, candidate):
        harm(runner)
        return 1.0

    try:
        patient = patient_of(extra(value))
        finding = found("nothing of the caller's changed", patient)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        torch.set_num_threads(1)
    assert finding.state == "failed"
    assert named in finding.evidence["changed"]


def test_random_states_that_are_not_put_back_are_named(patient_of, monkeypatch):
    monkeypatch.setattr(doctor_trials, "seeded", lambda seed: contextlib.nullcontext())
    finding = found("nothing of the caller's changed", patient_of())
    assert finding.evidence["changed"] == ["states of random generators"]


def test_times_are_left_out_of_what_must_be_the_same(patient_of):
    patient = patient_of(known=(*KNOWN, "latency"))
    assert patient.timed == {"latency"}
    finding = found("trials do not leak", patient)
    assert finding.state == "ok"
    assert "times aside: latency" in finding.said


@pytest.mark.usefixtures("without_worker")
def test_a_users_function_is_examined_as_well(patient_of, sound):
    x, y = sound[1]["val"]

    def evaluate(model):
        with torch.no_grad():
            return {"share": float((model(x).argmax(1) == y).double().mean())}

    patient = patient_of(
        lambda evidence: FunctionRunner(evidence, evaluate, {"share": "maximize"}), known=KNOWN[1:], maximize="share"
    )
    states = {check.name: check.state for check in examined(patient)}
    assert states.pop("validation can tell") == "not applicable"
    assert set(states.values()) == {"ok"}


@pytest.mark.usefixtures("without_worker")
def test_an_error_within_a_check_fails_that_check_alone(patient_of, monkeypatch):
    def broken(patient):
        raise RuntimeError("out of ideas")

    first = CHECKS.names()[0]
    monkeypatch.setitem(CHECKS._entries, first, Entry(first, broken, ""))
    checks = examined(patient_of())
    assert (checks[0].state, checks[0].said) == ("failed", "RuntimeError: out of ideas")
    assert checks[1].state == "ok"


def test_options_are_ranked_by_what_they_keep():
    ladder = Ladder(Tree(()))
    words = Knob.of("a.name", ["x", "y", "z"])
    formats = Knob.of("a.weight", ["NA", "integer(width=8, frac_width=4)", "integer(width=4, frac_width=4)"])
    assert ladder.ranked(Knob.of("a.weight_width", [8, 2, 4])) == [2, 4, 8]
    assert ladder.ranked(Knob.of("a.sparsity", [0.0, 0.9, 0.5])) == [0.9, 0.5, 0.0]
    assert ladder.ranked(formats) == [*formats.values[::-1]]
    assert ladder.ranked(words) == ["z", "y", "x"]
    assert is_width(formats)
    assert not is_width(words)
    assert not is_width(Knob.of("a.weight_frac_width", [1, 2]))


def test_what_no_format_reaches_and_nobody_counts_is_a_warning(patient_of):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.rates = nn.Linear(6, 3), nn.Parameter(torch.ones(3))

        def forward(self, x):
            y = self.linear(x) + self.rates[x.argmax(1) % 3].unsqueeze(1)
            return y + torch.cdist(y.unsqueeze(1), y.unsqueeze(1)).flatten(1)

    patient = patient_of(model=Odd().eval())
    reached, counted, rows = (
        found(check, patient)
        for check in ("formats reach the model", "costs hold all operations", "the number of rows changes nothing")
    )
    assert (reached.state, counted.state, rows.state) == ("warn", "warn", "ok")
    assert "getitem (the function getitem" in reached.said
    assert (counted.said, counted.evidence) == ("not counted in the costs: cdist (1)", {"uncounted": {"cdist": 1}})


def test_what_depends_on_the_number_of_rows_is_a_warning(patient_of):
    class Guard(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(6, 3), nn.BatchNorm1d(3)

        def forward(self, x):
            return self.norm(self.linear(x)) if len(x) > 1 else self.linear(x)

    finding = found("the number of rows changes nothing", patient_of(model=Guard().eval()))
    assert finding.state == "warn"
    assert finding.said.startswith("with one row this model does not call norm")
