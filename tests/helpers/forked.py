"""Commands in processes of their own that begin where the imports end: those take seconds of each start."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")  # a fresh Python that imports these and does nothing else
_SERVER.set_forkserver_preload(["matplotlib.figure", "scipy.optimize", "torch._dynamo", "paretobit.workflow.run"])


class Forked:
    """`paretobit` with these arguments in a folder, after some lines of Python; used as a `subprocess.Popen`."""

    def __init__(self, folder: Path, arguments: Sequence[str], setup: str = "") -> None:
        self._said = tempfile.TemporaryDirectory()
        whole = (str(folder), ["paretobit", *map(str, arguments)], setup, self._said.name)
        self._process = _SERVER.Process(target=_command, args=whole, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        """Its exit code, once it has ended.

        Raises:
            TimeoutExpired: It has not, in so many seconds.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("paretobit", timeout)
        return self._process.exitcode

    def communicate(self, timeout: float = 120.0) -> tuple[str, str]:
        """Standard output and error, once it has ended."""
        with self._said as said:
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.send_signal(signal.SIGKILL)
                raise
            return Path(said, "1").read_text(), Path(said, "2").read_text()


def _command(folder: str, arguments: list[str], setup: str, said: str) -> None:
    for number in (1, 2):
        os.dup2(os.open(f"{said}/{number}", os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    sys.argv = arguments
    sys.path[0] = ""  # as `python -c` has it
    exec(setup, {})
    from paretobit.cli.main import main

    main()
