"""Where a parameter is read, and in which layout: sizes and zeros are those of what the model computes with."""

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from transformers.pytorch_utils import Conv1D

from paretobit.formats import FULL, parse
from paretobit.graph import trace
from paretobit.nn import parameter_uses
from paretobit.passes.analysis import cost, owners
from paretobit.passes.layers.assignment import apply_assignment
from paretobit.passes.layers.quantizable import slots_at
from paretobit.passes.layers.selection import candidates, path_of
from paretobit.spaces import Quantize
from paretobit.spaces.ties import shared_parameters

WIDTH = 8


class Reads(nn.Module):
    """Weights of its own, read by functions in one of several ways."""

    def __init__(self, how, *shape):
        super().__init__()
        self.how = how
        self.w = nn.Parameter(torch.randn(shape or (WIDTH, WIDTH)))

    def forward(self, x):
        return self.how(x, self.w)


def _packed(x, w):
    q, k, v = w.chunk(3)
    return F.linear(x, q) + F.linear(x, k) * F.linear(x, v)


def _experts(x, w):
    rows = x.flatten(0, 1)
    return F.grouped_mm(rows, w, offs=torch.tensor([3, 10], dtype=torch.int32)).view_as(x)


def _in_place(x, w):
    y = F.linear(x, w)
    y += x
    return y.relu_()


class Rows(nn.Module):
    """A layer of channels among layers of features."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.transpose(1, 2)).transpose(1, 2).contiguous()


BLOCKS = {
    "linear layer": lambda: nn.Linear(WIDTH, WIDTH),
    "Conv1D": lambda: nn.init.normal_((made := Conv1D(WIDTH, WIDTH)).weight) is None or made,
    "conv": lambda: Rows(nn.Conv1d(WIDTH, WIDTH, 3, padding=1, groups=2)),
    "transposed conv": lambda: Rows(nn.ConvTranspose1d(WIDTH, WIDTH, 3, padding=1, groups=4)),
    "norm": lambda: nn.LayerNorm(WIDTH),
    "linear": lambda: Reads(F.linear),
    "linear of t": lambda: Reads(lambda x, w: F.linear(x, w.t())),
    "@": lambda: Reads(lambda x, w: x @ w),
    "@ T": lambda: Reads(lambda x, w: x @ w.T),
    "@ mT": lambda: Reads(lambda x, w: torch.matmul(x, w.mT)),
    "@ transpose": lambda: Reads(lambda x, w: x.matmul(w.transpose(0, 1))),
    "flat": lambda: Reads(lambda x, w: F.linear(x, w.view(WIDTH, -1)), WIDTH * WIDTH),
    "squeezed": lambda: Reads(lambda x, w: x @ w[0].permute(1, 0), 1, WIDTH, WIDTH),
    "cast": lambda: Reads(lambda x, w: F.linear(x, w.to(x.dtype).contiguous())),
    "packed": lambda: Reads(_packed, 3 * WIDTH, WIDTH),
    "conv1d": lambda: Reads(lambda x, w: F.conv1d(x.mT, w, padding=1).mT, WIDTH, WIDTH, 3),
    "first": lambda: Reads(lambda x, w: torch.matmul(w, x.mT).mT),
    "first of t": lambda: Reads(lambda x, w: (w.t() @ x.mT).mT),
    "batched first": lambda: Reads(lambda x, w: torch.bmm(w, x.mT).mT, 2, WIDTH, WIDTH),
    "expanded": lambda: Reads(lambda x, w: torch.bmm(x, w.expand(2, WIDTH, WIDTH))),
    "mm": lambda: Reads(lambda x, w: torch.mm(x.flatten(0, 1), w.mT).view_as(x)),
    "einsum": lambda: Reads(lambda x, w: torch.einsum("bld,vd->blv", x, w)),
    "einsum first": lambda: Reads(lambda x, w: torch.einsum("h d k, ...d -> ...hk", w, x).flatten(2), 2, WIDTH, 4),
    "tensordot": lambda: Reads(lambda x, w: torch.tensordot(x, w, ([2], [1])).flatten(2), 2, WIDTH, 4),
    "inner": lambda: Reads(lambda x, w: torch.inner(x, w)),
    "bilinear": lambda: Reads(lambda x, w: F.bilinear(x, x, w), WIDTH, WIDTH, WIDTH),
    "experts": lambda: Reads(_experts, 2, WIDTH, WIDTH),
    "experts of t": lambda: Reads(lambda x, w: _experts(x, w.transpose(-2, -1)), 2, WIDTH, WIDTH),
    "transposed conv1d": lambda: Reads(lambda x, w: F.conv_transpose1d(x.mT, w, groups=2).mT, WIDTH, 4, 1),
    "sliced": lambda: Reads(lambda x, w: F.linear(x, w[:WIDTH]) + x @ w[WIDTH:].T, 2 * WIDTH, WIDTH),
    "gain": lambda: Reads(lambda x, w: x * w, WIDTH),
    "repeated": lambda: Reads(lambda x, w: w.expand(x.size(0), -1, -1) + x, 1, 1, WIDTH),
    "in place": lambda: Reads(_in_place),
}
FORMATS = (
    *("scaled_integer(width=3, per=channel)", "scaled_integer(width=4, per=group, group_size=4)"),
    *("ternary", "mxint8(block_size=4)", "integer(width=5, frac_width=3)", "block_fp(width=3)"),
)


class Model(nn.Module):
    """Some blocks in a row, and one more reading of the first block's weight."""

    def __init__(self, names, tied):
        super().__init__()
        self.blocks = nn.ModuleList(BLOCKS[name]() for name in names)
        self.first, self.tied = nn.Linear(WIDTH, WIDTH), tied

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        if self.tied == "linear":
            return F.linear(x, self.first.weight)
        if self.tied == "einsum":
            return torch.einsum("btd,vd->btv", x, self.first.weight)
        return x @ self.first.weight.T if self.tied == "T" else x


