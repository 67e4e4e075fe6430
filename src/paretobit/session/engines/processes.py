"""The engine `processes`: one spawned process per worker, one torch thread each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any, Literal

import cloudpickle

from paretobit.errors import BadInput, ParetoBitError
from paretobit.plugins import is_of_a_plugin
from paretobit.session.engines.base import ENGINES, Engine, Execution, Finished
from paretobit.session.engines.worker import Surroundings
from paretobit.spaces.knobs import Config
from paretobit.trials.bench import Bench
from paretobit.trials.halving import Bar
from paretobit.trials.outcome import Outcome
from paretobit.wanted.wanted import Judge, nothing_wanted

_CODE = "import sys; from paretobit.session.engines.worker import main; main(int(sys.argv[1]))"
_ATTEMPTS = 2


@dataclass
class _Task:
    config: Config
    bar: Bar | None = None
    attempts: int = 0
    began: float = 0.0
    finished: Finished | None = None


class _Worker:
    """A process and the socket to it.

    It greets, so that several may start side by side before one is sent its (large) recipe.
    """

    def __init__(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        self.connection: Connection[Any, Any] = ours
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CODE, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt at the terminal reaches the parent alone
        )
        theirs.close()
        self.stage: Literal["starting", "loading", "ready"] = "starting"
        self.task: _Task | None = None

    def give(self, task: _Task) -> None:
        self.task = task
        task.attempts += 1
        task.began = time.monotonic()
        self.connection.send((task.config, task.bar))

    def stop(self) -> None:
        """End it and the processes it started."""
        self.connection.close()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # it is gone, or has not made its session yet
            self.process.kill()
        self.process.wait()

    @property
    def end(self) -> str:
        """How it ended."""
        code = self.process.returncode
        return f"signal {-code}" if code < 0 else f"exit code {code}"


@ENGINES.register("processes")
class ProcessEngine(Engine):
    """Evaluates in worker processes; results come back in the order of submission.

    A worker that dies costs its trial one retry in a fresh worker; a second death is a failure.

    Args:
        make_bench: Makes a worker's bench; travels by value.
        workers: How many processes.
        trial_timeout: Seconds a trial may take; its worker is killed and the trial fails.
        judge: What metrics mean; travels by value.

    Raises:
        BadInput: Something that a trial needs cannot travel to another process.
    """

    parallel = True
    stops_late_trials = True

    @classmethod
    def of(cls, bench: Bench, make_bench: Callable[[], Bench], judge: Judge, execution: Execution) -> ProcessEngine:
        return cls(make_bench, execution.workers, execution.trial_timeout, judge)

    def __init__(
        self,
        make_bench: Callable[[], Bench],
        workers: int = 1,
        trial_timeout: float | None = None,
        judge: Judge = nothing_wanted,
    ) -> None:
        self.workers = workers
        self._recipe = _packed((make_bench, judge))
        self._timeout = trial_timeout
        self._pool: list[_Worker] = []
        self._order: deque[_Task] = deque()
        self._waiting: deque[_Task] = deque()
        self._stillborn = 0

    def submit(self, config: Config, bar: Bar | None = None) -> None:
        """Queue a configuration; it starts as soon as a worker is free."""
        task = _Task(config, bar)
        self._order.append(task)
        self._waiting.append(task)
        self._hand_out()

    def next(self) -> Finished:
        while self._order[0].finished is None:
            self._collect()
        finished = self._order.popleft().finished
        assert finished is not None
        return finished

    def close(self) -> None:
        """End the workers at once."""
        for worker in self._pool:
            worker.stop()
        self._pool.clear()

    def _hand_out(self) -> None:
        """Give waiting tasks to free workers; start workers only when there is work for them."""
        while self._waiting:
            free = next((w for w in self._pool if w.stage == "ready" and w.task is None), None)
            if free is None:
                starting = sum(w.stage != "ready" for w in self._pool)
                if len(self._pool) < self.workers and starting < len(self._waiting):
                    self._pool.append(_Worker())
                    continue
                return
            try:
                free.give(self._waiting.popleft())
            except OSError:  # it died between two trials
                self._bury(free)

    def _collect(self) -> None:
        """Wait for one event: a result, a worker that is ready, a death, or a trial out of time."""
        by_connection = {worker.connection: worker for worker in self._pool}
        for connection in wait(list(by_connection), timeout=self._patience()):
            worker = by_connection[connection]  # type: ignore[index]
            try:
                self._hear(worker, worker.connection.recv())
            except (EOFError, OSError):
                self._bury(worker)
        self._stop_late_ones()
        self._hand_out()

    def _hear(self, worker: _Worker, message: Any) -> None:
        """A greeting, whether the recipe worked, or a result."""
        if worker.stage == "starting":
            worker.stage = "loading"
            worker.connection.send((Surroundings.here(), self._recipe))
        elif worker.stage == "loading":
            if message is not None:
                raise ParetoBitError(f"a worker process could not start: {message}")
            worker.stage = "ready"
        elif worker.task is not None:
            outcome, seconds = message
            worker.task.finished = Finished(worker.task.config, outcome, seconds)
            worker.task = None

    def _patience(self) -> float | None:
        """Seconds until the first running trial is out of time."""
        running = [worker.task.began for worker in self._pool if worker.task is not None]
        if self._timeout is None or not running:
            return None
        return max(0.0, min(running) + self._timeout - time.monotonic())

    def _stop_late_ones(self) -> None:
        for worker in list(self._pool):
            task = worker.task
            if task is None or self._timeout is None:
                continue
            seconds = time.monotonic() - task.began
            if seconds >= self._timeout:
                message = f"the trial took longer than trial_timeout = {self._timeout:g} s"
                task.finished = Finished(task.config, Outcome("failed", {}, message), seconds)
                self._pool.remove(worker)
                worker.stop()

    def _bury(self, worker: _Worker) -> None:
        """Replace a worker that died; its trial gets one more try, and so does its start."""
        self._pool.remove(worker)
        worker.stop()
        task = worker.task
        if worker.stage != "ready":
            self._stillborn += 1
            if self._stillborn >= _ATTEMPTS:
                raise ParetoBitError(f"worker processes cannot start ({worker.end})")
        elif task is not None and task.attempts < _ATTEMPTS:
            self._waiting.appendleft(task)
        elif task is not None:
            message = (
                f"the worker process died in {task.attempts} attempts at this trial ({worker.end}): out of memory?"
            )
            seconds = time.monotonic() - task.began
            task.finished = Finished(task.config, Outcome("failed", {}, message), seconds)


def _packed(recipe: tuple[Callable[[], Bench], Judge]) -> bytes:
    """A recipe that another process can follow: what it could not import travels by value."""
    modules = list(_unimportable())
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        packed: bytes = cloudpickle.dumps(recipe)
    except Exception as error:  # whatever the user's own objects raise
        reason = f"{type(error).__name__}: {error}"
        raise BadInput(f"the search cannot be sent to worker processes: {reason}", key="workers") from error
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
    return packed


def _unimportable() -> Iterator[ModuleType]:
    """Modules that were loaded from a file and not by their name, as `path/to/file.py:function` is."""
    for name, module in list(sys.modules.items()):
        if is_of_a_plugin(name) or "." in name or name == "__main__" or getattr(module, "__file__", None) is None:
            continue
        finders = [finder.find_spec for finder in sys.meta_path if hasattr(finder, "find_spec")]
        if name == module.__name__ and not any(find(name, None) for find in finders):
            yield module
