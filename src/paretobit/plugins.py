"""Plug-ins: users' files, modules and installed packages that register what they add when they are imported.

What they add is registered as the house's own is, in any registry. Each is imported once per process, a
file under a name that its place decides, so that its classes pickle; worker processes import what their
parent did before anything else. Nothing is imported that the user did not name or install: what a run
folder records is held against the files, not run unasked.
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from pathlib import Path

from paretobit.errors import BadInput, located
from paretobit.registry import FILED, withdraw
from paretobit.runtime import import_file, not_imported, users_module

GROUP = "paretobit.plugins"
"""The entry points under which an installed package names its modules."""
_KEY = "plugins"


@dataclass(frozen=True)
class Plugin:
    """A plug-in that was imported.

    Attributes:
        name: The absolute path of a file, or a module.
        file: Where its source is; empty where there is none.
        sha256: Of its source.
    """

    name: str
    file: str
    sha256: str


_LOADED: dict[str, Plugin] = {}
"""Name to plug-in, in order of import."""


def load(
    names: str | Iterable[str], folder: Path | None = None, recorded: Mapping[str, str] | None = None
) -> list[str]:
    """Import plug-ins, and those of installed packages before them.

    Args:
        names: `path/to/file.py` or `package.module`.
        folder: What relative paths are relative to; None: the working folder.
        recorded: Name to the `sha256` that it must have: it is a run folder that names them, not the user.

    Returns:
        The names as they are recorded: absolute paths.

    Raises:
        BadInput: One is absent, does not import, registers a name that is taken, or is not the recorded one.
    """
    load_installed()
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, Iterable) or not all(isinstance(name, str) and name for name in names):
        raise BadInput("not a list of plug-ins", key=_KEY, found=names, allowed="files and modules")
    with located(key=_KEY):
        return [_load(_absolute(name, folder), recorded) for name in names]


def load_installed() -> None:
    """Import the modules that installed packages name under the entry points `paretobit.plugins`.

    Raises:
        BadInput: One does not import.
    """
    for point in entry_points(group=GROUP):
        _load(point.module, None)


def loaded() -> list[dict[str, str]]:
    """What was imported, as a study records it: `name`, `file` and `sha256` of each plug-in."""
    return [asdict(plugin) for plugin in _LOADED.values()]


def adopt(plugins: Iterable[Mapping[str, str]]) -> None:
    """Import what another process has imported (`loaded` gave it there), in the same order and version.

    Raises:
        BadInput: One is no longer the same.
    """
    for plugin in plugins:
        _load(plugin["name"], {plugin["name"]: plugin["sha256"]})


def absent(names: Iterable[str]) -> list[str]:
    """Those that were not imported."""
    return [name for name in names if name not in _LOADED]


def is_of_a_plugin(module: str) -> bool:
    """Whether a module is one that every process imports for itself."""
    return any(module in (name, users_module(Path(name))) for name in _LOADED)


def _absolute(name: str, folder: Path | None) -> str:
    return str(((folder or Path()) / Path(name).expanduser()).resolve()) if name.endswith(".py") else name


def _load(name: str, recorded: Mapping[str, str] | None) -> str:
    is_file = name.endswith(".py")
    file = Path(name) if is_file else _file_of(name)
    if is_file and not Path(name).is_file():
        raise BadInput("no such file", found=name)
    source = file.read_bytes() if file else b""
    plugin = Plugin(name, str(file or ""), hashlib.sha256(source).hexdigest())
    expected = plugin.sha256 if recorded is None else recorded.get(name)
    known = _LOADED.get(name, plugin)
    if expected != plugin.sha256 or known != plugin:
        problem = "the plug-in has changed since this process imported it: start Python anew"
        if known == plugin:
            problem = f"the plug-in is not the one that was recorded: add --plugin {name} to go on with this one"
        raise BadInput(problem, source=file, found=name)
    if name not in _LOADED:
        _LOADED[name] = plugin  # before it is imported: it may lead here again
        try:
            _import(name, is_file)
        except BaseException:
            del _LOADED[name]
            raise
    return name


def _file_of(module: str) -> Path | None:
    """Where a module is; the packages around it are imported for that."""
    try:
        spec = importlib.util.find_spec(module)
    except (Exception, SystemExit) as error:
        if not isinstance(error, ModuleNotFoundError) or not f"{module}.".startswith(f"{error.name}."):
            raise not_imported(error) from error
        spec = None
    if spec is None:
        raise BadInput("no such module", found=module, allowed="path/to/file.py, or an installed module")
    return Path(spec.origin) if spec.has_location and spec.origin else None


def _import(name: str, is_file: bool) -> None:
    """Import a plug-in; say so where it has registered nothing, take back what it has where it fails."""
    module = users_module(Path(name)) if is_file else name
    start = 0 if module in sys.modules else len(FILED)
    try:
        import_file(Path(name)) if is_file else importlib.import_module(name)
    except (Exception, SystemExit) as error:
        withdraw(module)
        raise not_imported(error) from error
    if all(f"{by}.".startswith("paretobit.") for _, _, by in FILED[start:]):
        print(f"warning: the plug-in {name} registers nothing", file=sys.stderr)
