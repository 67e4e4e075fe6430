"""Trials move to a changed space and to another run where they mean the same, and nowhere else."""

from __future__ import annotations

import shutil

import pytest
import torch

import paretobit as pb
from paretobit.errors import BadInput, StudyError
from paretobit.studies.study import Study
from paretobit.studies.trial import GIVEN

WIDTHS, MORE = [3, 4, 6], [4, 6, 8]


def space_of(widths, **fixed):
    return pb.Quantize(seed={"linear": {"weight_width": widths, **fixed}}, share="name")


def by_config(study):
    return {t.config: (t.metrics, t.seconds) for t in study}


@pytest.fixture
def search(net, val, tmp_path):
    """A search of the widths of three layers in the folder `run`; three of them are in both spaces."""

    def run(widths=WIDTHS, fixed=None, model=net, **arguments):
        table = {"val": val, "maximize": "accuracy", "minimize": "bitops", "out": tmp_path / "run", **arguments}
        return pb.search(model, space=space_of(widths, **(fixed or {})), **table)

    return run


@pytest.fixture
def snapshot(tmp_path):
    """Every file of the folder and what is in it, the lock aside."""

    def take(name="run"):
        files = (tmp_path / name).rglob("*")
        return {path: path.read_bytes() for path in files if path.is_file() and path.name != "study.lock"}

    return take


def test_a_changed_space_is_refused_by_name_and_nothing_is_written(search, snapshot):
    search()
    before = snapshot()
    with pytest.raises(StudyError, match=r"its space differs; --extend keeps the trials"):
        search(MORE, resume=True)
    assert snapshot() == before


def test_an_extended_brute_force_keeps_what_is_valid_and_runs_what_is_missing(search, tmp_path):
    old = by_config(search())
    new = search(MORE, resume=True, extend=True)
    given = [t for t in new if t.asked_after == GIVEN]
    assert len(given) == 2**3
    assert all((t.metrics, t.seconds) == old[t.config] for t in given), "they were not run again"
    assert len(new) == 3**3 == len({t.config for t in new})
    assert {c: m for c, (m, _) in by_config(new).items()} == {
        c: m for c, (m, _) in by_config(search(MORE, out=None)).items()
    }
    assert by_config(pb.Study.open(tmp_path / "run/study-before-1.db")) == old
    again = search([*MORE, 2], resume=True, extend=True)
    assert sum(t.asked_after == GIVEN for t in again) == 3**3
    assert by_config(pb.Study.open(tmp_path / "run/study-before-2.db")) == by_config(new)


def test_extending_by_nothing_is_resuming(search, tmp_path, rows):
    whole = rows(search())
    assert rows(search(resume=True, extend=True)) == whole
    assert not (tmp_path / "run/study-before-1.db").exists()


def test_an_extended_tpe_goes_on_with_what_it_was_given(search):
    table = {"strategy": "tpe", "n_trials": 12}
    search(**table)
    new = search(MORE, resume=True, extend=True, **table)
    given = [t for t in new if t.asked_after == GIVEN]
    assert 0 < len(given) < 12
    assert len(new) == len(given) + 12
    assert [t.number for t in new] == list(range(len(new)))


def test_a_fixed_part_that_changed_makes_trials_invalid(search):
    search(fixed={"weight_frac_width": 2})
    new = search(fixed={"weight_frac_width": 3}, resume=True, extend=True)
    assert len(new) == 27
    assert not [t for t in new if t.asked_after == GIVEN]


class Killed(BaseException):
    pass


def killed_after(trials):
    def on_trial(progress):
        if progress.done == trials:
            raise Killed

    return on_trial


def test_an_extended_study_that_was_cut_short_is_resumed_like_any_other(search, rows, tmp_path):
    table = {"strategy": "tpe", "n_trials": 12}
    search(**table)
    shutil.copytree(tmp_path / "run", tmp_path / "cut")
    whole = search(MORE, resume=True, extend=True, **table)
    cut = {"out": tmp_path / "cut", "resume": True, **table}
    with pytest.raises(Killed):
        search(MORE, extend=True, on_trial=killed_after(len(whole) - 3), **cut)
    assert rows(search(MORE, **cut)) == rows(whole)
    assert rows(search(MORE, extend=True, **cut)) == rows(whole), "--extend may stay on the command line"


