"""Device, threads and seeds: decided here and nowhere else."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import TYPE_CHECKING, Any

from paretobit.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    import torch

MAX_SEED = 2**31 - 1


def use_one_thread() -> None:
    """Run torch on one thread: parallelism is one process per worker, never threads within one."""
    import torch

    torch.set_num_threads(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """`use_one_thread` inside the block; the caller's number of threads after it."""
    import torch

    threads = torch.get_num_threads()
    use_one_thread()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def device(name: str = "cpu") -> torch.device:
    """The torch device called `name`; `auto` and `gpu` take CUDA.

    Raises:
        BadInput: The device does not exist on this machine.
    """
    import torch

    wanted = {"auto": "cuda" if torch.cuda.is_available() else "cpu", "gpu": "cuda"}.get(name, name)
    try:
        found = torch.device(wanted)
    except RuntimeError:
        found = torch.device("meta")
    if found.type not in ("cpu", "cuda"):
        raise BadInput("unknown device", key="device", found=name, allowed=["cpu", "cuda", "gpu", "auto"])
    if found.type == "cuda" and not torch.cuda.is_available():
        raise BadInput("no CUDA device on this machine", key="device", found=name, allowed=["cpu", "auto"])
    return found


def cpp_compiler() -> str | None:
    """The C++ compiler that `torch.compile` finds for the CPU, or None."""
    return shutil.which(os.environ.get("CXX") or "g++") or shutil.which("clang++")


def derive_seed(seed: int, *parts: object) -> int:
    """A seed in [0, 2^31) that depends on `seed` and on `parts` (JSON-like), and on nothing else.

    >>> derive_seed(0, "trial", 3) == derive_seed(0, "trial", 3) != derive_seed(0, "trial", 4)
    True
    """
    digest = hashlib.sha256(json.dumps([seed, *parts], default=str).encode()).digest()
    return int.from_bytes(digest[:8], "big") % (MAX_SEED + 1)


def seed_everything(seed: int) -> None:
    """Seed torch, NumPy and `random`.

    `torch.manual_seed` asks for every backend, at 0.3 ms a call; this seeds those in use.
    """
    import random

    import numpy as np

    for generator in _generators():
        generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch, NumPy and `random` inside the block and put their states back after it."""
    import random

    import numpy as np

    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise BadInput("not a seed", key="seed", found=seed, allowed=f"0 to {MAX_SEED}")
    generators = _generators()
    states = [generator.get_state() for generator in generators]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        seed_everything(seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def _generators() -> list[torch.Generator]:
    import torch

    on_gpu = torch.cuda.default_generators if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    return [torch.default_generator, *on_gpu]


def optional(package: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or say how to get it.

    Raises:
        MissingExtra: The package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise MissingExtra(package.split(".")[0], extra, purpose) from None


def load_function(reference: str) -> Any:
    """The object that `path/to/file.py:name` names.

    Raises:
        BadInput: The file is missing, does not import, or has no such name.
    """
    path_text, _, name = reference.rpartition(":")
    path = Path(path_text)
    if not path_text or not name or path.suffix != ".py":
        raise BadInput("not a reference to a function", found=reference, allowed="path/to/file.py:name")
    if not path.is_file():
        raise BadInput("no such file", found=path_text)
    module = import_file(path)
    if not hasattr(module, name):
        public = [key for key in vars(module) if not key.startswith("_")]
        raise BadInput("the file defines no such name", source=path, found=name, allowed=public)
    return getattr(module, name)


def users_module(path: Path) -> str:
    """The name under which a user's file is imported: that of its place, in every process."""
    return f"_paretobit_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"


def import_file(path: Path) -> ModuleType:
    """Import a user's file; again only where it has changed since: what it registers is registered once.

    Raises:
        BadInput: It does not import; the line is named where that is known.
    """
    name, folder, source = users_module(path), str(path.resolve().parent), path.read_bytes()
    known = sys.modules.get(name)
    if known is not None and known.__dict__.get(_SOURCE) == source:
        return known
    module = ModuleType(name)
    module.__dict__.update({"__file__": str(path.resolve()), _SOURCE: source})
    if folder not in sys.path:
        sys.path.append(folder)  # a user's file may import its neighbours
    sys.modules[name] = module  # dataclasses and pickling look a class's module up there
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # no `__pycache__` beside users' files
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise not_imported(error) from error
    finally:
        sys.dont_write_bytecode = before
    return module


_SOURCE = "__paretobit_source__"


def not_imported(error: BaseException) -> BadInput:
    """What an error that a user's code raised while it was imported means, with file and line."""
    frames = [frame for frame in extract_tb(error.__traceback__) if frame.name == "<module>"]
    file, line, said = next(((f.filename, f.lineno, str(error)) for f in frames[::-1]), (None, None, str(error)))
    if isinstance(error, SyntaxError):
        file, line, said = error.filename, error.lineno, error.msg
    if not isinstance(error, BadInput):
        return BadInput(f"the file does not import: {type(error).__name__}: {said}", source=file, line=line)
    if error.source is None:
        error.source, error.line = file, line
    return error


def is_reference(text: str) -> bool:
    """Whether `text` has the form `path/to/file.py:name`."""
    return ".py:" in text