def watched(monkeypatch, number_format, run):
    """What a format is given during a run, and what it makes of it."""
    seen, quantize = [], type(number_format).quantize

    def watch(self, x):
        result = quantize(self, x)
        seen.append((x.detach().clone(), result.detach().clone()))
        return result

    monkeypatch.setattr(type(number_format), "quantize", watch)
    with torch.no_grad():
        run()
    monkeypatch.undo()
    return seen


def key(tensor):
    """The same for a tensor that is only turned."""
    return tuple(sorted(tensor.shape)), *sorted(tensor.flatten().tolist())


def holds(parameter, tensor):
    """Whether a tensor consists of numbers of a parameter, in whatever order."""
    return bool(torch.isin(tensor, parameter).all())


@pytest.mark.parametrize("seed", range(40))
def test_sizes_and_zeros_are_those_of_a_plain_recount_of_a_run(seed, monkeypatch):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    names = [draw.choice(sorted(BLOCKS)) for _ in range(draw.randint(1, 4))]
    model, x = Model(names, draw.choice(("", "linear", "T"))).eval(), torch.randn(2, 5, WIDTH)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    number_format = parse(draw.choice(FORMATS))
    graph = trace(model, x)
    places = [(node, [s for s in slots_at(graph, node) if s == "weight"]) for node in candidates(graph, True)]
    formats = {path_of(node): dict.fromkeys(slots, number_format) for node, slots in places if slots}
    apply_assignment(model, formats)
    seen = watched(monkeypatch, number_format, lambda: model(x))
    bits = elements = 0
    for parameter in model.parameters():
        given = {key(x): x.shape for x, _ in seen if holds(parameter.detach(), x)}.values()
        bits += sum(number_format.bits(shape) for shape in given) or FULL.bits(parameter.shape)
        elements += parameter.numel()
        assert sum(map(torch.Size.numel, given)) in (0, parameter.numel()), (names, given)
    stored = [owner.bits(formats.get(owner.path, {})) for owner in owners(graph)]
    assert sum(one.weight_bits for one in stored) == bits, names
    assert sum(one.weight_elements for one in stored) == elements
    report = cost(graph, sparsity="weights", formats=formats)
    assert report.total("stored_bytes") == bits / 8
    for node, row in zip(graph, report.rows, strict=True):
        own = parameter_uses(graph).at(path_of(node)) if node.is_call else ()
        read = [y for use in own if use.slot == "weight" for x, y in seen if holds(use.parameter.detach(), x)]
        read = [y for y in read if y.shape == own[0].shape] if own else []
        read = [y for y in read if y.dim() > 1]
        if read and len({y.numel() for y in read}) == 1 and not {"packed", "sliced"} & set(names):
            assert row.sparsity == pytest.approx((read[0] == 0).double().mean().item()), (names, node.name)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_graph_of_one_run_tells_the_same_readings_as_one_of_symbols(name):
    class Branches(Model):
        def forward(self, x):
            return super().forward(x if x.sum() < 1e9 else -x)

    torch.manual_seed(0)
    plain, branching, x = Model([name], "T").eval(), Branches([name], "T").eval(), torch.randn(2, 5, WIDTH)
    graphs = trace(plain, x), trace(branching, x)
    assert [graph.method for graph in graphs] == ["fx", "run"]
    one, other = ([(u.path, u.site, u.slot, u.shape) for u in parameter_uses(graph)] for graph in graphs)
    assert one == other


