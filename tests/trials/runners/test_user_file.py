"""A function of a file measures like any runner: with settings, with the data, in workers as well."""

import pickle
import textwrap

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.document import Document, validate
from paretobit.errors import BadInput
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import Candidate, FileRunner
from paretobit.workflow.settings import SearchSettings

SOURCE = """
import os
import torch
from helper import OFFSET

def norm(model, power=2, shift=0.0):
    return {"norm": float(sum((p.detach() ** power).sum() for p in model.parameters())) + shift + OFFSET}

def error(model, splits, *, split="val"):
    x, y = splits[split]
    with torch.no_grad():
        wrong = (model(x).argmax(1) != y).double().mean()
    return {"error": wrong, "rows": len(x)}

error.directions = {"rows": "maximize"}
error.units = {"error": "share of rows"}

def where(model):
    return {"process": os.getpid()}

def loss(output, target):
    return torch.nn.functional.mse_loss(output, torch.nn.functional.one_hot(target, 3).float())

def broken(model):
    raise ValueError("boom")

NUMBER = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "measures.py"
    path.write_text(textwrap.dedent(SOURCE))
    (tmp_path / "helper.py").write_text("OFFSET = 100.0\n")
    return path


@pytest.fixture
def small():
    torch.manual_seed(0)
    return nn.Linear(4, 3).eval()


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 4, generator=generator), torch.randint(0, 3, (40,), generator=generator)


def made(model, data, reference, **settings):
    return FileRunner(Evidence(pb.trace(model, data[0][:1]), {"val": data}), reference, settings, {})


def test_settings_are_keyword_arguments(small, data, file):
    runner = made(small, data, f"{file}:norm", power=4, shift=1.0)
    expected = sum(float((p.detach() ** 4).sum()) for p in small.parameters()) + 101.0
    assert runner.measure(Candidate({}, small)) == {"norm": pytest.approx(expected)}
    assert runner.metrics[0].direction == "minimize"


def test_a_function_of_two_arguments_is_given_the_data(small, data, file):
    runner = made(small, data, f"{file}:error")
    with torch.no_grad():
        wrong = (small(data[0]).argmax(1) != data[1]).double().mean().item()
    assert runner.measure(Candidate({}, small)) == {"error": wrong, "rows": 40}
    assert {m.name: (m.direction, m.unit) for m in runner.metrics} == {
        "error": ("minimize", "share of rows"),
        "rows": ("maximize", "as evaluated"),
    }
    said = made(small, data, f"{file}:error", directions={"rows": "minimize"}, units={"rows": "rows"})
    said.measure(Candidate({}, small))
    assert (said.metrics[1].direction, said.metrics[1].unit) == ("minimize", "rows")


def test_it_survives_a_pickle_by_its_place(small, data, file):
    runner = made(small, data, f"{file}:norm", power=2)
    first = runner.measure(Candidate({}, small))
    file.write_text(SOURCE.replace("+ shift + OFFSET", "+ 7.0"))
    again = pickle.loads(pickle.dumps(runner))
    assert again.measure(Candidate({}, small))["norm"] == pytest.approx(first["norm"] - 100.0 + 7.0)


def test_it_is_another_runner_once_the_file_or_its_settings_change(small, data, file):
    before = made(small, data, f"{file}:norm", power=2).identity
    assert made(small, data, f"{file}:norm", power=2).identity == before
    assert made(small, data, f"{file}:norm", power=3).identity != before
    file.write_text(SOURCE + "\n# changed\n")
    assert made(small, data, f"{file}:norm", power=2).identity != before


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("norm", {"pwoer": 2}, "does not take this.*found \\['pwoer'\\]; allowed: model, power, shift"),
        ("where", {"power": 2}, "does not take this"),
        ("nrom", {}, "did you mean 'norm'"),
        ("NUMBER", {}, "not a function"),
        ("error", {"directions": {"error": "down"}}, "not a direction"),
        ("error", {"units": "rows"}, "not a table"),
    ],
)
def test_what_the_function_does_not_take_is_refused_before_any_work(small, data, file, name, settings, message):
    with pytest.raises(BadInput, match=message):
        made(small, data, f"{file}:{name}", **settings)


@pytest.fixture
def space():
    return pb.Quantize(seed={"linear": {"weight": ["integer(width=2, frac_width=1)", "integer(width=8)"]}})


def test_a_search_measures_with_files_alone(small, data, file, space):
    study = pb.search(
        small,
        space=space,
        val=data,
        minimize=["error"],
        subject_to="norm <= 1000",
        runners={f"{file}:error": {"split": "val"}, f"{file}:norm": {"shift": 2.0}},
    )
    assert set(study.trials[0].metrics) == {"error", "rows", "norm"}
    for trial in study:
        with torch.no_grad():
            wrong = (trial.model()(data[0]).argmax(1) != data[1]).double().mean().item()
        assert trial.metrics["error"] == wrong
    assert study.facts["metrics"]["error"]["unit"] == "share of rows"


def test_evaluate_and_loss_may_be_in_a_file(small, data, file, space):
    study = pb.search(small, space=space, train=data, evaluate=f"{file}:norm", loss=f"{file}:loss", minimize="norm")
    assert study.counts()["complete"] == 2
    assert all(trial.metrics["norm"] > 100 for trial in study)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"evaluate": "measures"}, "path/to/file.py:function"),
        ({"evaluate": "none.py:f"}, "no such file"),
        ({"loss": "none.py:f"}, "no such file"),
        ({"loss": "mse"}, "path/to/file.py:function"),
        ({"runners": {"none.py:f": {}}}, "no such file"),
    ],
)
def test_a_file_that_is_not_there_is_refused(small, data, space, given, message):
    with pytest.raises(BadInput, match=message):
        pb.search(small, space=space, val=data, maximize="accuracy", **given)


def test_a_function_that_raises_is_refused_before_anything_is_written(small, data, file, space, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(BadInput, match="cannot be measured: ValueError: boom"):
        pb.search(small, space=space, val=data, minimize="x", runners={f"{file}:broken": {}}, out=out)
    assert not out.exists()


def test_workers_measure_with_files_too(small, data, file, space):
    import os

    study = pb.search(
        small, space=space, val=data, minimize=["process", "error"], workers=2,
        runners={f"{file}:where": {}, f"{file}:error": {}},
    )  # fmt: skip
    assert study.counts()["complete"] == 2
    assert all(trial.metrics["process"] != os.getpid() for trial in study)


def test_settings_take_functions_of_files_and_know_their_metrics_late():
    given = {"runners": {"a.py:f": {"power": 2}, "basic_evaluation": {}}, "minimize": ["anything"]}
    settings = validate(SearchSettings, given, Document(), "search")
    settings.check_words()
    assert settings.runners["a.py:f"] == {"power": 2}
    validate(SearchSettings, {"evaluate": "a.py:f", "minimize": ["anything"]}, Document(), "search").check_words()
    unknown = validate(SearchSettings, {"minimize": ["anything"]}, Document(), "search")
    unknown.check_words(measured_otherwise=True)
    with pytest.raises(BadInput, match="unknown metric"):
        unknown.check_words()
