"""A part of any kind is one file in a package of its own, found through its entry point."""

import json
import subprocess
import sys

import pytest

HEAD = """
from dataclasses import dataclass
from typing import ClassVar
"""
KINDS = {
    "format": (
        """
from paretobit.formats.base import FORMATS
from paretobit.formats.log import Log

@FORMATS.register("mine")
@dataclass(frozen=True)
class Mine(Log):
    '''Powers of two.'''
    name: ClassVar[str] = "mine"
""",
        """
import torch
from paretobit.formats import parse
assert parse("mine(width=4)").quantize(torch.tensor([0.3])).item() == 0.25
""",
    ),
    "operation": (
        """
from paretobit.graph.operations import OF_DATA, OPERATIONS, Operation

OPERATIONS.register("airy", summary="Airy function")(
    Operation("elementwise", OF_DATA, aliases=("special_airy_ai",))
)
""",
        """
import torch
from torch import nn
from paretobit.passes.layers.quantizable import slots_at, unsupported

class Net(nn.Module):
    def forward(self, x):
        return torch.special.airy_ai(x)

graph = pb.trace(Net(), torch.ones(1, 3))
(node,) = [node for node in graph if node.op == "airy"]
assert slots_at(graph, node) == ("data_in",) and unsupported(graph) == {}
""",
    ),
    "pass": (
        """
from paretobit.passes.registry import PASSES
from paretobit.passes.taking import takes
from paretobit.schemas import Schema

class Settings(Schema):
    '''No keys.'''

@PASSES.register("mine", summary="nothing")
@takes(Settings)
def nothing(graph, table):
    '''The graph as it was.'''
    return graph, {"did": "nothing"}
""",
        """
from paretobit.passes.transform import PASSES
assert PASSES["mine"]("graph", {}) == ("graph", {"did": "nothing"})
""",
    ),
    "runner": (
        """
from paretobit.trials.runners.base import RUNNERS, Runner
from paretobit.wanted.metric import Metric

@RUNNERS.register("mine")
class Mine(Runner):
    '''Parameters.'''
    metrics = (Metric("parameters", "minimize", "numbers"),)

    def measure(self, candidate):
        return {"parameters": float(sum(p.numel() for p in candidate.applied.parameters()))}
""",
        """
study = search(runners={"basic_evaluation": {}, "mine": {}}, minimize=["loss", "parameters"])
assert study.baseline["parameters"] == 8 * 3 + 3
""",
    ),
    "strategy": (
        """
from paretobit.strategies.base import STRATEGIES, Strategy

@STRATEGIES.register("mine")
class Mine(Strategy):
    '''The last configuration alone.'''
    asked = False

    def ask(self, n):
        last, self.asked = not self.asked, True
        return [self.problem.tree.at(self.problem.tree.size - 1)] if last else []

    def learn(self, trials):
        pass

    def tell(self, trials):
        pass
""",
        """
study = search(strategy="mine")
assert [dict(trial.config) for trial in study] == [{"0.weight_width": 6}]
""",
    ),
    "space": (
        """
import torch
from paretobit.spaces.base import SPACES, BoundSpace, Space
from paretobit.spaces.knobs import Knob, Tree

@SPACES.register("mine")
class Mine(Space):
    '''A shift of the bias.

    Args:
        shifts: To choose from.
    '''
    name = "mine"

    def __init__(self, *, shifts: list[float]) -> None:
        self.shifts = shifts

    def bind(self, graph, calibration=None):
        return Bound(self, graph)

    @staticmethod
    def explain(described, config):
        return {"mine": {"config": dict(config)}}

class Bound(BoundSpace):
    name, dropped = "mine", ()

    def __init__(self, space, graph):
        super().__init__(graph)
        self.tree = Tree((Knob.of("shift", space.shifts),))
        self.matched, self.unmatched = (), ()

    def instrument(self, model):
        pass

    def apply(self, prepared, config):
        with torch.no_grad():
            shift = 0.0 if config is None else config["shift"]
            prepared[0].bias.copy_(self._graph.model[0].bias.detach() + torch.tensor([shift, 0, 0]))
        return prepared

    def describe(self):
        return {}
""",
        """
from paretobit.spaces import SPACES
study = search(space=SPACES["mine"].from_settings({"shifts": [0.0, 5.0]}))
assert len({trial.metrics["loss"] for trial in study}) == 2
assert study[0].metrics["loss"] == study.baseline["loss"]
""",
    ),
    "engine": (
        """
from paretobit.session.engines import ENGINES, SerialEngine

@ENGINES.register("mine")
class Mine(SerialEngine):
    '''Counts.'''
    count = 0

    def submit(self, config, bar=None):
        Mine.count += 1
        super().submit(config, bar)
""",
        """
from paretobit.session.engines import ENGINES
assert len(search(engine="mine")) == ENGINES["mine"].count == 2
""",
    ),
    "figure": (
        """
from paretobit.report.figures.registry import FIGURES, figure
from paretobit.report.figures.style import Picture

@FIGURES.register("mine")
@figure("mine")
def mine(runs, asked):
    '''Nothing.'''
    return Picture("Nothing to see.", lambda canvas: None)
""",
        """
import sys
from paretobit.cli.main import main
search(out="run")
sys.argv = ["paretobit", "report", "run", "--figure", "mine", "-q"]
try:
    main()
except SystemExit as done:
    assert not done.code
from pathlib import Path
assert list(Path("run/report").glob("mine*.png"))
""",
    ),
}
USE = """
import torch
import paretobit as pb

def search(**given):
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Linear(8, 3)), torch.randn(20, 8)
    seed = {"linear": {"weight_width": [3, 6], "weight_frac_width": 2}}
    asked = {"minimize": "loss", "space": pb.Quantize(seed=seed), **given}
    return pb.search(model, val=(x, torch.arange(20) % 3), **asked)

from paretobit.plugins import load_installed
load_installed()
"""


RUN = """
import json, traceback
from pathlib import Path

told = {}
for kind, use in json.loads(Path("use.json").read_text()).items():
    try:
        exec(use, dict(globals()))
        told[kind] = ""
    except Exception:
        told[kind] = traceback.format_exc()
Path("told.json").write_text(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Kind of part to what using it raised, in a fresh process where a package of each kind is installed."""
    folder = tmp_path_factory.mktemp("packages")
    for kind, (adds, _) in KINDS.items():
        package, about = folder / f"own_{kind}", folder / f"own_{kind}-1.0.dist-info"
        package.mkdir()
        about.mkdir()
        (package / "__init__.py").write_text("")
        (package / "parts.py").write_text(HEAD + adds.replace('"mine"', f'"mine_{kind}"'))
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: own-{kind}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[paretobit.plugins]\nparts = own_{kind}.parts\n")
    uses = {kind: use.replace('"mine', f'"mine_{kind}') for kind, (_, use) in KINDS.items()}
    (folder / "use.json").write_text(json.dumps(uses))
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{USE}\n{RUN}"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "told.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_any_kind_is_one_file_of_an_installed_package(kind, told):
    assert told[kind] == ""
