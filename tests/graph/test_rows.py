"""What a sample costs is what a run of one row takes, however many rows the example has."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.graph import repeated, trace, two_rows
from paretobit.passes.analysis import cost, peak_memory

LENGTH, SIZE = 3, 4


class Step(nn.Module):
    """One operation on rows of shape (LENGTH, SIZE); what it has of its own is the same for all rows."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.linear = kind, nn.Linear(SIZE, SIZE)
        self.table = nn.Parameter(torch.randn(LENGTH, SIZE))
        self.wide = nn.Parameter(torch.randn(1, LENGTH, SIZE))
        self.conv = nn.Conv1d(LENGTH, LENGTH, 3, padding=1)

    def forward(self, x):
        rows = x.shape[0]
        match self.kind:
            case "linear":
                return self.linear(x)
            case "of parameters":  # relative positions, projected once for all rows
                return x + self.linear(self.table)
            case "of parameters, squared":
                return x @ (self.table.T @ self.table)
            case "merged":
                return self.linear(x.reshape(rows * LENGTH, SIZE)).view(rows, LENGTH, SIZE)
            case "rows in the middle":
                return self.linear(x.transpose(0, 1)).transpose(0, 1)
            case "expanded":
                return x + self.linear(self.wide.expand(rows, -1, -1))
            case "joined":
                return self.linear(torch.cat([self.wide.expand(rows, -1, -1), x], 1))[:, LENGTH:]
            case "einsum of three":
                return torch.einsum("blc,cd,de->ble", x, self.table.T @ self.table, self.linear.weight)
            case "attention":
                return F.scaled_dot_product_attention(x, x, x + self.wide)
            case "scores":
                return (x @ x.transpose(1, 2)).softmax(-1) @ x
            case "mean of rows":
                return x - self.linear(x.mean(0, keepdim=True))
            case "conv":
                return self.conv(x).relu()
            case "filled":
                return x + torch.zeros(rows, LENGTH, SIZE)
        raise AssertionError(self.kind)


KINDS = (
    "linear", "of parameters", "of parameters, squared", "merged", "rows in the middle", "expanded", "joined",
    "einsum of three", "attention", "scores", "mean of rows", "conv", "filled",
)  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4), st.integers(1, 8), st.booleans())
def test_costs_are_torchs_count_of_one_row_whatever_the_number_of_rows(kinds, rows, branching):
    model = nn.Sequential(*map(Step, kinds), *[Branch()] * branching).eval().requires_grad_(False)
    x = torch.randn(rows, LENGTH, SIZE)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(x[:1])
    graph = trace(model, x)
    report = cost(graph)
    assert report.total("forward_flops") == counter.get_total_flops()
    assert (report.uncounted, graph.notices) == ((), ())
    single = cost(trace(model, x[:1]))
    assert [(row.activations, row.other_flops) for row in report.rows] == [
        (row.activations, row.other_flops) for row in single.rows
    ]
    assert report.peak_memory == single.peak_memory


class Branch(nn.Module):
    """torch.fx cannot trace it: the graph is that of a run."""

    def forward(self, x):
        return x * 2 if x.sum() > 0 else x + 1


def test_axes_of_the_size_of_the_batch_are_no_rows():
    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.linear = nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 4)

        def forward(self, x):
            return x + self.linear(self.table).sum(0)

    assert cost(trace(Square(), torch.randn(4, 4))).total("macs") == 4 * 4 * 4


class Guard(nn.Module):
    """The usual guard: BatchNorm needs more than one row."""

    def __init__(self):
        super().__init__()
        self.a, self.n, self.b, self.c = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        h = self.a(x).relu()
        return self.c(self.b(self.n(h)).relu() if len(h) > 1 else h)


@pytest.mark.parametrize("rows", [2, 3, 8])
def test_a_branch_on_the_number_of_rows_is_that_of_several_and_said(rows):
    graph = trace(Guard().eval(), torch.randn(rows, 8))
    assert cost(graph).total("macs") == 8 * 16 + 16 * 16 + 16 * 4
    assert peak_memory(graph) == 4 * (16 + 16)
    (notice,) = graph.notices
    assert notice.startswith("with one row this model does not call n, b, relu_1")


def test_a_model_that_needs_two_rows_is_traced_and_what_one_row_does_is_said():
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16, track_running_stats=False), nn.Linear(16, 4)).eval()
    graph = trace(model, torch.randn(2, 8))
    assert cost(graph).total("macs") == 8 * 16 + 16 * 4
    assert "does not run on one row: Expected more than 1 value per channel" in graph.notices[0]


def test_costs_that_grow_faster_than_the_rows_are_said():
    class Contrast(nn.Module):
        def forward(self, x):
            return x @ x.T

    graph = trace(Contrast(), torch.randn(4, 8))
    assert cost(graph).total("macs") == 8
    assert graph.notices == ("costs per sample depend on the number of rows: matmul",)


