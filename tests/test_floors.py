"""The plan of the house: imports only point down the floors, files stay small, nothing heavy comes early.

Imports under `if TYPE_CHECKING` and inside functions count: they are dependencies all the same.
"""

import ast
import re
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "paretobit"
FLOORS = (
    {"errors", "_version"},  # the ground floor in two steps: everything may raise
    {"registry", "runtime", "document", "storage", "deprecation"},
    {"schemas", "plugins"},
    {"formats", "graph"},
    {"data"},  # calibration rows are inputs as a graph is traced with
    {"nn"},
    {"passes", "training", "wanted", "compat"},
    {"models"},
    {"spaces"},
    {"studies"},
    {"trials"},
    {"strategies"},
    {"session", "comparing"},
    {"report", "export", "doctor"},
    {"workflow"},
    {"cli", "testing"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
HEAVY = {"torch", "numpy", "sklearn", "matplotlib", "optuna", "scipy", "pandas", "ray", "onnx", "transformers"}
LONGEST, LARGEST, ALL = 400, 7_000, 49_000  # lines of a file, of a room, of all rooms

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
NAMES = {path: ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in FILES}
ROOMS = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
MODULES = {name.removesuffix(".__init__"): path for path, name in NAMES.items()}


def room_of(module):
    """The room of `paretobit.spaces.knobs` is `search`; the package itself has none."""
    parts = module.split(".")
    return parts[1] if parts[0] == "paretobit" and len(parts) > 1 else None


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def statements(tree, *, only_at_import):
    """Every node of a file, or only those that run when it is imported."""
    for child in ast.iter_child_nodes(tree):
        if only_at_import and (isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(child)):
            continue
        yield child
        yield from statements(child, only_at_import=only_at_import)


def imports(path, *, only_at_import=False):
    """Modules that a file imports, as (module, line), relative imports resolved."""
    package = NAMES[path].split(".")[:-1]
    found = []
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), only_at_import=only_at_import):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            names = [f"{module}.{alias.name}" for alias in node.names]
            whole = module == "paretobit"  # `from paretobit import formats` imports the room
            found += [(n if whole or n in MODULES else module, node.lineno) for n in names]
    return found


def test_every_room_has_a_floor():
    assert {room_of(module) for module in MODULES} <= FLOOR_OF.keys()
    assert len(FILES) > 50


def test_rooms_import_only_from_lower_floors():
    wrong = []
    for path in FILES:
        room = room_of(NAMES[path])
        for module, line in imports(path):
            other = room_of(module)
            if module == "paretobit" or (other and other != room and FLOOR_OF.get(other, 99) >= FLOOR_OF[room]):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {module}")
    assert wrong == []


def test_the_check_sees_imports_wherever_they_hide(tmp_path):
    hidden = tmp_path / "hidden.py"
    hidden.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from paretobit.cli import main\n"
        "def late():\n    import paretobit.workflow.search\n"
        "try:\n    from ..report import tables\nexcept ImportError:\n    pass\n"
        "from paretobit import formats\n"
    )
    NAMES[hidden] = "paretobit.spaces.hidden"
    try:
        everywhere = {room_of(module) for module, _ in imports(hidden)} - {None}
        at_import = {room_of(module) for module, _ in imports(hidden, only_at_import=True)} - {None}
    finally:
        del NAMES[hidden]
    assert everywhere == {"cli", "workflow", "report", "formats"}
    assert at_import == {"report", "formats"}


@pytest.mark.parametrize("room", sorted(FLOORS[0] | FLOORS[1] | {"cli"}))
def test_the_ground_floor_and_the_command_line_import_nothing_heavy_before_it_is_used(room):
    early = [
        f"{path.relative_to(PACKAGE)}:{line} imports {module}"
        for path in FILES
        if room_of(NAMES[path]) == room
        for module, line in imports(path, only_at_import=True)
        if module.split(".")[0] in HEAVY
    ]
    assert early == []


def test_the_command_line_starts_without_torch():
    code = f"import sys, paretobit.cli.main\nprint(sorted({HEAVY!r} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_file_is_longer_than_it_can_be_read():
    lengths = {str(p.relative_to(PACKAGE)): len(p.read_text(encoding="utf-8").splitlines()) for p in FILES}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_sub_rooms_do_not_import_each_other_in_circles():
    """A room's folders and its own files, whatever imports: late ones and those for types too."""
    above = {room: {} for room in ROOMS}
    for path in FILES:
        room, *rest = path.relative_to(PACKAGE).with_suffix("").parts
        if room not in ROOMS or rest == ["__init__"]:
            continue
        for module, _ in imports(path):
            parts = module.split(".")[1:]
            if parts[:1] == [room] and len(parts) > 1 and parts[1] != rest[0]:
                above[room].setdefault(rest[0], set()).add(parts[1])
    for room, arrows in above.items():
        try:
            TopologicalSorter(arrows).prepare()
        except CycleError as error:
            pytest.fail(f"{room}: " + " -> ".join(error.args[1]))


def test_no_room_is_larger_than_it_can_be_known():
    lines = Counter()
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        lines[room] += len(path.read_text(encoding="utf-8").splitlines())
    assert {room: number for room, number in lines.items() if number > LARGEST} == {}
    assert lines.total() <= ALL


def test_modules_do_not_import_each_other_in_circles():
    """Within a room, the room's own `__init__` aside: it imports its modules and they import each other."""
    graph = {
        module: {
            other
            for other, _ in imports(path, only_at_import=True)
            if other in MODULES and other != module and room_of(other) == room_of(module)
        }
        for module, path in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_map_shows_every_room_on_its_floor():
    page = (PACKAGE.parents[1] / "docs/design/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE)
    shown = {int(floor): set(re.findall(r"`(\w+)/?`", rooms)) for floor, rooms in rows}
    there = {room_of(module) for module in MODULES} - {"_version"}
    floors = {floor: rooms & there for floor, rooms in enumerate(FLOORS)}
    assert {floor: rooms & there for floor, rooms in shown.items()} == floors
    assert all(f"**`{room}/`.**" in page for room in there if (PACKAGE / room).is_dir())
