"""A place tells the calls of a function apart, the same however the model is looked at."""

import textwrap

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from paretobit.graph import places_called, trace, with_conditional
from paretobit.graph.trace import trace_once

X = torch.randn(2, 4)


class Block(nn.Module):
    def __init__(self, stops=False):
        super().__init__()
        self.linear, self.stops = nn.Linear(4, 4), stops

    def twice(self, x):
        return F.relu(x) + x

    def forward(self, x):
        if self.stops and x.sum() > 1e9:  # what torch.fx cannot trace
            return x
        x = self.twice(self.linear(x)) + self.twice(x)
        return torch.stack([t * 0.5 for t in (x, x)]).sum(0) @ x.T


class Two(nn.Module):
    def __init__(self, stops=False):
        super().__init__()
        self.block = Block(stops)

    def forward(self, x):
        return self.block(self.block(x) @ x) + self.block.twice(x).sum()


def placed(graph):
    return {(node.owner, node.op, node.place) for node in graph if node.place}


def test_torch_fx_a_recorded_run_and_a_run_see_the_same_places():
    torch.manual_seed(0)
    traced, recorded = trace(Two().eval(), X), trace(Two(stops=True).eval(), X)
    assert (traced.method, recorded.method) == ("fx", "run")
    assert placed(traced) == placed(recorded) == places_called(traced.model, X)
    assert len(placed(traced)) == sum(bool(node.place) for node in traced)


def test_a_place_is_said_by_functions_lines_and_columns_from_where_they_begin():
    graph = trace(Block(), X)
    where = {node.site: node.place for node in graph if node.op in ("relu", "mul")}
    assert where == {
        "relu": "Block.forward 3:12-3:38 > Block.twice 1:15-1:24 #0",
        "relu_1": "Block.forward 3:41-3:54 > Block.twice 1:15-1:24 #0",
        "mul": "Block.forward 4:28-4:35 #0",
        "mul_1": "Block.forward 4:28-4:35 #1",
    }


def test_layers_of_torchs_are_told_apart_by_their_own_code():
    graph = trace(nn.TransformerEncoderLayer(4, 1, 4, batch_first=True).train(), X[None])
    sums = [node.place.rpartition(" #")[0] for node in graph if node.op == "add"]
    assert len(sums) == len(set(sums)) == 2


SOURCE = """
class Model(nn.Module):
    def forward(self, x):
        return x * 2 + 1
"""


def test_lines_before_a_function_do_not_move_its_places():
    def read(text):
        names = {"nn": nn}
        exec(textwrap.dedent(text), names)
        return placed(trace(names["Model"](), X))

    assert read(SOURCE) == read("# a comment\n\n\nimport torch\n" + SOURCE)
    assert read(SOURCE) != read(SOURCE.replace("return x * 2", "return 1 * x * 2"))


class Masked(nn.Module):
    """Adds a mask where there is padding, and once builds what it keeps."""

    def __init__(self):
        super().__init__()
        self.kept = None

    def forward(self, x, attention_mask=None):
        if self.kept is None:
            self.kept = torch.relu(x[:1]) * 0 + 1
        y = x * self.kept
        if attention_mask is not None and not attention_mask.all():
            y = y + (attention_mask - 1) * 1e4
        return x + y


FULL, PADDED = torch.ones(2, 4), torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 1]])


def test_what_two_runs_call_differently_is_told():
    model = Masked()
    one, other = (places_called(model, {"x": X, "attention_mask": mask}) for mask in (FULL, PADDED))
    assert {(op, place.partition(" ")[0]) for _, op, place in other - one} == {
        ("add", "Masked.forward"),
        ("sub", "Masked.forward"),
        ("mul", "Masked.forward"),
    }
    assert one < other
    assert model.kept is None


@pytest.mark.parametrize("first", [FULL, PADDED])
def test_functions_that_not_every_run_calls_are_known_with_the_run(first):
    example = {"x": X, "attention_mask": first}
    runs = {"the first call": example, "a later call": example, "a call without padding": {"x": X}}
    graph = with_conditional(trace_once(Masked(), example), runs)
    always = [node.place for node in graph if node.place and node.site not in graph.conditional]
    assert [place.split()[1] for place in always] == ["3:12-3:25", "6:15-6:20"]
    said = set(graph.conditional.values())
    assert "it is called only in some runs, not in a later call" in said
    assert ("it is called only in some runs, not in a call without padding" in said) == (first is PADDED)
    later = trace(Masked(), example)
    assert "relu" not in {node.op for node in later}
    assert later.notices[0].startswith("only its first call calls relu")
