"""The study remembers every committed trial, says what is wrong with its file, and answers questions."""

import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from users import someone_else

from paretobit.errors import BadInput, ParetoBitError, StudyError
from paretobit.spaces.knobs import Config
from paretobit.studies.study import Study
from paretobit.studies.study_file import SCHEMA_VERSION
from paretobit.studies.trial import Trial
from paretobit.wanted.front import dominates
from paretobit.wanted.objectives import Objective


def trial(number, state="complete", **metrics):
    return Trial(number, Config({"a": number, "kind": None, "flag": True}), state, metrics, seed=number)


def with_facts(study, **facts):
    study.record(
        objectives=[Objective.of("accuracy", "maximize").to_json()],
        baseline={"accuracy": 0.9, "total_bitops": 100.0},
        short_names={"bitops": "total_bitops"},
        **facts,
    )
    return study


def test_what_was_added_is_there_when_the_file_is_opened_again(tmp_path):
    trials = [
        replace(trial(0, accuracy=0.1 + 0.2, cost=3.0), asked_after=0, seconds=0.25),
        Trial(1, Config({"a": 1}), "failed", {}, "Traceback …\nboom", None, 2**31 - 1, 1, 0.5),
        Trial(2, Config({"a": 1}), "failed", {}, "Traceback …\nboom", 1, 5, 2, 0.0),
        Trial(3, Config({"a": 2.5}), "infeasible", {"cost": 1e300}, None, None, 6, 1, 0.0),
    ]
    with Study(tmp_path / "study.db") as study:
        for t in trials:
            study.add(t)
        assert list(study) == trials
    with Study.open(tmp_path) as again:
        assert list(again) == trials
        assert again[0].metrics["accuracy"] == 0.1 + 0.2
        assert [type(v) for v in again[0].config.values()] == [int, type(None), bool]
        assert again.counts() == {"complete": 1, "infeasible": 1, "duplicate": 0, "stopped": 0, "failed": 2}


def test_find_gives_the_first_trial_of_a_configuration(tmp_path):
    config = Config({"a": 1})
    with Study(tmp_path / "s.db") as study:
        assert study.find(config) is None
        study.add(Trial(0, config, "complete", {"m": 1.0}))
        study.add(Trial(1, config, "duplicate", {"m": 1.0}, duplicate_of=0))
        assert study.find(Config({"a": 1})).number == 0
        assert study.find(Config({"a": True})) is None
    with Study(tmp_path / "s.db") as study:
        assert study.find(config).number == 0


@pytest.mark.parametrize("number", [0, 2, -1])
def test_numbers_are_consecutive(number):
    study = Study()
    study.add(trial(0))
    with pytest.raises(StudyError, match="cannot follow"):
        study.add(trial(number))
    assert len(study) == 1


def test_a_number_that_is_no_trial_is_refused():
    with pytest.raises(BadInput, match="none yet"):
        Study()[0]
    study = Study()
    study.add(trial(0))
    with pytest.raises(BadInput, match="0 to 0"):
        study[1]


def test_facts_are_kept_and_replaced(tmp_path):
    with Study(tmp_path / "s.db") as study:
        study.record(a=1, b={"x": [1, None]})
        study.record(a=2)
    with Study(tmp_path / "s.db") as study:
        assert dict(study.facts) == {"a": 2, "b": {"x": [1, None]}}


def test_facts_are_recorded_all_or_none(tmp_path):
    with Study(tmp_path / "s.db") as study:
        study.record(a=1)
        with pytest.raises(TypeError):
            study.record(a=2, b=object())
        assert dict(study.facts) == {"a": 1}
    with Study(tmp_path / "s.db") as study:
        assert dict(study.facts) == {"a": 1}


def test_the_study_stays_readable_after_it_is_closed():
    study = Study()
    study.add(trial(0, accuracy=1.0))
    study.close()
    assert study[0].metrics == {"accuracy": 1.0}
    with pytest.raises(StudyError):
        study.add(trial(1))
    assert len(study) == 1


