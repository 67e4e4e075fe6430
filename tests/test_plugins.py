"""Plug-ins: where they may come from, when they are imported, and what is said where they cannot be."""

import hashlib
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from paretobit import plugins, registry
from paretobit.cli.main import app
from paretobit.errors import BadInput
from paretobit.formats import FORMATS
from paretobit.runtime import load_function, users_module

HALVES = '''
from dataclasses import dataclass
from paretobit.formats import FORMATS
from paretobit.formats.integer import Integer

open("imported", "a").write("x")

@FORMATS.register("halves")
@dataclass(frozen=True)
class Halves(Integer):
    """Integers, under a name of its own."""
    name = "halves"
'''


@pytest.fixture(autouse=True)
def put_back(monkeypatch, tmp_path):
    """A folder to work in; what is imported and registered here is forgotten."""
    monkeypatch.setattr(plugins, "_LOADED", {})
    monkeypatch.setattr(FORMATS, "_entries", dict(FORMATS._entries))
    filed = list(registry.FILED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    registry.FILED[:] = filed
    for name in set(sys.modules) - before:
        if not name.startswith("paretobit"):
            del sys.modules[name]


@pytest.fixture
def halves(tmp_path):
    path = tmp_path / "halves.py"
    path.write_text(HALVES)
    return path


def times_imported(tmp_path):
    marks = tmp_path / "imported"
    return len(marks.read_text()) if marks.exists() else 0


def command(*arguments):
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, " ".join((result.stdout + result.stderr).split())


def test_a_file_is_imported_once_under_the_name_of_its_place(halves, tmp_path):
    assert plugins.load(["halves.py"]) == plugins.load([str(halves)]) == [str(halves)]
    assert times_imported(tmp_path) == 1
    assert FORMATS["halves"].__module__ == users_module(halves)
    assert load_function(f"{halves}:Halves") is FORMATS["halves"], "a reference to the file means the same module"
    assert times_imported(tmp_path) == 1
    digest = hashlib.sha256(HALVES.encode()).hexdigest()
    assert plugins.loaded() == [{"name": str(halves), "file": str(halves), "sha256": digest}]


def test_relative_paths_are_those_of_the_folder_that_names_them(halves, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    assert plugins.load(["halves.py"], tmp_path) == [str(halves)]
    with pytest.raises(BadInput, match="no such file"):
        plugins.load(["halves.py"])


def test_a_module_is_named_as_python_does(tmp_path):
    package = tmp_path / "a_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "halves.py").write_text(HALVES)
    sys.path.insert(0, str(tmp_path))
    assert plugins.load(["a_package.halves"]) == ["a_package.halves"]
    assert FORMATS["halves"].__module__ == "a_package.halves"
    assert plugins.loaded()[0]["file"] == str(package / "halves.py")


BROKEN = {
    "raises": ("x = 1\ny = x / 0\n", "ZeroDivisionError", 2),
    "syntax": ("x = 1\ny = = 2\n", "SyntaxError", 2),
    "exits": ("raise SystemExit(3)\n", "SystemExit", 1),
    "taken": (HALVES.replace('"halves"', '"integer"'), "two number formats are registered as 'integer'", 8),
    "misnamed": (HALVES.replace('name = "halves"', 'name = "other"'), "named otherwise", 8),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("given", ["file", "module", "toml"])
def test_what_does_not_import_is_bad_input_with_file_and_line(kind, given, tmp_path):
    text, said, line = BROKEN[kind]
    (tmp_path / f"bad_{kind}.py").write_text(text)
    (tmp_path / "search.toml").write_text(f'plugins = ["bad_{kind}.py"]\n')
    sys.path.insert(0, str(tmp_path))
    option = ["--plugin", f"bad_{kind}.py" if given == "file" else f"bad_{kind}"]
    arguments = ["plan", "-c", "search.toml"] if given == "toml" else ["list", "formats", *option]
    code, output = command(*arguments)
    assert code == 2
    assert said in output
    assert f"bad_{kind}.py:{line}" in output.replace(" ", "")


def test_what_fails_leaves_nothing_behind_and_can_be_mended(halves):
    halves.write_text(HALVES + "\n1 / 0\n")
    with pytest.raises(BadInput, match="ZeroDivisionError"):
        plugins.load([str(halves)])
    assert "halves" not in FORMATS
    halves.write_text(HALVES)
    plugins.load([str(halves)])
    assert "halves" in FORMATS


@pytest.mark.parametrize(
    ("name", "said"),
    [("absent.py", "no such file"), ("no_such_module", "no such module"), ("no_such.module", "no such module")],
)
def test_what_is_absent_is_bad_input(name, said):
    code, output = command("list", "formats", "--plugin", name)
    assert code == 2
    assert said in output
    assert name in output


@pytest.mark.parametrize("value", ["3", "[3]", '[{name = "x.py"}]', '""'])
def test_a_file_that_names_no_plug_ins_under_the_key_is_refused(value, tmp_path):
    (tmp_path / "search.toml").write_text(f"seed = 0\nplugins = {value}\n")
    code, output = command("plan", "-c", "search.toml")
    assert code == 2
    assert "not a list of plug-ins (search.toml:2, plugins)" in output


def test_one_that_registers_nothing_is_a_line_and_no_error(tmp_path):
    (tmp_path / "idle.py").write_text("import paretobit.formats\n")
    code, output = command("list", "strategies", "--plugin", "idle.py")
    assert code == 0
    assert f"warning: the plug-in {tmp_path / 'idle.py'} registers nothing" in output


def test_one_that_registers_something_is_not_warned_of(halves):
    code, output = command("list", "formats", "--plugin", "halves.py")
    assert code == 0
    assert "under a name of its own" in output
    assert "warning" not in output


def test_a_recorded_one_is_imported_only_where_it_is_the_same(halves, tmp_path):
    digest = hashlib.sha256(HALVES.encode()).hexdigest()
    for recorded in ({str(halves): "0" * 64}, {}):
        with pytest.raises(BadInput, match=rf"not the one that was recorded: add --plugin {halves}"):
            plugins.load([str(halves)], recorded=recorded)
    assert times_imported(tmp_path) == 0
    plugins.load([str(halves)], recorded={str(halves): digest})
    assert times_imported(tmp_path) == 1


def test_a_process_that_has_imported_one_version_does_not_take_another(halves):
    plugins.load([str(halves)])
    halves.write_text(HALVES + "# changed\n")
    with pytest.raises(BadInput, match="has changed since this process imported it"):
        plugins.load([str(halves)])


def test_nothing_heavy_is_imported_before_a_plug_in_asks_for_it():
    code = "import sys, paretobit.plugins as p; p.load(()); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
