"""A worker process: makes its own workbench and evaluates what it is sent.

Its parent starts it as a plain Python process, so that a user's script needs no main guard, and speaks
pickles with it over one socket. What a trial prints goes to standard error.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle

from paretobit.runtime import use_one_thread
from paretobit.search.trial import Outcome


def main(descriptor: int) -> None:
    """Serve until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    os.dup2(2, 1)
    use_one_thread()
    connection: Connection[Any, Any] = Connection(descriptor)
    workbench = cloudpickle.loads(connection.recv_bytes())()
    connection.send("ready")
    while True:
        try:
            config = connection.recv()
        except (EOFError, OSError):
            sys.exit(0)
        start = time.perf_counter()
        outcome: Outcome = workbench.evaluate(config)
        connection.send((outcome, time.perf_counter() - start))