@pytest.mark.parametrize(("tied", "site"), [("linear", "linear"), ("T", "matmul"), ("einsum", "einsum")])
def test_a_tied_weight_is_one_tie_however_it_is_read(tied, site):
    torch.manual_seed(0)
    model, x = Model(["linear layer"], tied).eval(), torch.randn(2, 5, WIDTH)
    graph = trace(model, x)
    (places,) = shared_parameters(graph)
    assert list(places) == [("first", "weight"), (site, "weight")]
    bound = Quantize(by="name", seed={"first": {"weight": ["scaled_integer(width=2, per=channel)"]}}).bind(graph)
    formats = bound.formats(bound.tree.at(0))
    once = copy.deepcopy(model)
    once.first.weight.data = formats["first"]["weight"].quantize(once.first.weight.data)
    with torch.no_grad():
        assert torch.equal(bound.apply(bound.prepare(), bound.tree.at(0))(x), once(x))
    assert cost(graph, formats=formats).total("stored_bytes") == (64 * 2 + 8 * 32 + 8 * 32 + 72 * 32) / 8


def test_readings_that_do_not_agree_on_a_format_leave_the_stored_tensor_in_float():
    graph = trace(Model([], "T"), torch.zeros(2, 5, WIDTH))
    weight = {"weight": parse("integer(width=4, frac_width=2)")}
    both, one = {"first": weight, "matmul": weight}, {"first": weight}
    assert cost(graph, formats=both).total("stored_bytes") == 64 * 4 / 8 + 8 * 4
    assert cost(graph, formats=one).total("stored_bytes") == 64 * 4 + 8 * 4


class Odd(nn.Module):
    """What no format reaches."""

    def __init__(self):
        super().__init__()
        self.table, self.attend = nn.Embedding(9, WIDTH), nn.MultiheadAttention(WIDTH, 1, add_bias_kv=True)
        self.conv, self.experts = (weight_norm(nn.Conv1d(WIDTH, 4, 1)), nn.Parameter(torch.randn(2, WIDTH, WIDTH)))

    def forward(self, ids):
        x = self.attend(*[self.table(ids)] * 3)[0]
        x = torch.linalg.multi_dot([x.flatten(0, 1), self.experts[0], self.experts[1]]).view_as(x)
        return torch.linalg.multi_dot([x[0], self.table.weight.T]), self.conv(x.mT)


def test_what_no_format_reaches_is_said_by_name_and_counts_as_float():
    graph = trace(Odd(), torch.zeros(2, 3, dtype=torch.long))
    why = {stored.path: stored.why_float for stored in parameter_uses(graph).stored}
    assert why["table.weight"] == why["experts"] == "the function linalg_multi_dot has no slot for it"
    assert why["attend.bias_k"] == "MultiheadAttention has no slot for its bias_k"
    assert why["conv.parametrizations.weight.original1"] is why["conv.bias"] is None
    few = {"table": {"weight": parse("integer(width=4, frac_width=2)")}}
    norms = graph.model.conv.parametrizations.weight.original0  # stored in the weight that is computed
    elements = sum(p.numel() for p in graph.model.parameters()) - norms.numel()
    assert cost(graph, formats=few).total("stored_bytes") == 4 * elements


def test_a_layer_that_is_not_called_does_not_decide_for_the_function_that_reads_its_weight():
    class Borrows(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(WIDTH, 4, bias=False)

        def forward(self, x):
            return F.linear(x, self.layer.weight)

    graph = trace(Borrows(), torch.zeros(2, WIDTH))
    weight = {"weight": parse("integer(width=4, frac_width=2)")}
    assert [use.site for use in parameter_uses(graph)] == ["linear"]
    assert cost(graph, formats={"linear": weight}).total("stored_bytes") == 32 * 4 / 8
    assert cost(graph, formats={"layer": weight}).total("stored_bytes") == 32 * 4