WRITER = """
import sys
from paretobit.spaces.knobs import Config
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial
with Study(sys.argv[1]) as study:
    for number in range(len(study), 10**6):
        study.add(Trial(number, Config({"a": number}), "complete", {"m": number / 7}, seed=number))
        print(number, flush=True)
"""


def test_a_kill_loses_no_committed_trial(tmp_path):
    path, committed = tmp_path / "s.db", -1
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as writer:
            for line in writer.stdout:
                committed = int(line)
                if committed % 300 == 299:
                    break
            os.kill(writer.pid, signal.SIGKILL)
            for line in writer.stdout:
                committed = int(line) if line.endswith("\n") else committed
        with Study(path) as study:
            assert len(study) in (committed + 1, committed + 2)  # a commit may precede its line
            assert all(t.number == i and t.metrics == {"m": i / 7} for i, t in enumerate(study))
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()
    assert committed >= 599


def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path):
    path = tmp_path / "s.db"
    with Study(path) as first, Study(path) as second:
        first.add(trial(0, m=1.0))
        with pytest.raises(StudyError, match=r"s\.db"):
            second.add(trial(0, m=2.0))
        first.add(trial(1, m=3.0))
    with Study(path) as study:
        assert [t.metrics["m"] for t in study] == [1.0, 3.0]


def test_a_locked_study_says_so(tmp_path):
    path = tmp_path / "s.db"
    with Study(path) as study:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StudyError, match=r"s\.db.*locked"):
            study.add(trial(0))
        other.execute("ROLLBACK")
        other.close()
        study.add(trial(0))
        assert len(study) == 1


def spoil_with_text(path):
    path.write_text("this is no database, however long it may be. " * 100)


def spoil_pages(path):
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xa5" * (len(raw) - 4096)
    path.write_bytes(raw)


def spoil_with(*statements):
    def spoil(path):
        with sqlite3.connect(path) as db:
            for statement in statements:
                db.execute(statement)
        db.close()

    return spoil


def another_database(path):
    path.unlink()
    spoil_with("CREATE TABLE recipes (name TEXT)")(path)


def another_database_of_this_version(path):
    path.unlink()
    spoil_with("CREATE TABLE recipes (name TEXT)", f"PRAGMA user_version = {SCHEMA_VERSION}")(path)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_with_text,
        spoil_pages,
        another_database,
        another_database_of_this_version,
        spoil_with(f"PRAGMA user_version = {SCHEMA_VERSION + 1}"),
        spoil_with("UPDATE trials SET metrics = '{broken' WHERE number = 1"),
        spoil_with("UPDATE facts SET value = 'broken'"),
        spoil_with("DELETE FROM trials WHERE number = 1"),
        spoil_with("DELETE FROM trials WHERE number = 0"),
        spoil_with("UPDATE trials SET config = 'broken' WHERE number = 1"),
        spoil_with("UPDATE trials SET state = 'broken' WHERE number = 1"),
        spoil_with("UPDATE words SET word = '3' WHERE number = 1"),
    ],
    ids=[
        *("text", "pages", "other", "other-same-version", "newer", "trial", "fact", "gap"),
        *("no first", "config", "state", "word"),
    ],
)
def test_a_spoilt_file_is_refused_by_name(tmp_path, spoil):
    path = tmp_path / "mine.db"
    with Study(path) as study:
        study.record(a=1)
        for i in range(100):
            study.add(trial(i, accuracy=i / 7))
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(StudyError, match=r"mine\.db"):
        Study(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("place", ["", "nothing.db"])
def test_opening_what_is_not_there_is_refused_and_makes_nothing(tmp_path, place):
    with pytest.raises(BadInput, match="no study here"):
        Study.open(tmp_path / place)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_may_not_be_written_is_named():
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o555)
        with someone_else(), pytest.raises(StudyError, match=r"new\.db"):
            Study(folder / "new.db")
        assert not list(folder.iterdir())
    finally:
        shutil.rmtree(folder)


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(StudyError, match="nowhere"):
        Study(tmp_path / "nowhere" / "s.db")


