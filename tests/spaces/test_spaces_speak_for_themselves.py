"""Nothing outside a space's own file asks for it by name or by class."""

import ast
from pathlib import Path

import paretobit
from paretobit.spaces import SPACES

PACKAGE = Path(paretobit.__file__).parent
HOME = next(path for path in PACKAGE.rglob("spaces") if path.is_dir())
CONCRETE = {entry.value.__module__.rpartition(".")[2] for entry in SPACES}
CLASSES = {entry.value.__name__ for entry in SPACES}
NAMES = set(SPACES.names())
PUBLIC = {"__init__.py"}  # hand the classes on to users


def asked_for(path, text=None):
    """Where a file compares with the name of a space, or uses the class of one or of what it is bound to."""
    found = []
    for node in ast.walk(ast.parse(text or path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            listed = [item for side in sides for item in getattr(side, "elts", [side])]
            words = {item.value for item in listed if isinstance(item, ast.Constant)}
            found += sorted(words & NAMES) if not is_of_passes(path) else []
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            found += [node.slice.value] if node.slice.value in NAMES and "SPACES" in ast.unparse(node) else []
        elif isinstance(node, ast.ImportFrom) and node.module and path.name not in PUBLIC:
            own = node.module.rpartition(".")[2] in CONCRETE and ".spaces." in node.module
            names = {alias.name for alias in node.names}
            found += sorted(name for name in names if own or name in CLASSES or name.removeprefix("Bound") in CLASSES)
    return found


def is_of_passes(path):
    """Passes and kinds of operations have names of their own, which some spaces share."""
    return bool({"passes", "operations"} & {*path.parts})


def test_nothing_asks_for_a_space_by_name_or_class():
    files = [path for path in PACKAGE.rglob("*.py") if path.stem not in CONCRETE or path.parent != HOME]
    files = [path for path in files if path.parent.name != "testing"]  # its suites make spaces of their own
    found = {str(path.relative_to(PACKAGE)): asked for path in files if (asked := asked_for(path))}
    assert found == {"spaces/base.py": ["product"]}  # what `*` makes


def test_the_check_sees_what_it_looks_for(tmp_path):
    asking = {
        'if space.name == "training": pass': ["training"],
        'if "correct" in names: pass': ["correct"],
        "from paretobit.spaces.training import BoundTraining": ["BoundTraining"],
        "from paretobit.spaces import Quantize": ["Quantize"],
        'SPACES["prune"]': ["prune"],
    }
    for text, found in asking.items():
        assert asked_for(tmp_path / "file.py", text) == found
