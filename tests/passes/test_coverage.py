"""What stays in float and what is not counted is what a recount by hand leaves, and is said by everyone."""

import json

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.graph import trace
from paretobit.nn import parameter_uses
from paretobit.passes.analysis import coverage, reachable, reached_by
from paretobit.passes.layers.assignment import carried_formats
from paretobit.report.page import page
from paretobit.report.runs import Run, Runs
from paretobit.strategies.insight.sensitivity import sensitivity

EIGHT = {"name": "scaled_integer", "weight_width": [4, 8], "data_in_width": [8]}
X, Y = torch.randn(32, 6, 8), torch.randint(0, 4, (32,))


class Picks(nn.Module):
    """Reads rows of its weight by an index tensor, of which no format knows."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(24, 8))
        self.register_buffer("order", torch.randperm(24)[:16])

    def forward(self, x):
        return x @ self.weight[self.order].T


class Mixed(nn.Module):
    """A layer that picks its weight, layers, and distances."""

    def __init__(self):
        super().__init__()
        self.picks, self.linear, self.head = Picks(), nn.Linear(16, 12), nn.Linear(12, 4)

    def forward(self, x):
        y = self.linear(self.picks(x))
        near = torch.cdist(y, y).mean(1, keepdim=True) + torch.cdist(y, y[:, :1]).mean()
        return self.head(y.mean(1)) * near.mean((1, 2)).unsqueeze(1)


def share(*modules):
    model = Mixed()
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in model.named_children()}
    return sum(counts[name] for name in modules) / sum(counts.values())


def searched(**settings):
    model = Mixed().eval()
    settings = {"by": "type", "seed": {"default": EIGHT}, "share": "type", **settings}
    return pb.search(model, val=(X, Y), space=pb.Quantize(**settings), minimize=["loss", "bitops"])


def unquantised(model):
    """Elements that the delivered model stores in float, by a format of its own."""
    graph = trace(model, X[:1])
    formats = carried_formats(graph)
    stored = parameter_uses(graph).stored
    kept = sum(one.elements for one in stored if one.bits(one.agreed(formats)) == 32 * one.elements)
    return kept / sum(one.elements for one in stored)


def test_a_search_says_what_stays_in_float_and_what_is_not_counted():
    with pytest.warns(UserWarning, match="stay in float") as warned:
        study = searched()
    facts = study.facts["coverage"]
    said = [str(one.message) for one in warned if one.filename == __file__]
    assert [note for note in study.notes if not note.startswith("left in float")] == said
    assert facts["uncounted"] == {"cdist": 2}
    assert "not counted in the costs: cdist (2)" in said
    unasked = [left for left in facts["left"] if not left["asked"]]
    assert sum(left["parameters"] for left in unasked) == pytest.approx(share("picks"))
    assert [left["names"] for left in unasked if left["parameters"]] == [["picks.getitem"]]
    picked = f"{share('picks'):.0%} of the parameters stay in float: picks.getitem (the function getitem"
    assert any(text.startswith(picked) for text in said)
    assert all(note in repr(study) for note in study.notes)
    json.dumps(facts)


def test_the_share_is_that_of_the_delivered_model():
    study = searched()
    left = sum(one["parameters"] for one in study.facts["coverage"]["left"])
    assert left == pytest.approx(unquantised(study.trials[0].model()))


def test_what_was_left_alone_as_asked_is_no_warning():
    study = searched(skip=["head"])
    skipped = [left for left in study.facts["coverage"]["left"] if left["why"] == "skipped"]
    assert [(left["asked"], left["names"]) for left in skipped] == [(True, ["head"])]
    assert skipped[0]["parameters"] == pytest.approx(share("head"))
    only = searched(seed={"linear": {"weight": ["NA", "mxfp4"]}}).facts["coverage"]["left"]
    assert {name for left in only if not left["asked"] for name in left["names"]} == {"picks.getitem"}


def test_a_space_without_formats_says_nothing_of_float():
    space = pb.Prune(seed={"default": {"sparsity": [0.0, 0.5]}})
    study = pb.search(Mixed().eval(), val=(X, Y), space=space, minimize=["loss", "model_size"])
    assert study.facts["coverage"]["left"] == []
    assert study.notes == ("not counted in the costs: cdist (2)",)


def test_everything_reached_and_counted_says_nothing():
    graph = trace(nn.Sequential(nn.Linear(8, 4), nn.ReLU()).eval(), torch.randn(2, 8))
    assert coverage(graph, reachable(graph)).said == ()
    assert coverage(graph).said == ()
    assert coverage(graph, reached_by({})).said == (
        "left in float as asked: 100% of the parameters and 100% of the MACs (chosen by no key: 0)",
    )


def test_a_report_and_the_fragile_layers_say_it(tmp_path):
    with pytest.warns(UserWarning, match="stay in float"):
        study = pb.search(
            Mixed().eval(), val=(X, Y), space=pb.Quantize(by="type", seed={"default": EIGHT}, share="type"),
            minimize=["loss", "bitops"], out=tmp_path / "run",
        )  # fmt: skip
    text = page(Runs([Run.open(tmp_path / "run")]), [], {})
    assert study.notes
    assert all(f"- {note}\n" in text for note in study.notes)
    found = sensitivity(trace(Mixed().eval(), X[:2]), [X], targets=[Y])
    assert any("picks.getitem (the function" in note for note in found.notes)
