"""`enumerate` keeps a run folder that can go on, and a table that says what the search measured."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import pytest

from paretobit.comparing.table import Table
from paretobit.document import Document
from paretobit.errors import BadInput
from paretobit.graph import ModelGraph, trace
from paretobit.session.loop import Progress
from paretobit.studies.study import Study
from paretobit.workflow import assemble as assembling
from paretobit.workflow.enumeration import enumerate_space
from paretobit.workflow.run_folder import RunFolder
from paretobit.workflow.settings import Settings

SEARCH = """
model = "jsc-custom"
data = "digits"
[train]
max_epochs = 2
learning_rate = 1e-2
[search]
maximize = "accuracy"
minimize = "bitops"
subject_to = "bitops <= 60000"
n_trials = 3
strategy = "tpe"
[search.space]
by = "type"
[search.space.seed.linear]
name = ["integer", "float"]
data_in_width = [4, 6]
data_in_frac_width = 3
weight_width = 5
weight_frac_width = 3
"""
SIZE = 27  # three layers, each (4 or 6 bits) or float


def settings_of(text: str = SEARCH) -> tuple[Settings, Document]:
    document = Document(tomllib.loads(text))
    return Settings.from_document(document), document


@pytest.fixture(scope="module")
def enumerated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("enumerated") / "run"
    settings, document = settings_of()
    assert enumerate_space(settings, document, RunFolder(folder), test=True) == folder / "table.npz"
    return folder


def test_the_table_holds_what_the_study_holds(enumerated: Path) -> None:
    table, study = Table.open(enumerated), Study.open(enumerated)
    assert len(table) == len(study) == SIZE
    for index, trial in enumerate(study.trials):  # nested order is that of the tree
        assert trial.config == table.tree.at(index)
        told = {name: value for name, value in trial.metrics.items() if not name.startswith("test_")}
        assert table.metrics(index) == told
    assert table.about["baseline"] == study.baseline


def test_a_constraint_is_part_of_the_question_and_keeps_nothing_from_being_measured(enumerated: Path) -> None:
    table = Table.open(enumerated)
    assert not any(math.isnan(value) for value in table.columns["accuracy"])
    states = {table.outcome(table.tree.at(i), table.problem()).state for i in range(SIZE)}
    assert [str(constraint) for constraint in table.wanted.constraints] == ["total_bitops <= 60000"]
    assert states == {"complete", "infeasible"}


def test_the_test_split_is_measured_as_the_judge_of_the_front_does(enumerated: Path) -> None:
    table, study = Table.open(enumerated), Study.open(enumerated)
    judged = study.facts["test"]
    for trial in study.front():
        expected = judged[str(trial.number)]
        assert table.test_metrics(trial.config)["accuracy"] == expected["accuracy"]
        assert table.test_metrics(trial.config)["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_evidence_is_stored_with_what_it_cost(enumerated: Path) -> None:
    table = Table.open(enumerated)
    insight = table.problem().insight
    assert insight is not None
    assert len(insight.tables) == len(table.about["evidence"]["seconds"]) >= 1
    groups = insight.table(insight.tables[0], insight.outer.at(0)).groups
    assert len(groups) == 3
    assert all(len(group.options) == 3 for group in groups)
    assert all(seconds["{}"] > 0 for seconds in table.about["evidence"]["seconds"].values())


def test_an_enumeration_that_was_cut_short_goes_on(enumerated: Path, tmp_path: Path) -> None:
    ran: list[int] = []

    def stop_early(progress: Progress) -> None:
        ran.append(progress.trial.number)
        if len(ran) == 10:
            raise KeyboardInterrupt

    settings, document = settings_of()
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        enumerate_space(settings, document, folder, test=True, on_trial=stop_early)
    assert not (folder.path / "table.npz").exists()
    enumerate_space(*settings_of(), folder, test=True, on_trial=lambda p: ran.append(p.trial.number))
    assert ran == list(range(SIZE))
    whole, resumed = Table.open(enumerated), Table.open(folder.path)
    for name, column in whole.columns.items():
        assert (column == resumed.columns[name]).all()


def test_a_space_above_the_limit_is_refused_before_any_work(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(BadInput, match=r"too large to be enumerated.*27 configurations.*allowed: 26"):
        enumerate_space(*settings_of(), folder, limit=26)
    assert not folder.path.exists()


def test_without_calibration_rows_there_is_no_evidence_and_the_table_says_why(tmp_path: Path) -> None:
    settings, document = settings_of(SEARCH.replace("[search]", "[search]\ncalibration = 0"))
    table = Table.open(enumerate_space(settings, document, RunFolder(tmp_path / "run")))
    assert not table.has_evidence
    assert table.about["evidence_absent"] == "there were no calibration rows"


def test_the_test_split_needs_a_runner_that_knows_it(tmp_path: Path) -> None:
    text = SEARCH.replace('maximize = "accuracy"\nminimize = "bitops"', 'minimize = "bitops"')
    settings, document = settings_of(text + "\n[search.runners.basic_computation]\n")
    with pytest.raises(BadInput, match="'basic_evaluation', which is not in use"):
        enumerate_space(settings, document, RunFolder(tmp_path / "run"), test=True)


def test_the_model_is_traced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []

    def counting(*arguments: object) -> ModelGraph:
        traced.append(1)
        return trace(*arguments)

    monkeypatch.setattr(assembling, "trace", counting)
    settings, document = settings_of(SEARCH.replace("max_epochs = 2", "max_epochs = 0"))
    enumerate_space(settings, document, RunFolder(tmp_path / "run"))
    assert len(traced) == 1
