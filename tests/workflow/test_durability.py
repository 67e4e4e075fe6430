"""A search that is killed, interrupted or out of disk loses nothing and goes on to the same end."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch
from forked import Forked
from torch import nn
from typer.testing import CliRunner

import paretobit as pb
from paretobit.cli.main import app
from paretobit.errors import ParetoBitError, StudyError
from paretobit.workflow.run_folder import RunFolder

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RESULTS = ("trials.csv", "front.csv", "front.png", "best/weights.safetensors")


@pytest.mark.slow
def test_a_search_of_two_workers_killed_again_and_again_ends_like_one_that_was_not(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from kills import kill_again_and_again

    found = kill_again_and_again(tmp_path, kills=3, trials=30, seed=0, start=Forked)
    assert found["trials"] == 30
    assert [found[bad] for bad in ("lost", "run_again", "orphans", "different")] == [0, 0, 0, 0]
    assert len(set(found["at"])) > 1, "the kills fell on different trials"


@pytest.mark.slow
def test_a_kill_while_training_costs_at_most_an_epoch(here):
    here.change("max_epochs = 1", "max_epochs = 12")
    here.finish("-c", "search.toml", "-o", "whole")
    process = here.start("-c", "search.toml", "-o", "killed")
    curves = here / "killed/float/learning_curves.csv"
    while process.poll() is None and not (curves.exists() and len(curves.read_text().splitlines()) > 4):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    here.finish("-o", "killed", "--resume")
    assert here.rows("killed") == here.rows("whole")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_one_signal_ends_with_130_the_results_so_far_and_no_worker(here, number, workers):
    here.change("n_trials = 40", f"n_trials = 200\nworkers = {workers}")
    process = here.start("-c", "search.toml", "-o", "run")
    here.wait_for("run", 5, process)
    started = here.workers_of(process)
    process.send_signal(number)
    code, said = here.end(process)
    assert code == 130
    assert "--resume" in said
    assert len(started) == (0 if workers == 1 else 2)
    assert here.await_the_end_of(started) == []
    assert 5 <= len(here.rows("run")) < 200
    for name in RESULTS:
        assert (here / "run" / name).exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_signal_stops_in_the_middle_of_a_trial(here, workers):
    text = (here / "slow.py").read_text()
    hanging = 'time.sleep(0.01)\n        if "Integer" in repr(self.first):\n            '
    hanging += 'open("hangs", "w").close()\n            time.sleep(600)'
    (here / "slow.py").write_text(text.replace("time.sleep(0.01)", hanging))
    here.change("n_trials = 40", f"n_trials = 40\nworkers = {workers}")
    process = here.start("-c", "search.toml", "-o", "run")
    while process.poll() is None and not (here / "hangs").exists():
        time.sleep(0.005)
    started = here.workers_of(process)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.0)  # the trial that runs is waited for
    process.send_signal(signal.SIGINT)
    code, _ = here.end(process)
    assert code == 130
    assert here.await_the_end_of(started) == []
    assert here.rows("run") == []


@pytest.fixture
def search(net, val, space, tmp_path):
    def run(**arguments):
        table = {"val": val, "maximize": "accuracy", "minimize": "bitops", "out": tmp_path / "run", **arguments}
        return pb.search(net, space=space, **{"strategy": "tpe", "n_trials": 10, "seed": 2, **table})

    return run


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_search_finishes_what_runs_and_goes_on_to_the_same_end(search, rows, workers):
    def interrupt(progress):
        if progress.done == 4:
            os.kill(os.getpid(), signal.SIGINT)

    whole = search(workers=workers, out=None)
    with pytest.raises(KeyboardInterrupt):
        search(workers=workers, on_trial=interrupt)
    study = search(workers=workers, resume=True, n_trials=4)
    assert len(study) == 4 + workers - 1
    assert rows(search(workers=workers, resume=True)) == rows(whole)


def test_a_second_search_of_the_same_folder_is_refused_before_it_writes_and_the_first_goes_on(search, rows):
    refused = []

    def meddle(progress):
        if progress.done == 3:
            with pytest.raises(StudyError, match="another search is writing to") as caught:
                search(resume=True, n_trials=20)
            refused.append(caught.value.exit_code)

    study = search(on_trial=meddle)
    assert refused == [1]
    assert rows(study) == rows(search(out=None))


@pytest.mark.slow
def test_another_process_is_refused_at_once_with_exit_code_1(here):
    process = here.start("-c", "search.toml", "-o", "run")
    here.wait_for("run", 1, process)
    process.send_signal(signal.SIGSTOP)  # it holds the folder for as long as it takes
    try:
        config = (here / "run/config.toml").read_bytes()
        code, said = here.run("-o", "run", "--resume", "--trials", "3")
        assert code == 1
        assert "another search is writing to run" in said
        assert (here / "run/config.toml").read_bytes() == config
        shown = CliRunner().invoke(app, ["show", str(here / "run")])
        assert shown.exit_code == 0, "readers are welcome"
    finally:
        process.send_signal(signal.SIGCONT)
    assert here.end(process) == (0, "")
    assert len(here.rows("run")) == 40


FULL = """
import resource
from paretobit.studies.study import Study
add = Study.add

def add_until_full(self, trial, saved=None):
    if trial.number == 7:  # no file may grow from here on
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    add(self, trial)

