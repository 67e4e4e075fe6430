"""Adding a part of each kind takes one file and one entry point; nothing of this package is touched."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paretobit.storage import read_tensors
from paretobit.studies.study import Study

ONE_FILE = {
    "format": '''
from dataclasses import dataclass
from paretobit.formats import FORMATS
from paretobit.formats.integer import Integer

@FORMATS.register("ext_format")
@dataclass(frozen=True)
class ExtFormat(Integer):
    """Integers, under a name of its own."""
    name = "ext_format"
''',
    "operation": """
from paretobit.graph.operations import OF_DATA, OPERATIONS, Operation

OPERATIONS.register("ext_bessel", summary="Bessel function")(
    Operation("elementwise", OF_DATA, aliases=("special_bessel_j0",))
)
""",
    "pass": '''
import torch
from paretobit.passes.registry import PASSES
from paretobit.passes.taking import takes

@PASSES.register("ext_pass")
@takes()
def zero(graph, table):
    """Sets every parameter to zero."""
    with torch.no_grad():
        parameters = list(graph.model.parameters())
        for parameter in parameters:
            parameter.zero_()
    return graph, {"zeroed": len(parameters)}
''',
    "runner": '''
from paretobit.trials.runners import RUNNERS, Runner
from paretobit.wanted.metric import Metric

@RUNNERS.register("ext_runner")
class Negative(Runner):
    """How many weights are negative."""
    metrics = (Metric("negative_weights", "minimize", "weights"),)

    def measure(self, candidate):
        return {"negative_weights": float(sum(int((p < 0).sum()) for p in candidate.applied.parameters()))}
''',
    "strategy": '''
from paretobit.strategies import STRATEGIES, Strategy

@STRATEGIES.register("ext_strategy")
class Backwards(Strategy):
    """Every configuration, the last one first."""
    def __init__(self, problem, seed, settings):
        super().__init__(problem, seed, settings)
        self.left = list(range(problem.tree.size))

    def ask(self, n):
        return [self.problem.tree.at(self.left.pop()) for _ in range(min(n, len(self.left)))]

    def learn(self, trials):
        pass

    def tell(self, trials):
        pass
''',
    "space": '''
import torch
from paretobit.spaces import SPACES, BoundSpace, Space
from paretobit.spaces.knobs import Knob, Tree

@SPACES.register("ext_space")
class Silence(Space):
    """Whether the last bias is zero."""
    name = "ext_space"

    def bind(self, graph, calibration=None):
        return BoundSilence(graph)

    @staticmethod
    def explain(described, config):
        return {"silent": {"config": {"on": config["silent"]}}}

class BoundSilence(BoundSpace):
    name = "ext_space"
    dropped, unmatched = (), ()

    def __init__(self, graph):
        super().__init__(graph)
        self.tree = Tree((Knob.of("silent", [False, True]),))
        self.last = graph.layers[-1].owner
        self.matched = (graph.layers[-1].name,)

    def instrument(self, model):
        pass

    def apply(self, prepared, config):
        on = config is not None and config["silent"]
        with torch.no_grad():
            bias = self._graph.model.get_submodule(self.last).bias
            prepared.get_submodule(self.last).bias.copy_(torch.zeros_like(bias) if on else bias)
        return prepared

    def describe(self):
        return {}
''',
    "engine": '''
from pathlib import Path
from paretobit.session.engines import ENGINES, SerialEngine

@ENGINES.register("ext_engine")
class Noted(SerialEngine):
    """Serial, and writes down how much it was given."""
    def submit(self, config, bar=None):
        with Path("submitted").open("a") as file:
            file.write("x")
        super().submit(config, bar)
''',
    "figure": '''
from paretobit.report.figures.registry import FIGURES, figure
from paretobit.report.figures.style import Picture

@FIGURES.register("ext_figure", summary="how many trials there are")
@figure("ext_figure")
def counts(runs, asked):
    """How many trials there are."""
    count = len(runs.study)
    return Picture(f"{count} of them.", lambda canvas: canvas.subplots().bar(["trials"], [count]))
''',
}
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 8), nn.Linear(8, 10)

    def forward(self, x):
        return self.second(torch.special.bessel_j0(self.first(x.flatten(1))))

def make():
    return Net()
"""
SEARCH = """
model = "net.py:make"
data = "digits"
[train]
max_epochs = 1
batch_size = 1024
[passes.ext_pass]
[search]
maximize = "accuracy"
minimize = ["bitops", "negative_weights"]
strategy = "ext_strategy"
engine = "ext_engine"
[search.runners]
basic_evaluation = {num_samples = 64}
basic_computation = {}
ext_runner = {}
[search.space]
name = ["quantize", "ext_space"]
[search.space.quantize.seed.linear]
name = ["ext_format", "integer"]
data_in_width = 6
weight_width = 6
bias_width = 6
[search.space.quantize.seed.ext_bessel]
name = "integer"
data_in_width = [4, 8]
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What commands say in fresh processes that find a package of each kind among the installed ones."""
    assert all(text.count(".register(") == 1 for text in ONE_FILE.values())
    here = tmp_path_factory.mktemp("extension")
    site = here / "site"
    for kind, text in ONE_FILE.items():
        (site / f"a_{kind}").mkdir(parents=True)
        (site / f"a_{kind}" / "__init__.py").write_text(text)
        info = site / f"a_{kind}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: a-{kind}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[paretobit.plugins]\nmine = a_{kind}\n")
    (here / "net.py").write_text(NET)
    (here / "search.toml").write_text(SEARCH)
    said = {
        "search": _json(here, "search", "-c", "search.toml", "-o", "run"),
        "transform": _json(here, "transform", "-c", "search.toml", "-o", "transformed"),
        "report": _json(here, "report", "run", "--figure", "ext_figure"),
        "list": _json(here, "list"),
    }
    return {**said, "folder": here}


