"""Fetching a file once, whole, and verified."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from paretobit.errors import ParetoBitError

Progress = Callable[[int, int | None], None]

_CHUNK = 1 << 20
_TIMEOUT_S = 60


def cache_folder() -> Path:
    """Where downloads are kept: `$PARETOBIT_CACHE`, or `~/.cache/paretobit`."""
    chosen = os.environ.get("PARETOBIT_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "paretobit"


def fetch(url: str, target: Path, md5: str | None = None, progress: Progress | None = None) -> Path:
    """Download `url` to `target`, which appears only once it is complete and verified.

    Args:
        url: What to fetch.
        target: Where to; its folder is made.
        md5: Checksum in hex, if known.
        progress: Called with the bytes so far and the total, or None where the server does not say.

    Raises:
        ParetoBitError: The download failed, was cut short, or does not match the checksum.
    """
    from http.client import HTTPException
    from tempfile import TemporaryDirectory

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            partial = Path(folder) / target.name
            found = _receive(url, partial, progress)
            if md5 and found != md5.lower():
                raise ParetoBitError(f"the download of {url} is damaged: md5 {found}, expected {md5}")
            partial.replace(target)
    except (OSError, HTTPException, ValueError) as error:
        raise ParetoBitError(f"the download of {url} failed: {error}") from error
    return target


def _receive(url: str, target: Path, progress: Progress | None) -> str:
    """Write what `url` holds to `target` and give its md5."""
    from urllib.request import urlopen

    digest = hashlib.md5(usedforsecurity=False)
    done = 0
    with target.open("wb") as out, urlopen(url, timeout=_TIMEOUT_S) as response:
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        while chunk := response.read(_CHUNK):
            out.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress:
                progress(done, total)
    if total is not None and done != total:
        raise ParetoBitError(f"the download of {url} was cut short: {done:,} of {total:,} bytes")
    return digest.hexdigest()


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """A progress bar on standard error, as a `Progress` to hand to `fetch`."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