Study.add = add_until_full
"""


@pytest.mark.slow
def test_a_full_disk_is_a_clear_error_that_costs_no_committed_trial(here):
    here.finish("-c", "search.toml", "-o", "whole")
    code, said = here.end(here.start("-c", "search.toml", "-o", "run", setup=FULL))
    assert code == 1
    assert "study.db cannot be used: disk I/O error" in said
    assert here.rows("run") == here.rows("whole")[:7]
    before = here.seconds("run")
    here.finish("-o", "run", "--resume")
    now = here.seconds("run")
    assert {number: now[number] for number in before} == before
    assert here.rows("run") == here.rows("whole")


def test_a_disk_that_is_full_for_the_results_names_the_folder_and_keeps_the_study(search, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "replace", full)  # what every file but the study goes through in the end
        disk.setattr(RunFolder, "write_config", lambda *_: None)
        with pytest.raises(ParetoBitError, match=r"cannot write to the run folder .*run: No space left on device"):
            search()
    assert len(pb.Study.open(tmp_path / "run")) == 10
    search(resume=True)
    assert all((tmp_path / "run" / name).exists() for name in RESULTS)


def test_a_folder_that_cannot_be_made_is_refused_before_any_work(here):
    (here / "file").write_text("not a folder")
    code, said = here.run("-c", "search.toml", "-o", "file/run")
    assert code == 1
    assert "cannot write to the run folder" in said


@pytest.fixture
def public_folder():
    """A folder that other users may look into."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


def make_read_only(run: Path) -> None:
    for path in run.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    run.chmod(0o555)


def test_a_read_only_run_is_shown_and_not_searched(search, public_folder, as_someone_else):
    run = public_folder / "run"
    search(out=run)
    make_read_only(run)
    files = sorted(path.name for path in run.iterdir())
    with as_someone_else():
        shown = CliRunner().invoke(app, ["show", str(run), "--json"])
        assert shown.exit_code == 0, shown.output
        assert json.loads(shown.stdout)["trials"]["failed"] == 0
        with pytest.raises(ParetoBitError, match="cannot write to the run folder") as caught:
            search(out=run, resume=True, n_trials=12)
    assert caught.value.exit_code == 1
    assert sorted(path.name for path in run.iterdir()) == files


def test_a_read_only_run_is_shown_whole_also_where_a_kill_left_its_log_behind(search, public_folder, as_someone_else):
    run = public_folder / "run"

    def copy(progress):  # what a kill at this moment leaves
        if progress.done == 6:
            shutil.copytree(public_folder / "searched", run)

    search(out=public_folder / "searched", on_trial=copy)
    assert (run / "study.db-wal").stat().st_size > 0
    make_read_only(run)
    with as_someone_else(), pb.Study.open(run) as study:
        assert len(study) == 6


def test_a_study_may_be_read_while_it_is_written_and_reading_leaves_no_trace(search, tmp_path):
    seen = []

    def look(progress):
        with pb.Study.open(tmp_path / "run") as study:
            seen.append(len(study))

    search(on_trial=look)
    assert seen == list(range(1, 11))
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    with pb.Study.open(tmp_path / "run") as study, pytest.raises(StudyError, match=r"study\.db.*readonly"):
        study.record(a=1)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


def cut_short(study: Path) -> None:
    study.write_bytes(study.read_bytes()[: study.stat().st_size // 2])


def scribble(study: Path) -> None:
    torch.manual_seed(0)
    study.write_bytes(bytes(torch.randint(0, 256, (9000,), dtype=torch.uint8).tolist()))


def of_a_later_version(study: Path) -> None:
    with closing(sqlite3.connect(study)) as db:
        db.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize("spoil", [cut_short, scribble, of_a_later_version])
def test_a_study_that_cannot_be_read_is_refused_and_stays_as_it_is(search, tmp_path, spoil):
    search()
    study = tmp_path / "run/study.db"
    spoil(study)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for extend in (False, True):
        with pytest.raises(StudyError, match=r"study\.db") as caught:
            search(resume=True, extend=extend)
        assert caught.value.exit_code == 1
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "run")])
    assert shown.exit_code == 1
    assert "error: " in shown.stderr
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_resuming_with_another_training_is_refused_and_leaves_the_model_and_the_settings_alone(here):
    here.change("n_trials = 40", "n_trials = 4")
    here.finish("-c", "search.toml", "-o", "run")
    kept = ("config.toml", "float/best/weights.safetensors", "float/last/state.json", "study.db")
    before = [(here / "run" / name).read_bytes() for name in kept]
    code, said = here.run("-o", "run", "--resume", "--max-epochs", "3")
    assert code == 1
    assert "its train.max_epochs is 1, not 3" in said
    assert [(here / "run" / name).read_bytes() for name in kept] == before
    here.finish("-o", "run", "--resume", "--trials", "6")
    assert len(here.rows("run")) == 6


def test_resuming_with_another_seed_is_refused_and_leaves_the_settings_alone(search, tmp_path):
    search()
    before = (tmp_path / "run/config.toml").read_bytes()
    with pytest.raises(StudyError, match="its seed is 2, not 3"):
        search(resume=True, seed=3)
    assert (tmp_path / "run/config.toml").read_bytes() == before


def test_the_callers_model_survives_whatever_happens(search, net):
    before = {name: value.clone() for name, value in net.state_dict().items()}

    def stop(progress):
        raise RuntimeError(os.getpid())

    with pytest.raises(RuntimeError):
        search(on_trial=stop)
    assert isinstance(net[0], nn.Linear)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
