"""Commands in processes of their own that begin where the imports end: those take seconds of each start."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread

_SERVER = multiprocessing.get_context("forkserver")  # a fresh Python that imports these and does nothing else
_SERVER.set_forkserver_preload(["matplotlib.figure", "scipy.optimize", "torch._dynamo", "paretobit.workflow.run"])


class Forked:
    """`paretobit` with these arguments in a folder, after some lines of Python; used as a `subprocess.Popen`."""

    def __init__(self, folder: Path, arguments: Sequence[str], setup: str = "") -> None:
        pipes = [_SERVER.Pipe(duplex=False) for _ in range(2)]
        whole = (str(folder), ["paretobit", *map(str, arguments)], setup, *(writer for _, writer in pipes))
        self._process = _SERVER.Process(target=_command, args=whole, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self._said = [b"", b""]
        self._readers = []
        for index, (reader, writer) in enumerate(pipes):
            writer.close()
            self._readers.append(Thread(target=self._read, args=(index, reader), daemon=True))
            self._readers[-1].start()

    def _read(self, index: int, reader: Connection) -> None:
        with reader:
            while part := os.read(reader.fileno(), 2**16):
                self._said[index] += part

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended.

        Raises:
            TimeoutExpired: It has not, in so many seconds.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("paretobit", timeout or 0.0)
        return self._process.exitcode

    def communicate(self, timeout: float = 120.0) -> tuple[str, str]:
        """Standard output and error, once it and whatever it started have ended."""
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.send_signal(signal.SIGKILL)
            raise
        for reader in self._readers:
            reader.join(timeout)
        out, error = (said.decode() for said in self._said)
        return out, error


def _command(folder: str, arguments: list[str], setup: str, *streams: Connection) -> None:
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream.fileno(), number)
        stream.close()
    os.chdir(folder)
    sys.argv = arguments
    sys.path[0] = ""  # as `python -c` has it
    exec(setup, {})
    from paretobit.cli.main import main

    main()