def _json(here: Path, *arguments: str) -> object:
    command = [sys.executable, "-c", "from paretobit.cli.main import main; main()", *arguments, "--json"]
    path = os.pathsep.join([str(here / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(
        command, cwd=here, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert ran.returncode == 0, ran.stderr
    assert "warning" not in ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def rows(done):
    with (done["folder"] / "run/trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_format_is_a_choice_like_any_other(rows):
    assert {row["first.name"] for row in rows} == {"ext_format", "integer"}
    assert all(row["state"] == "complete" for row in rows)
    alike = {}
    for row in rows:  # it rounds as integers do
        key = tuple(value for name, value in row.items() if name.startswith(("silent", "bessel")))
        alike.setdefault(key, set()).add((row["accuracy"], row["negative_weights"]))
    assert alike
    assert all(len(measured) == 1 for measured in alike.values())


def test_an_operation_is_quantised(rows):
    assert {row[name] for row in rows for name in row if "bessel" in name} == {"4", "8"}


def test_a_pass_changes_the_model(done):
    (file,) = (done["folder"] / "transformed").rglob("weights.safetensors")
    weights = read_tensors(file)
    assert len(weights) == 4
    assert not any(tensor.any() for tensor in weights.values())


def test_a_runner_measures(rows):
    assert all(0 < float(row["negative_weights"]) < 64 * 8 + 8 + 8 * 10 + 10 for row in rows)


def test_a_strategy_proposes(rows):
    assert [row["silent"] for row in rows[:2]] == ["True", "False"], "the last configuration came first"


def test_a_space_acts(rows):
    by = {on: {r["negative_weights"] for r in rows if r["silent"] == on} for on in ("True", "False")}
    assert max(map(float, by["True"])) < min(map(float, by["False"])), "a bias of zero has no negative values"


def test_an_engine_runs_the_trials(rows, done):
    assert (done["folder"] / "submitted").read_text() == "x" * len(rows)


def test_a_figure_is_drawn(rows, done):
    assert (done["folder"] / "run/report/ext_figure.png").stat().st_size > 1000
    assert f"{len(rows)} of them." in json.dumps(done["report"])


@pytest.mark.parametrize("kind", ["formats", "passes", "runners", "strategies", "spaces", "engines", "figures"])
def test_it_is_listed(kind, done):
    names = [row["name"] for row in done["list"][kind] if row["name"].startswith("ext_")]
    assert len(names) == 1


def test_the_study_says_which_packages_took_part(done):
    with Study.open(done["folder"] / "run") as study:
        found = {plugin["name"]: Path(plugin["file"]).is_file() for plugin in study.facts["plugins"]}
    assert found == {f"a_{kind}": True for kind in ONE_FILE}
