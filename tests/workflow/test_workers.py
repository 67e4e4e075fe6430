"""Workers change how long a search takes and nothing else, from whatever kind of Python it is called."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest
from forked import Forked

import paretobit as pb

N_TRIALS = 24


@pytest.fixture
def search(net, val, space):
    def run(**arguments):
        table = {"maximize": "accuracy", "minimize": "bitops", "n_trials": N_TRIALS, "seed": 5, **arguments}
        return pb.search(net, space=space, val=val, **table)

    return run


def trials(study):
    """The list of trials, and what each measured."""
    return [(t.number, t.config, t.state, t.metrics, t.seed, t.duplicate_of) for t in study]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [{"name": "brute_force", "order": "shuffled"}, "random", "grid"], ids=str)
def test_strategies_that_do_not_learn_give_the_same_trials_with_any_engine(search, strategy):
    one = trials(search(strategy=strategy))
    assert len(one) == N_TRIALS
    assert trials(search(strategy=strategy, workers=2)) == one


@pytest.mark.slow
def test_a_strategy_that_learns_gives_the_same_trials_for_the_same_number_of_workers(search, rows):
    """One worker is asked as no worker is; that two give what two gave, killed or not, is a promise of durability."""
    assert rows(search(strategy="tpe", engine="processes")) == rows(search(strategy="tpe"))
    first = search(strategy="tpe", workers=2)
    serially = {t.config: t.metrics for t in search(strategy="brute_force", n_trials=None)}
    assert {t.config: t.metrics for t in first} == {t.config: serially[t.config] for t in first}


def test_a_study_of_two_workers_may_be_finished_by_another_number(search, tmp_path):
    def stop(progress):
        if progress.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(strategy="tpe", workers=2, out=tmp_path / "run", on_trial=stop)
    study = search(strategy="tpe", workers=1, out=tmp_path / "run", resume=True)
    assert len(study) == N_TRIALS


NEIGHBOUR = """
from torch import nn

class Net(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.first, self.second = nn.Linear(features, 12), nn.Linear(12, classes)

    def forward(self, x):
        return self.second(self.first(x.flatten(1)).relu())

def make(num_classes):
    return Net(64, num_classes)
"""
SCRIPT = """
import sys
import torch
from torch import nn
import paretobit as pb
from neighbour import Net

class Own(Net):
    def forward(self, x):
        print("a forward pass")
        return super().forward(x)

torch.manual_seed(0)
x, y = torch.randn(50, 6), torch.randint(0, 3, (50,))
offset = float(sys.argv[1])

def evaluate(model):
    with torch.no_grad():
        return {"right": offset + (model(x).argmax(1) == y).float().mean().item()}

def found(**more):
    space = pb.Quantize(seed={"linear": {"weight_width": [2, 4]}})
    study = pb.search(Own(6, 3), space=space, evaluate=evaluate, example=x[:1], maximize="right", **more)
    return [(dict(t.config), t.metrics["right"]) for t in study]

torch.manual_seed(1)
one = found()
torch.manual_seed(1)
assert found(workers=2) == one, "workers found something else"
assert all(value >= 100 for _, value in one) and len(one) == 4
"""


def python(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("given_as", ["file", "text"])
def test_a_plain_script_needs_no_guard_and_may_define_or_import_what_it_searches(tmp_path, given_as):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "neighbour.py").write_text(NEIGHBOUR)
    (home / "script.py").write_text(SCRIPT)
    script, cwd = ((home / "script.py",), elsewhere) if given_as == "file" else (("-c", SCRIPT), home)
    done = python(*script, 100, cwd=cwd)
    assert "a forward pass" in done.stderr, "what workers print goes to standard error"


LAMBDAS = """
import torch
from torch import nn
import paretobit as pb
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(6, 4))
x = torch.randn(5, 6)
space = pb.Quantize(seed={"linear": {"weight_width": [2, 4]}})
measure = lambda model: {"size": model(x).abs().sum().item() * shift()}
shift = lambda: 2.0
arguments = dict(space=space, evaluate=measure, example=x, minimize="size")
assert [t.metrics for t in pb.search(net, engine="processes", **arguments)] == [
    t.metrics for t in pb.search(net, **arguments)
]
"""


def test_lambdas_and_what_they_refer_to_travel_to_workers(tmp_path):
    python("-c", LAMBDAS, cwd=tmp_path)


FROM_FILE = """
import talking

def make(num_classes):
    return talking.make(num_classes)
"""


@pytest.mark.slow
def test_a_model_of_a_users_file_is_searched_by_workers_and_what_it_prints_stays_out_of_the_json(here):
    talking = NEIGHBOUR.replace("return self", "print('passing'); return self")
    (here / "talking.py").write_text(talking)
    (here / "models.py").write_text(FROM_FILE)
    here.change("slow.py:make", "models.py:make")
    here.change("n_trials = 40", "n_trials = 4")
    assert here.run("-c", "search.toml", "-o", "trained")[0] == 0
    checkpoint = str(here / "trained/float/best/weights.safetensors")
    process = Forked(
        here.path, ["search", "--json", "-c", "search.toml", "-o", "loaded", "-w", "2", "--load", checkpoint]
    )
    out, said = process.communicate()
    assert process.returncode == 0, said
    assert json.loads(out)["trials"]["failed"] == 0
    assert "passing" in said
    one, two = here.rows("trained"), here.rows("loaded")
    assert two[0] == one[0]


def test_a_search_outside_the_main_thread_works_with_workers(search):
    found = []
    arguments = {"strategy": "brute_force", "n_trials": 4, "workers": 2}
    thread = Thread(target=lambda: found.append(trials(search(**arguments))))
    thread.start()
    thread.join()
    assert found == [trials(search(strategy="brute_force", n_trials=4))]
