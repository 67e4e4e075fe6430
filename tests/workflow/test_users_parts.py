"""One file of a user's adds a part of every kind; one TOML uses them all, wherever trials run."""

import signal

import pytest
from forked import Forked

import paretobit as pb

MINE = '''
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from paretobit.errors import BadInput
from paretobit.formats.base import FORMATS, Description
from paretobit.formats.log import Log
from paretobit.graph.operations import OF_DATA, OPERATIONS, Operation
from paretobit.report.figures.registry import FIGURES, figure
from paretobit.report.figures.style import Picture
from paretobit.session.engines import ENGINES, ProcessEngine
from paretobit.spaces.base import SPACES, BoundSpace, Space
from paretobit.spaces.knobs import Knob, Tree
from paretobit.strategies.base import STRATEGIES, Strategy
from paretobit.trials.runners.base import RUNNERS, Runner
from paretobit.wanted.metric import Metric


@FORMATS.register("signed_powers")
@dataclass(frozen=True)
class SignedPowers(Log):
    """Powers of two, under a name of its own."""

    name: ClassVar[str] = "signed_powers"


OPERATIONS.register("bessel", summary="Bessel function")(
    Operation("elementwise", OF_DATA, aliases=("special_bessel_j0",))
)


@RUNNERS.register("largest_weight")
class LargestWeight(Runner):
    """Largest absolute value of a parameter."""

    metrics = (Metric("largest_weight", "minimize", "as stored"),)

    def measure(self, candidate):
        return {"largest_weight": max(float(p.detach().abs().max()) for p in candidate.applied.parameters())}


@SPACES.register("shrink")
class Shrink(Space):
    """A factor on the bias of the last layer.

    Args:
        factors: To choose from.
    """

    name = "shrink"

    def __init__(self, *, factors: list[float]) -> None:
        self.factors = factors

    def bind(self, graph, calibration=None):
        return BoundShrink(self, graph)

    @staticmethod
    def explain(described, config):
        return {"shrink": {"config": {"factor": config["shrink.factor"]}}}


class BoundShrink(BoundSpace):
    name = "shrink"
    dropped = ()

    def __init__(self, space, graph):
        super().__init__(graph)
        self.tree = Tree((Knob.of("shrink.factor", list(space.factors)),))
        self.path = graph.layers[-1].owner
        self.matched, self.unmatched = (graph.layers[-1].name,), ()

    def instrument(self, model):
        pass

    def apply(self, prepared, config):
        given = self._graph.model.get_submodule(self.path).bias.detach()
        factor = 1.0 if config is None else config["shrink.factor"]
        with torch.no_grad():
            prepared.get_submodule(self.path).bias.copy_(given * factor)
        return prepared

    def describe(self):
        return {}


@STRATEGIES.register("backwards")
class Backwards(Strategy):
    """Every configuration, the last one first."""

    def __init__(self, problem, seed, settings):
        super().__init__(problem, seed, settings)
        self.left = list(range(problem.tree.size))

    def ask(self, n):
        return [self.problem.tree.at(self.left.pop()) for _ in range(min(n, len(self.left)))]

    def learn(self, trials):
        raise BadInput("it takes nothing over")

    def tell(self, trials):
        pass


@ENGINES.register("counted")
class Counted(ProcessEngine):
    """Worker processes that are counted."""

    asked = 0

    def submit(self, config, bar=None):
        Counted.asked += 1
        super().submit(config, bar)


@FIGURES.register("counts")
@figure("counts")
def counts(runs, asked):
    """How many trials there are."""

    def paint(canvas):
        canvas.subplots().bar(["trials"], [len(runs.study)])

    return Picture(f"{len(runs.study)} trials.", paint)
'''
NET = """
import time
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, x):
        time.sleep(0.01)
        return self.second(torch.special.bessel_j0(self.first(x.flatten(1))))

def make(num_classes):
    torch.manual_seed(1)
    return Net()
"""
SEARCH = """
plugins = ["mine.py"]
model = "net.py:make"
data = "npz:blobs.npz"
[train]
max_epochs = 1
batch_size = 1024
[search]
maximize = "accuracy"
minimize = ["bitops", "largest_weight"]
strategy = "backwards"
engine = "counted"
workers = WORKERS
[search.runners]
basic_evaluation = {num_samples = 64}
basic_computation = {}
largest_weight = {}
[search.space]
name = ["quantize", "shrink"]
shrink.factors = [0.5, 1.0]
[search.space.quantize.seed.linear]
name = ["signed_powers", "integer"]
weight_width = [4, 6]
bias_width = 6
data_in_width = 6
[search.space.quantize.seed.bessel]
name = "signed_powers"
data_in_width = [4, 8]
"""