def test_rows_that_take_other_branches_are_no_matter_of_their_number():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            out = torch.zeros_like(x)
            for expert, place in ((self.left, x[:, 0] > 0), (self.right, x[:, 0] <= 0)):
                if place.any():
                    out[place] = expert(x[place])
            return out

    x = torch.tensor([[1.0, 2, 3, 4], [-1.0, 2, 3, 4]])
    graph = trace(Routed(), x)
    assert not any("with one row" in notice for notice in graph.notices)
    assert "rounded to whole rows" in graph.notices[0]  # half a row goes through each of the two
    assert cost(graph).total("macs") == 2 * 16
    assert cost(trace(Routed(), x.repeat(2, 1))).total("macs") == 2 * 16
    assert cost(trace(Routed(), x[[0, 0]])).total("macs") == 16


def test_what_only_the_first_call_does_is_no_matter_of_rows():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.known = nn.Linear(4, 4), {}

        def forward(self, x):
            if len(x.shape) > 1 and "table" not in self.known:
                self.known["table"] = self.linear(torch.ones(3, 4)).sum(0).detach()
            return self.linear(x) + self.known["table"] * (1 if x.sum() > 0 else 2)

    graph = trace(Table(), torch.ones(2, 4))
    assert cost(graph).total("macs") == 16
    (notice,) = graph.notices
    assert notice.startswith("only its first call calls")


def test_a_loop_over_the_rows_costs_what_one_round_costs():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return torch.stack([torch.matmul(row, self.linear.weight) for row in x])

    graph = trace(Loop(), torch.ones(3, 4))
    assert cost(graph).total("macs") == 16
    assert graph.notices == ("every row calls matmul_1, matmul_2 anew: the graph is that of one row",)


def test_what_does_not_run_says_on_how_many_rows():
    with pytest.raises(BadInput, match=r"does not run on these inputs \(3 rows\)"):
        trace(nn.Sequential(nn.Linear(4, 2)), torch.randn(3, 5))


def test_an_example_from_data_is_two_rows_that_differ():
    x = torch.tensor([[1, 2], [1, 2], [3, 4]])
    assert two_rows(x).tolist() == [[1, 2], [3, 4]]
    assert two_rows(x[:2]).tolist() == [[1, 2], [1, 2]]
    assert two_rows(x[:1]).tolist() == [[1, 2], [1, 2]]
    assert two_rows(torch.arange(5)).tolist() == [0, 1]


def test_an_example_of_one_row_is_taken_twice():
    x = torch.ones(1, 3)
    assert repeated(x).shape == (2, 3)
    assert [t.shape for t in repeated((x, [x, x.sum()[None]]))[1]] == [(2, 3), (2,)]
    assert repeated({"x": x, "scale": 2.0})["scale"] == 2.0
    assert repeated((x, torch.ones(3, 3))) is None
    assert repeated((torch.ones(2, 3),)) is None


@pytest.mark.filterwarnings("ignore:with one row")
@pytest.mark.parametrize("rows", [None, 1, 2])
def test_a_search_counts_the_branch_of_several_rows_whatever_the_example(rows):
    torch.manual_seed(0)
    x, y = torch.randn(64, 8), torch.randint(0, 4, (64,))
    space = pb.Quantize(by="type", seed={"linear": {"weight": ["NA", "mxfp4"]}})
    example = None if rows is None else x[:rows]
    study = pb.search(Guard().eval(), val=(x, y), example=example, space=space, minimize=["loss", "bitops"])
    assert study.baseline["total_flops"] == 2 * (8 * 16 + 16 * 16 + 16 * 4)
    assert any(note.startswith("with one row this model does not call n, b, relu_1") for note in study.notes)


class Squeeze(nn.Module):
    def forward(self, x):
        return x.squeeze()


@pytest.mark.filterwarnings("ignore:the model does not run on one row")
@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16, track_running_stats=False), nn.Linear(16, 4)),
        nn.Sequential(nn.Unflatten(1, (8, 1)), nn.Conv1d(8, 4, 1), Squeeze(), nn.Linear(4, 4)),
    ],
    ids=["batch statistics", "squeeze"],
)
def test_a_model_that_needs_two_rows_is_searched(model):
    x, y = torch.randn(64, 8), torch.randint(0, 4, (64,))
    space = pb.Quantize(by="type", seed={"linear": {"weight": ["NA", "mxfp4"]}})
    study = pb.search(model.eval(), val=(x, y), space=space, minimize=["loss", "bitops"])
    assert study.counts()["complete"] == len(study) > 0


def test_a_model_of_one_row_is_searched_on_one_and_that_is_said():
    class Single(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            return self.linear(x.view(4))

    space = pb.Quantize(by="type", seed={"linear": {"weight": ["NA", "mxfp4"]}})
    with pytest.warns(UserWarning, match="the graph is that of one row"):
        study = pb.search(
            Single(), space=space, evaluate=lambda m: {"e": float(m(torch.ones(1, 4)).sum())},
            example=torch.ones(1, 4), minimize=["e", "bitops"],
        )  # fmt: skip
    assert study.baseline["total_flops"] == 2 * 8


def test_what_is_only_moved_otherwise_for_one_row_is_no_notice():
    class Expands(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            table = torch.ones(1, 4) if x.shape[0] == 1 else torch.ones(1, 4).expand(x.shape[0], -1)
            return self.linear(x) + table

    graph = trace(Expands(), torch.randn(2, 4))
    assert graph.notices == ()
    assert cost(graph).total("macs") == 16
