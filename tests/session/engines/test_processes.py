"""Worker processes: results in order, one retry for a death, and no process that outlives its search."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from paretobit.errors import BadInput, ParetoBitError
from paretobit.session.engines.processes import ProcessEngine
from paretobit.spaces.knobs import Config
from paretobit.trials.outcome import Outcome


class Deeds:
    """A bench that does what a configuration says; it stands in for a model."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def evaluate(self, config, judge=None, bar=None):
        metrics = getattr(self, config["do"])(config) or {}
        return Outcome("complete", {"n": config["n"], **metrics})

    def answer(self, config):
        pass

    def say_where(self, config):
        return {"pid": os.getpid(), "threads": torch.get_num_threads(), "compiler": "torch._dynamo" in sys.modules}

    def say_type(self, config):
        return {"bytes": torch.ones(1).element_size()}

    def wait_for_another(self, config):
        while not (self.folder / "another").exists():
            time.sleep(0.001)

    def release(self, config):
        (self.folder / "another").touch()

    def die_once(self, config):
        if not (self.folder / "died").exists():
            (self.folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def die(self, config):
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(self, config):
        os._exit(7)

    def hang_with_a_child(self, config):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (self.folder / "pids").write_text(f"{os.getpid()} {child.pid}")
        time.sleep(600)

    def print(self, config):
        print("said by a trial", flush=False)
        os.write(1, b"written by a trial\n")


def do(*deeds):
    return [Config({"n": float(n), "do": deed}) for n, deed in enumerate(deeds)]


def results(engine, configs):
    """Outcomes in order, with no more configurations in flight than there are workers."""
    waiting, done = list(configs), []
    for config in waiting[: engine.workers]:
        engine.submit(config)
    for i in range(len(waiting)):
        finished = engine.next()
        assert finished.config == waiting[i]
        done.append(finished)
        if i + engine.workers < len(waiting):
            engine.submit(waiting[i + engine.workers])
    return done


@pytest.fixture
def engine_of(tmp_path):
    engines = []

    def make(workers, timeout=None):
        engines.append(ProcessEngine(lambda: Deeds(tmp_path), workers, timeout))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def gone(pids, seconds=30.0):
    late = time.monotonic() + seconds
    while time.monotonic() < late:
        states = [
            subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout for pid in pids
        ]
        if all(not state or state.startswith("Z") for state in states):
            return True
        time.sleep(0.01)
    return False


def awaited(path, seconds=60.0):
    late = time.monotonic() + seconds
    while time.monotonic() < late and not (path.exists() and path.read_text()):
        time.sleep(0.005)
    return path.read_text()


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_results_come_in_the_order_of_submission_from_processes_where_torch_computes_as_here(
    engine_of, double_precision
):
    found = results(engine_of(2), do("wait_for_another", "release", "say_where", "say_type"))
    assert [f.outcome.state for f in found] == ["complete"] * 4
    assert found[2].outcome.metrics["pid"] != os.getpid()
    assert found[2].outcome.metrics["threads"] == 1
    assert not found[2].outcome.metrics["compiler"], "it takes a second to import"
    assert found[3].outcome.metrics["bytes"] == 8
    assert all(f.seconds > 0 for f in found)


def test_a_worker_that_dies_costs_one_retry_and_a_second_death_is_a_failure_with_its_reason(engine_of):
    found = results(engine_of(1), do("answer", "die_once", "leave", "answer"))
    assert [f.outcome.state for f in found] == ["complete", "complete", "failed", "complete"]
    assert found[2].outcome.error == (
        "the worker process died in 2 attempts at this trial (exit code 7): out of memory?"
    )
    assert [dict(f.outcome.metrics) for f in found] == [{"n": 0}, {"n": 1}, {}, {"n": 3}]


def test_a_trial_out_of_time_ends_with_the_processes_it_started_and_the_next_runs(engine_of, tmp_path):
    found = results(engine_of(1, timeout=2.0), do("hang_with_a_child", "answer"))
    assert found[0].outcome.state == "failed"
    assert found[0].outcome.error == "the trial took longer than trial_timeout = 2 s"
    assert 2.0 <= found[0].seconds < 30.0
    assert found[1].outcome.state == "complete"
    assert gone(map(int, (tmp_path / "pids").read_text().split()))


def test_closing_ends_the_workers_in_the_middle_of_a_trial(engine_of, tmp_path):
    engine = engine_of(1)
    engine.submit(do("hang_with_a_child")[0])
    engine._collect()  # it greets
    engine._collect()  # it is ready, and gets the trial
    pids = [int(pid) for pid in awaited(tmp_path / "pids").split()]
    engine.close()
    assert gone(pids)
    engine.close()


def test_what_cannot_travel_is_bad_input_before_a_process_starts(tmp_path):
    with open(tmp_path / "open", "w") as file, pytest.raises(BadInput, match=r"cannot be sent to worker.*workers"):
        ProcessEngine(lambda: file, 2)


def test_a_worker_whose_bench_cannot_be_made_says_why(capfd):
    def broken():
        raise KeyError("the scales are lost")

    engine = ProcessEngine(broken, 1)
    engine.submit(do("answer")[0])
    with pytest.raises(ParetoBitError, match="could not start: KeyError: 'the scales are lost'"):
        engine.next()
    engine.close()
    assert "Traceback" in capfd.readouterr().err


def test_workers_that_are_killed_while_they_start_end_the_search_at_the_second_time():
    engine = ProcessEngine(lambda: os.kill(os.getpid(), signal.SIGKILL), 1)
    engine.submit(do("answer")[0])
    with pytest.raises(ParetoBitError, match=r"cannot start \(signal 9\)"):
        engine.next()
    engine.close()


PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_processes import Deeds, do, results
from paretobit.session.engines.processes import ProcessEngine
engine = ProcessEngine(lambda: Deeds(sys.argv[2]), 1)
results(engine, do(*sys.argv[3:]))
engine.close()
print("the parent's last word")
"""


def parent(folder, *deeds):
    command = [sys.executable, "-c", PARENT, str(Path(__file__).parent), str(folder), *deeds]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_worker_and_its_children_go_with_a_killed_parent_in_the_middle_of_a_trial(tmp_path):
    process = parent(tmp_path, "hang_with_a_child")
    pids = [int(pid) for pid in awaited(tmp_path / "pids").split()]
    process.kill()
    process.communicate()
    assert gone(pids)


def test_what_a_trial_prints_goes_to_standard_error_and_survives_the_end_of_its_worker(tmp_path):
    said, errors = parent(tmp_path, "print", "answer").communicate(timeout=60)
    assert said == "the parent's last word\n"
    assert "said by a trial" in errors
    assert "written by a trial" in errors
    assert "Traceback" not in errors
