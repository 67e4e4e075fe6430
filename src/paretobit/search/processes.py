"""The engine `processes`: one spawned process per worker, one torch thread each."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle

from paretobit.search.engine import Finished
from paretobit.search.knobs import Config
from paretobit.search.trial import Outcome, Workbench

_CODE = "import sys; from paretobit.search.worker import main; main(int(sys.argv[1]))"
_ATTEMPTS = 2


@dataclass
class _Task:
    config: Config
    attempts: int = 0
    began: float = 0.0
    finished: Finished | None = None


class _Worker:
    """A process and the socket to it."""

    def __init__(self, recipe: bytes) -> None:
        ours, theirs = multiprocessing.Pipe()
        self.connection: Connection[Any, Any] = ours
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CODE, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt at the terminal reaches the parent alone
        )
        theirs.close()
        self.connection.send_bytes(recipe)
        self.ready = False
        self.task: _Task | None = None

    def give(self, task: _Task) -> None:
        self.task = task
        task.attempts += 1
        task.began = time.monotonic()
        self.connection.send(task.config)

    def stop(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()


class ProcessEngine:
    """Evaluates in worker processes; results come back in the order of submission.

    A worker that dies costs its trial one retry in a fresh worker; a second death is a failure.

    Args:
        make_workbench: Makes a worker's workbench; travels by value.
        workers: How many processes.
        trial_timeout: Seconds a trial may take; its worker is killed and the trial fails.
    """

    def __init__(
        self, make_workbench: Callable[[], Workbench], workers: int, trial_timeout: float | None = None
    ) -> None:
        self.workers = workers
        self._recipe: bytes = cloudpickle.dumps(make_workbench)
        self._timeout = trial_timeout
        self._pool: list[_Worker] = []
        self._order: deque[_Task] = deque()
        self._waiting: deque[_Task] = deque()

    def submit(self, config: Config) -> None:
        """Queue a configuration; it starts as soon as a worker is free."""
        task = _Task(config)
        self._order.append(task)
        self._waiting.append(task)
        self._hand_out()

    def next(self) -> Finished:
        """The oldest configuration that was not returned, once it is finished."""
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
            free = next((w for w in self._pool if w.ready and w.task is None), None)
            if free is None:
                starting = sum(not w.ready for w in self._pool)
                if len(self._pool) < self.workers and starting < len(self._waiting):
                    self._pool.append(_Worker(self._recipe))
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
                message = worker.connection.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            if not worker.ready:
                worker.ready = True
            elif worker.task is not None:
                outcome, seconds = message
                worker.task.finished = Finished(worker.task.config, outcome, seconds)
                worker.task = None
        self._stop_late_ones()
        self._hand_out()

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
        """Replace a worker that died; its trial gets one more try."""
        self._pool.remove(worker)
        worker.stop()
        task = worker.task
        if task is None:
            if not worker.ready:
                self._refuse(worker)
            return
        if task.attempts < _ATTEMPTS:
            self._waiting.appendleft(task)
            return
        code = worker.process.returncode
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        message = (
            f"the worker process died in {task.attempts} attempts at this trial ({reason}): out of memory?"
        )
        task.finished = Finished(task.config, Outcome("failed", {}, message), time.monotonic() - task.began)

    def _refuse(self, worker: _Worker) -> None:
        """A worker that never became ready would never: its stderr says why."""
        from paretobit.errors import ParetoBitError

        raise ParetoBitError(f"a worker process could not start (exit code {worker.process.returncode})")
