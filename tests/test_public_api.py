"""The public names, and what they cost: nothing until they are used."""

import subprocess
import sys

import pytest

import paretobit as pb

PUBLIC = [
    "Architecture",
    "BadInput",
    "ChannelMultiplier",
    "Correct",
    "ParetoBitError",
    "Prune",
    "Quantize",
    "Study",
    "Training",
    "Trial",
    "__version__",
    "formats",
    "load",
    "save",
    "search",
    "trace",
]


def run(code):
    """What a fresh interpreter prints."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_public_names_are_these():
    assert sorted(pb.__all__) == sorted(dir(pb)) == PUBLIC


def test_every_public_name_is_there_and_comes_from_one_place():
    namespace = {}
    exec("from paretobit import *", namespace)
    assert {name for name in namespace if name != "__builtins__"} == set(PUBLIC)
    assert all(namespace[name] is getattr(pb, name) for name in PUBLIC)


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"torch", "numpy", "sklearn", "matplotlib", "optuna", "scipy", "pydantic", "typer", "rich"}
    assert run(f"import sys, paretobit; print(sorted({heavy!r} & sys.modules.keys()))") == "[]"


def test_errors_cost_no_torch_either():
    assert run("import sys, paretobit as pb; pb.BadInput, pb.__version__; print('torch' in sys.modules)") == "False"


@pytest.mark.parametrize("code", ["pb.search", "import paretobit.spaces", "import paretobit.workflow.api"])
def test_search_is_the_function_whatever_was_imported_before(code):
    shown = run(
        f"import paretobit as pb; {code}\n"
        "from paretobit import search\n"
        "assert search is pb.search\n"
        "print(callable(search), search.__name__, search.__module__, type(pb).__name__)"
    )
    assert shown == "True search paretobit.workflow.api module"


def test_names_lead_to_the_rooms_that_define_them():
    from paretobit.errors import BadInput
    from paretobit.models import load, save
    from paretobit.spaces import Quantize
    from paretobit.studies.study import Study
    from paretobit.studies.trial import Trial

    assert (pb.BadInput, pb.load, pb.save) == (BadInput, load, save)
    assert (pb.Quantize, pb.Study, pb.Trial) == (Quantize, Study, Trial)
    assert str(pb.formats.make("integer", width=8, frac_width=4)) == "integer(width=8, frac_width=4)"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'paretobit' has no attribute 'serach'"):
        _ = pb.serach
    with pytest.raises(ImportError, match="serach"):
        exec("from paretobit import serach")
    assert not hasattr(pb, "__path_of_nothing__")


def test_the_version_is_that_of_the_distribution():
    from importlib import metadata

    assert pb.__version__ == metadata.version("paretobit")
