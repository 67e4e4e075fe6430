"""A worker process: makes its own bench and evaluates what it is sent.

Its parent starts it as a plain Python process, so that a user's script needs no main guard, and speaks
pickles with it over one socket. What a trial prints goes to standard error. A worker never outlives its
parent.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import torch

from paretobit import plugins
from paretobit.runtime import use_one_thread
from paretobit.trials.outcome import Outcome


@dataclass(frozen=True)
class Surroundings:
    """What of an interpreter decides whether a trial runs, and what it gives."""

    path: tuple[str, ...]
    arguments: tuple[str, ...]
    dtype: torch.dtype
    precision: str
    deterministic: bool
    only_warns: bool
    plugins: tuple[Mapping[str, str], ...]

    @classmethod
    def here(cls) -> Surroundings:
        """Those of this process."""
        return cls(
            tuple(sys.path),
            tuple(sys.argv),
            torch.get_default_dtype(),
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            tuple(plugins.loaded()),
        )

    def take_on(self) -> None:
        """Make this process alike."""
        sys.path[:] = self.path
        sys.argv[:] = self.arguments
        torch.set_default_dtype(self.dtype)
        torch.set_float32_matmul_precision(self.precision)
        if self.deterministic or self.only_warns:  # the call imports torch's compiler, which takes a second
            torch.use_deterministic_algorithms(self.deterministic, warn_only=self.only_warns)
        plugins.adopt(self.plugins)


def main(descriptor: int) -> None:
    """Serve until the parent hangs up: greet, take the recipe, say whether it worked, then evaluate."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    os.dup2(2, 1)
    sys.stdout = sys.stderr  # unbuffered enough to survive a kill
    connection: Connection[Any, Any] = Connection(descriptor)
    threading.Thread(target=_die_with_the_other_end_of, args=[descriptor], daemon=True).start()
    use_one_thread()
    try:
        _serve(connection)
    except (EOFError, OSError):  # the parent hung up
        raise SystemExit(0) from None


def _serve(connection: Connection[Any, Any]) -> None:
    connection.send("hello")
    surroundings, recipe = connection.recv()
    try:
        surroundings.take_on()
        make_bench, judge = cloudpickle.loads(recipe)
        bench = make_bench()
    except Exception as error:
        traceback.print_exc()
        connection.send(f"{type(error).__name__}: {error}")
        raise SystemExit(1) from None
    del recipe, make_bench
    connection.send(None)
    while True:
        config, bar = connection.recv()
        start = time.perf_counter()
        outcome: Outcome = bench.evaluate(config, judge, bar)
        connection.send((outcome, time.perf_counter() - start))


def _die_with_the_other_end_of(descriptor: int) -> None:
    """End this process and those it started, in the middle of a trial too, once the parent is gone."""
    hung_up = select.poll()
    hung_up.register(descriptor, 0)  # a hang-up is reported unasked
    hung_up.poll()
    os.killpg(0, signal.SIGKILL)