@pytest.mark.parametrize("in_folder", [True, False], ids=["folder", "file"])
def test_a_study_that_may_not_be_written_is_refused_by_name(in_folder):
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "mine.db"
        with Study(path) as study:
            study.add(trial(0, m=1.0))
        path.chmod(0o444)
        folder.chmod(0o555 if in_folder else 0o777)
        with someone_else(), pytest.raises(StudyError, match=r"mine\.db"), Study(path) as study:
            study.add(trial(1))
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_best_answers_questions_in_full_and_short_names():
    study = with_facts(Study())
    for i, (accuracy, bitops) in enumerate([(0.90, 80), (0.895, 40), (0.85, 10), (0.89, 60)]):
        study.add(trial(i, accuracy=accuracy, total_bitops=float(bitops)))
    assert study.best().number == 0
    assert study.best("min bitops").number == 2
    assert study.best("min total_bitops s.t. accuracy >= baseline - 0.01").number == 1
    assert study.best("min bitops s.t. accuracy >= baseline - 0.01 and bitops >= baseline / 2").number == 3
    assert study.best("max accuracy s.t. bitops < 80").number == 1


def test_best_breaks_ties_by_the_other_objectives_then_by_number():
    study = Study()
    study.record(
        objectives=[Objective.of("accuracy", "maximize").to_json(), Objective.of("cost", "minimize").to_json()],
        baseline={"accuracy": 1.0, "cost": 9.0, "time": 1.0},
    )
    for i, (accuracy, cost, time_) in enumerate([(0.8, 5, 1), (0.9, 5, 1), (0.9, 3, 2), (0.9, 3, 1)]):
        study.add(trial(i, accuracy=accuracy, cost=float(cost), time=float(time_)))
    assert study.best().number == 2
    assert study.best("min time").number == 1 + 2  # accuracy alike, then cost
    assert study.best("min cost").number == 2


def test_only_complete_trials_answer_and_stand_on_the_front():
    study = with_facts(Study())
    study.add(trial(0, "infeasible", accuracy=0.99, total_bitops=1.0))
    study.add(trial(1, "failed"))
    study.add(trial(2, accuracy=0.5, total_bitops=9.0))
    study.add(trial(3, "duplicate", accuracy=0.5, total_bitops=9.0))
    assert study.best().number == 2
    assert [t.number for t in study.front()] == [2]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("min bitops s.t. accuracy >= 0.99", r"no trial satisfies it \(1 feasible trials\).*accuracy >= 0.99"),
        ("min bitop", "did you mean 'bitops'"),
        ("min bitops s.t. acuracy > 0", "did you mean 'accuracy'"),
        ("bitops, please", "not a question"),
    ],
)
def test_a_question_without_an_answer_is_refused(question, message):
    study = with_facts(Study())
    study.add(trial(0, accuracy=0.5, total_bitops=9.0))
    with pytest.raises(BadInput, match=message):
        study.best(question)


def test_an_empty_study_has_no_best_trial_and_an_empty_front():
    study = with_facts(Study())
    assert study.front() == ()
    with pytest.raises(BadInput, match="any feasible trial"):
        study.best()


def test_a_trial_read_without_its_model_says_how_to_load_it():
    study = Study()
    study.add(trial(0))
    with pytest.raises(ParetoBitError, match=r"paretobit\.load"):
        study[0].model()


def test_thousands_of_trials_open_quickly_and_stay_small(tmp_path):
    path, count = tmp_path / "s.db", 5000
    config = {f"seq_blocks_{i}.{slot}_{p}": 8 for i in (2, 4, 6) for slot in ("data_in", "weight") for p in "wf"}
    with Study(path) as study:
        for i in range(count):
            metrics = dict.fromkeys(("accuracy", "loss", "total_bitops", "total_flops", "model_size"), i / 7)
            study.add(Trial(i, Config({**config, "number": i}), "complete", metrics, None, None, i, i, i / 3))
    assert path.stat().st_size / count * 100_000 < 100e6
    start = time.perf_counter()
    with Study(path) as study:
        assert len(study) == count
        assert study.find(Config({**config, "number": 4321})).number == 4321
    assert time.perf_counter() - start < 1.0


