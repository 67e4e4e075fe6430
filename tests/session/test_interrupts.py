"""One interrupt finishes what runs, a second one stops at once, and afterwards signals are as they were."""

import os
import signal
import threading

import pytest

from paretobit.session.engines.base import SerialEngine
from paretobit.session.interrupts import Interrupts
from paretobit.session.loop import SearchLoop
from paretobit.spaces.knobs import Config
from paretobit.strategies.brute_force import BruteForce, BruteForceSettings
from paretobit.studies.study import Study


def send(number):
    os.kill(os.getpid(), number)


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.fixture(autouse=True)
def unchanged():
    before = handlers()
    yield
    assert handlers() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_interrupt_is_only_noted_until_the_block_ends(number):
    steps = []

    def work():
        with Interrupts() as interrupts:
            steps.append(interrupts.wanted())
            send(number)
            steps.append(interrupts.wanted())

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == [False, True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_interrupt_stops_where_it_happens(number):
    steps = []

    def work():
        with Interrupts():
            send(signal.SIGINT)
            steps.append("first")
            send(number)
            steps.append("second")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["first"]


def test_a_block_without_interrupts_ends_as_if_there_were_no_block():
    with Interrupts() as interrupts:
        pass
    assert not interrupts.wanted()


def test_another_error_of_the_block_comes_before_the_interrupt():
    def work():
        with Interrupts():
            send(signal.SIGINT)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        work()


def test_a_handler_that_python_did_not_set_does_not_break_the_end_of_the_block(monkeypatch):
    set_to = []
    monkeypatch.setattr(signal, "signal", lambda number, handler: set_to.append(handler))
    with Interrupts():
        pass
    assert set_to[2:] == [signal.SIG_DFL, signal.SIG_DFL]


class Interrupting:
    """A bench in whose trials the user presses Ctrl-C."""

    def __init__(self, inner, presses):
        self.inner, self.presses = inner, presses

    def evaluate(self, config, judge=None, bar=None):
        for _ in range(self.presses.pop(0) if self.presses else 0):
            send(signal.SIGINT)
        return self.inner.evaluate(config)


def search(problem, bench, study):
    strategy = BruteForce(problem, 0, BruteForceSettings())
    loop = SearchLoop(problem, strategy, study, SerialEngine(bench), lambda config: 0)
    with Interrupts() as interrupts:
        loop.run(10, stopping=interrupts.wanted)


@pytest.mark.parametrize(("presses", "finished"), [([0, 0, 1], 3), ([0, 0, 2], 2), ([0, 1, 1], 2)])
def test_an_interrupted_search_keeps_its_running_trial_unless_interrupted_twice(
    problem_of, mixed_tree, fake_bench, presses, finished
):
    problem, study = problem_of(mixed_tree), Study()
    with pytest.raises(KeyboardInterrupt):
        search(problem, Interrupting(fake_bench(), presses), study)
    assert len(study) == finished
    search(problem, fake_bench(), study)
    assert [t.config for t in study] == [mixed_tree.at(i) for i in range(10)]


def test_outside_the_main_thread_nothing_is_caught_and_the_search_works(problem_of, mixed_tree, fake_bench):
    found = []

    def work():
        before = handlers()
        study = Study()
        with Interrupts():
            found.append(handlers() == before)
        search(problem_of(mixed_tree), fake_bench(), study)
        found.append([t.config for t in study])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True, [Config(mixed_tree.at(i)) for i in range(10)]]