@pytest.mark.parametrize("step", ["copy_to", "begin"])
def test_a_kill_while_a_study_is_extended_leaves_the_old_one_and_all_its_trials(search, tmp_path, monkeypatch, step):
    old = by_config(search())

    def dies(*_):
        raise Killed

    with monkeypatch.context() as killing:
        killing.setattr(Study, step, dies)
        with pytest.raises(Killed):
            search(MORE, resume=True, extend=True)
    assert by_config(pb.Study.open(tmp_path / "run")) == old
    new = search(MORE, resume=True, extend=True)
    assert sum(t.asked_after == GIVEN for t in new) == 8


def test_another_run_gives_its_trials_to_a_warm_start(search, tmp_path, rows):
    old = by_config(search())
    new = search(MORE, out=tmp_path / "warm", warm_start=tmp_path / "run")
    given = [t for t in new if t.asked_after == GIVEN]
    assert len(given) == 8
    assert all((t.metrics, t.seconds) == old[t.config] for t in given)
    assert len(new) == 27
    assert by_config(pb.Study.open(tmp_path / "run")) == old
    shutil.rmtree(tmp_path / "run")
    resumed = search(MORE, out=tmp_path / "warm", warm_start=tmp_path / "run", resume=True)
    assert rows(resumed) == rows(new), "the other run is not needed twice"


def test_a_warm_start_from_another_model_or_other_data_is_refused_and_nothing_is_written(
    search, net, val, tmp_path, snapshot
):
    search()
    torch.manual_seed(99)
    other = torch.nn.Sequential(
        *(torch.nn.Linear(m.in_features, m.out_features) for m in net if hasattr(m, "in_features"))
    )
    rows_of_another_set = (val[0] + 1, val[1])
    before = snapshot()
    cases = {"model": {"model": other}, "data": {"val": rows_of_another_set}}
    for what, changed in cases.items():
        with pytest.raises(BadInput, match=rf"do not compare: its fingerprints '{what}'") as caught:
            search(MORE, out=tmp_path / "warm", warm_start=tmp_path / "run", **changed)
        assert caught.value.exit_code == 2
        assert not (tmp_path / "warm").exists()
        with pytest.raises(BadInput, match=rf"do not compare: its fingerprints '{what}'"):
            search(MORE, resume=True, extend=True, **changed)
        assert snapshot() == before


def test_more_trials_may_be_added_to_a_finished_run(search, rows):
    short, whole = {"strategy": "tpe", "n_trials": 7}, {"strategy": "tpe", "n_trials": 15}
    first = rows(search(**short))
    longer = rows(search(resume=True, **whole))
    assert longer[:7] == first
    assert longer == rows(search(**{**whole, "out": None}))


def test_the_command_line_extends_warms_up_and_refuses(here):
    here.change("[3, 4, 6, 8]\nweight", "4\nweight")
    here.change('"tpe"', '"brute_force"')
    here.finish("-c", "search.toml", "-o", "run")
    config, old = (here / "run/config.toml").read_bytes(), here.seconds("run")
    here.change("weight_width = [3, 4, 6, 8]", "weight_width = [4, 8, 12]")
    code, said = here.run("-c", "search.toml", "-o", "run", "--resume")
    assert code == 1
    assert "its space differs" in said
    assert (here / "run/config.toml").read_bytes() == config, "the way back is open"
    checkpoint = str(here / "run/float/best/weights.safetensors")
    other = ["-o", "other", "--load", checkpoint, "--set", "data.seed=5", "--warm-start", "run"]
    code, said = here.run("-c", "search.toml", *other)
    assert code == 2
    assert "its fingerprints 'data' is" in " ".join(said.split())
    assert not (here / "other").exists()
    here.finish("-c", "search.toml", "-o", "run", "--resume", "--extend")
    assert len(here.rows("run")) == 9
    kept = set(here.seconds("run").values()) & set(old.values())
    assert len(kept) == 4


def test_another_function_is_another_search(tmp_path):
    def first(candidate):
        return {"m": 1.0}

    def second(candidate):
        return {"m": 1.0}

    def search(evaluate):
        return pb.search(
            torch.nn.Linear(4, 2),
            evaluate=evaluate,
            example=torch.zeros(1, 4),
            space=pb.Quantize(by="type", seed={"linear": {"weight_width": [2, 8]}}),
            maximize="m",
            out=tmp_path / "run",
            resume=True,
        )

    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    assert len(search(first)) == 2
    torch.random.set_rng_state(state)
    with pytest.raises(pb.ParetoBitError, match="second"):
        search(second)