@pytest.fixture
def there(here, monkeypatch):
    """A folder with the plug-in, a model that uses its operation, and a search of all of them."""
    for name, text in (("mine.py", MINE), ("net.py", NET)):
        (here / name).write_text(text)
    return here


def fresh(there, *arguments):
    """Exit code of a command in a process of its own, and what it said on one line."""
    process = Forked(there.path, arguments)
    said = " ".join(process.communicate())
    return process.returncode, " ".join(said.split())


def searched(there, out, workers):
    """A search in a process of its own, to its end."""
    there.write(SEARCH.replace("WORKERS", str(workers)))
    process = there.start("-c", "search.toml", "-o", out)
    code, said = there.end(process)
    assert code == 0, said
    return there.rows(out)


@pytest.mark.slow
def test_a_part_of_every_kind_serial_with_workers_killed_and_resumed(there):
    whole = searched(there, "whole", 1)
    assert len(whole) == 64
    assert {name for row in whole for name in row[3]} >= {"accuracy", "total_bitops", "largest_weight"}
    knobs = {name for row in whole for name in row[1]}
    assert "shrink.factor" in knobs
    assert any("bessel" in name for name in knobs), knobs
    assert {"signed_powers", "integer"} == {row[1]["first.name"] for row in whole}
    two = searched(there, "two", 2)
    assert [row[:5] for row in two] == [row[:5] for row in whole]

    process = there.start("-c", "search.toml", "-o", "killed")
    there.wait_for("killed", 7, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 7 <= len(there.rows("killed")) < 64
    process = there.start("-o", "killed", "--resume")
    code, said = there.end(process)
    assert code == 0, said
    assert [row[:5] for row in there.rows("killed")] == [row[:5] for row in whole]

    recorded = pb.Study.open(there / "whole").facts["plugins"]
    assert [one["name"] for one in recorded] == [str((there / "mine.py").resolve())]
    code, said = fresh(there, "report", "whole", "--plugin", "mine.py", "--figure", "counts")
    assert code == 0, said
    assert "64 trials." in said
    code, said = fresh(there, "inspect", "whole/best")
    assert code == 2
    assert f"not imported unasked: --plugin {(there / 'mine.py').resolve()}" in said

    (there / "mine.py").write_text(MINE + "\n# changed\n")
    code, said = fresh(there, "search", "--out", "killed", "--resume")
    assert code == 2
    assert f"not the one that was recorded: add --plugin {(there / 'mine.py').resolve()}" in said
    code, said = fresh(there, "search", "-q", "--out", "killed", "--resume", "--plugin", "mine.py")
    assert code == 0, said

    (there / "killed/evil.py").write_text("open('executed', 'w').close()")
    config = there / "killed/config.toml"
    config.write_text(config.read_text().replace(str((there / "mine.py").resolve()), "evil.py"))
    code, said = fresh(there, "search", "--out", "killed", "--resume")
    assert code == 2
    assert f"add --plugin {(there / 'killed/evil.py').resolve()}" in said
    assert not (there / "executed").exists()
