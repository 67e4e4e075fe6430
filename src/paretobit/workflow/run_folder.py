"""The run folder: where everything of one run is, under fixed names."""

from __future__ import annotations

import errno
import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paretobit.document import dump
from paretobit.errors import BadInput, ParetoBitError, StudyError
from paretobit.storage import write_text_atomic
from paretobit.studies.study import Study

RUNS = Path("runs")
_CANNOT_WRITE = {
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EFBIG", "EIO", "ENOSPC", "EPERM", "EROFS")
    if hasattr(errno, name)
}


class RunFolder:
    """Paths of one run.

    Attributes:
        path: The folder itself.
        config: The configuration as resolved.
        study: The study.
        trials: Every trial, as CSV.
        front: The front, as CSV.
        picture: The front, as a picture.
        best: The winning model.
        float_model: The float model that a search trained before it began.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        self.config, self.study = path / "config.toml", path / "study.db"
        self.trials, self.front, self.picture = path / "trials.csv", path / "front.csv", path / "front.png"
        self.best, self.float_model = path / "best", path / "float"

    @classmethod
    def choose(cls, out: str | Path | None, name: str, *, resume: bool = False) -> RunFolder:
        """The folder of a new run, or of one to be resumed; nothing is created.

        Args:
            out: What the user asked for; unset: the next free `runs/NAME`.
            name: Of the run, for the default folder.
            resume: Whether to go on in an existing folder.

        Raises:
            BadInput: The folder asked for is not empty and nothing says to resume.
        """
        if out is None:
            stem = re.sub(r"[^\w.-]+", "-", name).strip("-") or "run"
            if resume:
                return cls(RUNS / stem)
            names = (stem if i == 1 else f"{stem}-{i}" for i in itertools.count(1))
            return cls(next(RUNS / n for n in names if not (RUNS / n).exists()))
        path = Path(out)
        if path.exists() and not path.is_dir():
            raise BadInput("the run folder is a file", key="--out", found=str(path))
        if path.is_dir() and any(path.iterdir()) and not resume:
            raise BadInput("the run folder is not empty: use --resume to go on in it", key="--out", found=str(path))
        return cls(path)

    def create(self) -> None:
        """Make the folder.

        Raises:
            ParetoBitError: It cannot be made or written to.
        """
        with self._named():
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other searches out of the folder inside the block; readers are welcome.

        Raises:
            StudyError: Another search is writing to it.
            ParetoBitError: It can no longer be written to, the disk being full for example.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / "study.lock", timeout=0)
        with self._named():
            try:
                lock.acquire()
            except (Timeout, RuntimeError):  # of another process; of this one
                raise StudyError(f"another search is writing to {self.path}") from None
            try:
                yield
            finally:
                lock.release()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn the failure to write a file into an error that names the folder."""
        from safetensors import SafetensorError

        try:
            yield
        except OSError as error:
            if error.errno in _CANNOT_WRITE or isinstance(error, NotADirectoryError | FileExistsError):
                raise ParetoBitError(f"cannot write to the run folder {self.path}: {error.strerror}") from error
            raise
        except SafetensorError as error:
            raise ParetoBitError(f"cannot write to the run folder {self.path}: {error}") from error

    @property
    def begun(self) -> bool:
        """Whether the folder holds a search that began.

        Raises:
            StudyError: Its study cannot be read.
        """
        if not self.study.exists():
            return False
        with Study.open(self.study) as study:
            return "created" in study.facts

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Write the configuration as resolved."""
        write_text_atomic(self.config, dump(settings))
