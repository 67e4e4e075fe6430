"""A search begun from Python leaves a folder on which every command works, or says what it needs."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from forked import Forked
from torch import nn

import paretobit as pb
from paretobit.data import DataSettings, load
from paretobit.errors import BadInput

NET = """
import torch
from torch import nn

def make(input_shape, num_classes):
    torch.manual_seed(4)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, num_classes))
"""
SPACE = {"linear": {"weight_width": [3, 6], "weight_frac_width": [2], "data_in_width": [4, 8]}}
ASKED = {
    "maximize": "accuracy",
    "minimize": ["bitops", "model_size"],
    "subject_to": "average_bitwidth <= 24",
    "runners": {"basic_evaluation": {"num_samples": 200}, "basic_computation": {}, "model_size": {},
                "average_bitwidth": {}},
    "strategy": {"name": "tpe", "sampler_settings": {"n_startup_trials": 4}},
    "n_trials": 6,
    "best": "min bitops s.t. accuracy >= baseline - 0.5",
    "seed": 3,
    "max_failures": 2,
    "calibration": 64,
}  # fmt: skip


def splits():
    data = load(DataSettings(name="digits"))
    return {split.name: (split.x, split.y) for split in data.splits}


@pytest.fixture
def place(finished, tmp_path):
    """A folder with `net.py` and the finished run `run`, of its own."""
    return Path(shutil.copytree(finished, tmp_path / "place"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("python")
    (folder / "net.py").write_text(NET)
    scope: dict = {}
    exec(NET, scope)
    model = scope["make"]((8, 8), 10)
    pb.search(model, space=pb.Quantize(seed=SPACE), out=folder / "run", **splits(), **ASKED)
    return folder


def command(place, *arguments):
    """A command in a process of its own: its exit code and what it said."""
    process = Forked(place, arguments)
    out, said = process.communicate()
    return process.returncode, out, said


def test_the_configuration_is_whole_and_what_only_python_had_is_named(place):
    page = tomllib.loads((place / "run/config.toml").read_text())
    search = page["search"]
    assert search["maximize"] == ["accuracy"]
    assert search["minimize"] == ["bitops", "model_size"]
    for key in ("subject_to", "runners", "strategy", "n_trials", "best", "max_failures", "calibration"):
        wanted = ASKED[key] if key != "subject_to" else [ASKED[key]]
        assert search[key] == wanted, key
    assert search["space"]["name"] == "quantize"
    assert search["space"]["seed"] == SPACE
    assert (page["seed"], search["workers"], search["eval_mode"]) == (3, 1, True)
    assert page["given"]["model"] == "torch.nn.modules.container.Sequential"
    assert page["given"]["data"] == ["train", "val", "test"]
    assert "model" not in page
    assert "data" not in page


READ_ONLY = [("show", "run"), ("show", "run", "--trial", "1"), ("report", "run", "-q")]
NEED_THE_MODEL = [
    ("inspect", "run"),
    ("show", "run", "--layers"),
    ("test", "run", "--data", "digits"),
    ("benchmark", "run", "--data", "digits", "--repeats", "1", "--seconds", "0", "--variant", "eager"),
    ("sensitivity", "run", "--data", "digits", "--rows", "16", "--format", "integer(width=4, frac_width=2)"),
    ("search", "-o", "run", "--resume", "--trials", "8", "--data", "digits", "--set", "data.seed=0"),
]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", READ_ONLY, ids=" ".join)
def test_commands_that_only_read_just_work(place, arguments):
    code, _, said = command(place, *arguments)
    assert code == 0, said


@pytest.mark.slow
@pytest.mark.parametrize("arguments", NEED_THE_MODEL, ids=lambda a: a[0])
def test_commands_that_need_the_model_say_so_and_work_once_it_is_named(place, arguments):
    code, _, said = command(place, *arguments)
    assert code == 2
    assert "was given from Python: pass --model, or model= from Python" in " ".join(said.split())
    code, _, said = command(place, *arguments, "--model", "net.py:make")
    assert code == 0, said


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_what_was_named_and_keeps_its_trials(place):
    before = pb.Study.open(place / "run")
    code, out, said = command(
        place, "search", "-o", "run", "--resume", "--trials", "10", "--json",
        "--model", "net.py:make", "--data", "digits", "--set", "data.seed=0",
    )  # fmt: skip
    assert code == 0, said
    assert sum(json.loads(out)["trials"].values()) == 10
    after = pb.Study.open(place / "run")
    assert [t.config for t in after][: len(before)] == [t.config for t in before]
    page = tomllib.loads((place / "run/config.toml").read_text())
    assert page["model"]["name"] == "net.py:make"
    assert page["given"]["model"] == "torch.nn.modules.container.Sequential"


@pytest.mark.slow
def test_data_that_only_python_had_is_asked_for_and_other_data_is_refused(place):
    code, _, said = command(place, "test", "run", "--model", "net.py:make")
    assert code == 2
    assert "pass --data" in said
    code, _, said = command(place, "search", "-o", "run", "--resume", "--model", "net.py:make")
    assert code == 2
    assert "this data was given from Python: pass --data" in " ".join(said.split())
    named = ("--model", "net.py:make", "--data", "digits", "--set", "data.seed=1")
    code, _, said = command(place, "search", "-o", "run", "--resume", "--trials", "12", *named)
    assert code == 1
    assert "another search's" in said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("workers", 0),
        ("n_trials", 0),
        ("timeout", -1.0),
        ("trial_timeout", 0.0),
        ("max_failures", -1),
        ("calibration", -1),
        ("engine", "threads"),
        ("strategy", "tp"),
        ("subject_to", ["accuracy is high"]),
        ("best", "something"),
        ("runners", {"basic_evaluatoin": {}}),
        ("maximize", ["acuracy"]),
        ("forgiving", {"metric": "accuracy", "cost": "bitops", "delta": "much"}),
        ("pipeline", {"steps": ["quantise"]}),
    ],
)
def test_a_rule_has_one_wording_whichever_door_it_came_through(key, value, tmp_path):
    """Each door is tried, and what it says is held against the other's, keys of the file aside."""
    from paretobit.document import Document, dump
    from paretobit.workflow.settings import Settings
    from paretobit.workflow.setup import assemble

    asked = {"maximize": "accuracy", "minimize": "bitops", key: value}
    if key == "forgiving":
        asked.pop("maximize")
    model, rows = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), splits()
    with pytest.raises(BadInput) as python:
        pb.search(model, space=pb.Quantize(seed=SPACE), **rows, **asked)
    page = {"model": "jsc-tiny", "data": "digits", "search": {**asked, "space": {"seed": SPACE}}}
    (tmp_path / "search.toml").write_text(dump(page))
    document = Document.read(tmp_path / "search.toml")
    with pytest.raises(BadInput) as file:
        assemble(Settings.from_document(document), document)
    said, other = python.value, file.value
    assert (said.problem, said.found, said.allowed) == (other.problem, other.found, other.allowed)
    assert f"search.{said.key}" == other.key
    assert other.source == str(tmp_path / "search.toml")