def test_a_study_of_the_version_before_is_refused_with_both_versions(tmp_path):
    path = tmp_path / "s.db"
    with Study(path) as study:
        study.add(trial(0, m=1.0))
    spoil_with("PRAGMA user_version = 1")(path)
    for opened in (Study, Study.open):
        with pytest.raises(StudyError, match=f"not a study of this version .schema 1, not {SCHEMA_VERSION}"):
            opened(path)


def test_a_row_with_words_that_are_not_there_is_named_when_it_is_asked_for(tmp_path):
    path = tmp_path / "s.db"
    with Study(path) as study:
        for i in range(3):
            study.add(trial(i, m=1.0))
    spoil_with("DELETE FROM words WHERE number = 0")(path)
    with Study.open(path) as study, pytest.raises(StudyError, match=r"s\.db cannot be used: trial 0 is damaged"):
        study[0]


@pytest.mark.parametrize("value", [math.inf, -math.inf, 0.1 + 0.2, 5e-324, 1e300, -0.0, 2**60, 7])
def test_numbers_of_every_size_come_back_as_they_were(tmp_path, value):
    with Study(tmp_path / "s.db") as study:
        study.add(trial(0, m=value, n=1.0))
        assert study[0].metrics == {"m": value, "n": 1.0}
    with Study.open(tmp_path / "s.db") as study:
        assert study[0].metrics["m"] == value
        assert type(study[0].metrics["m"]) is type(value)
        assert math.copysign(1, study[0].metrics["m"]) == math.copysign(1, value)


def test_values_that_are_equal_and_of_other_types_are_told_apart(tmp_path):
    values = [1, 1.0, True, "1", None, "None", 0, False]
    with Study(tmp_path / "s.db") as study:
        for i, value in enumerate(values):
            study.add(Trial(i, Config({"a": value, "b": 0}), "complete", {"m": float(i)}))
    with Study.open(tmp_path / "s.db") as study:
        assert [(type(t.config["a"]), t.config["a"]) for t in study] == [(type(v), v) for v in values]
        assert [study.find(Config({"a": value, "b": 0})).number for value in values] == list(range(len(values)))
        assert study.find(Config({"b": 0, "a": 1})) is None, "in another order it is another one"
        assert study.find(Config({"a": 2, "b": 0})) is None


def test_what_could_not_be_written_leaves_nothing_in_memory(tmp_path):
    path = tmp_path / "s.db"
    with Study(path) as study:
        study.add(trial(0, m=1.0))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StudyError):
            study.add(Trial(1, Config({"new": "word"}), "complete", {"other": 1.0}))
        other.execute("ROLLBACK")
        other.close()
        assert len(study) == 1
        assert study.find(Config({"new": "word"})) is None
        assert study.counts()["complete"] == 1
        study.add(Trial(1, Config({"another": "word"}), "complete", {"m": 2.0}))
        study.add(Trial(2, Config({"new": "word"}), "complete", {"other": 1.0}))
        expected = list(study)
    with Study.open(path) as study:
        assert list(study) == expected


def test_the_front_follows_new_trials_and_new_objectives():
    study, draw = with_facts(Study()), random.Random(3)
    objectives = [Objective.of("accuracy", "maximize"), Objective.of("total_bitops", "minimize")]
    study.record(objectives=[o.to_json() for o in objectives])

    def by_hand(chosen):
        complete = [t for t in study if t.state == "complete"]
        losses = {t.number: tuple(o.loss(t.metrics) for o in chosen) for t in complete}
        kept = [n for n, loss in losses.items() if not any(dominates(other, loss) for other in losses.values())]
        return sorted(kept, key=lambda n: (losses[n], n))

    for i in range(120):
        state = draw.choice(["complete", "complete", "infeasible"])
        study.add(trial(i, state, accuracy=draw.randrange(12), total_bitops=draw.randrange(12)))
        if i % 7 == 0:
            assert [t.number for t in study.front()] == by_hand(objectives)
    assert [t.number for t in study.front()] == by_hand(objectives)
    study.record(objectives=[objectives[1].to_json()])
    assert [t.number for t in study.front()] == by_hand(objectives[1:])


def test_a_tiny_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "study.db"
    path.write_bytes(b"hello")
    with pytest.raises(StudyError, match="not a study"):
        Study.open(path)
    assert path.read_bytes() == b"hello"
