"""A width told free can be changed, however sizes stand in the code; one that is frozen says by what."""

from contextlib import suppress

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.graph import trace
from paretobit.graph.widths import width_groups
from paretobit.passes.transform.inherit import resize

HEADS, HEAD = 2, 3
WIDTH = HEADS * HEAD


class Block(nn.Module):
    """Two layers with one kind of operation between them, whose sizes are literals, attributes or computed."""

    def __init__(self, kind, sizes):
        super().__init__()
        self.kind, self.sizes = kind, sizes
        self.num_heads, self.head_dim, self.width = HEADS, HEAD, WIDTH
        more = {"chunk": 2, "split": 2, "unbind": 3, "attention": 3, "uneven": 2}.get(kind, 1)
        less = {"cat": 2, "uneven": 1}.get(kind, 1)
        self.up, self.down = nn.Linear(WIDTH, more * WIDTH), nn.Linear(less * WIDTH, WIDTH)
        self.gain, self.mean = nn.Parameter(torch.rand(WIDTH) + 0.5), nn.Buffer(torch.zeros(WIDTH))
        self.var, self.kernel = nn.Buffer(torch.ones(WIDTH)), nn.Parameter(torch.randn(WIDTH, WIDTH, 1))

    def forward(self, x):
        y = self.up(x)
        literal, named = self.sizes == "literal", self.sizes == "attribute"
        width = WIDTH if literal else self.width if named else y.shape[-1]
        heads = HEADS if literal else self.num_heads if named else -1
        return self.down(getattr(self, self.kind)(y, width, heads))

    def chunk(self, y, width, heads):
        a, b = y.chunk(2, -1)
        return F.gelu(a) * b

    def split(self, y, width, heads):
        a, b = y.split(width if self.sizes != "computed" else width // 2, -1)
        return a.sigmoid() * b

    def uneven(self, y, width, heads):
        a, b, c = torch.split(y, [width - 2, 4, width - 2] if self.sizes == "literal" else [4, 4, y.shape[-1] - 8], -1)
        return torch.cat([a, b, c], -1)[..., :WIDTH]

    def unbind(self, y, width, heads):
        a, b, c = y.view(*y.shape[:-1], 3, -1).unbind(-2)
        return a * b + c

    def attention(self, y, width, heads):
        q, k, v = (t.view(*t.shape[:2], heads, HEAD).transpose(1, 2) for t in y.chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return y.reshape(*y.shape[:2], y.shape[2] * y.shape[3] if self.sizes == "computed" else width)

    def view(self, y, width, heads):
        return y.reshape(-1, width).relu().view(y.shape[0], -1, width)

    def layer_norm(self, y, width, heads):
        return F.layer_norm(y, (width,), self.gain, self.mean)

    def batch_norm(self, y, width, heads):
        return F.batch_norm(y.transpose(1, 2), self.mean, self.var, self.gain).transpose(1, 2)

    def convolution(self, y, width, heads):
        return F.conv1d(y.transpose(1, 2), self.kernel, self.mean).transpose(1, 2)

    def product(self, y, width, heads):
        return y @ self.kernel[..., 0]

    def einsum(self, y, width, heads):
        return torch.einsum("btc,cdk->btdk", y, self.kernel).squeeze(-1)

    def cat(self, y, width, heads):
        return torch.cat([y.relu(), -y], -1)

    def ordered(self, y, width, heads):
        return y.flip(1).cumsum(1) + y.sort(1)[0] + y.max(1, keepdim=True)[0] + y.topk(1, 1)[0]

    def scrambled(self, y, width, heads):
        return y.roll(1, -1) + y.sort(-1).values


KINDS = [name for name, value in vars(Block).items() if callable(value) and name not in ("__init__", "forward")]


class Model(nn.Module):
    """Blocks in a row, some with a residual, between two layers."""

    def __init__(self, blocks, residual, once):
        super().__init__()
        self.first, self.last, self.once = nn.Linear(4, WIDTH), nn.Linear(WIDTH, 5), once
        self.blocks = nn.ModuleList(Block(*block) for block in blocks)
        self.residual = residual

    def forward(self, x):
        if self.once and x.sum() > 1e9:  # fx cannot look past this
            return x
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x) if self.residual else block(x)
        return self.last(x)


def build(blocks, residual=False, once=True):
    torch.manual_seed(0)
    return Model(blocks, residual, once).double().eval(), torch.randn(2, 5, 4, dtype=torch.float64)


blocks = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from(["literal", "attribute", "computed"])), min_size=1, max_size=3
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(blocks=blocks, residual=st.booleans(), once=st.booleans(), data=st.data())
def test_a_free_width_can_be_changed_and_a_frozen_one_says_by_what(blocks, residual, once, data):
    model, x = build(blocks, residual, once)
    graph = trace(model, x)
    groups = width_groups(graph)
    words = {node.name for node in graph} | {node.op for node in graph}
    for group in groups:
        if group.frozen is not None:
            assert any(word in group.frozen for word in words) or "no layer makes it" in group.frozen, group
    if not groups.free:
        return
    steps = {g.name: data.draw(st.integers(1, 3 * g.width // g.divisor), label=g.name) for g in groups.free}
    widths = {g.name: steps[g.name] * g.divisor for g in groups.free}
    for chosen in (widths, dict([data.draw(st.sampled_from(list(widths.items())))])):
        new = resize(graph, chosen, groups=groups)
        assert new.model(x).shape == (2, 5, 5)
        found = {g.name: g.width for g in width_groups(new) if g.name in chosen}
        assert found == {name: width for name, width in chosen.items() if name in found or width > 1}
    wider = None
    with suppress(BadInput):  # it says where copies of channels are felt
        wider = resize(graph, {g.name: 2 * g.width for g in groups.free}, "net2wider", groups=groups)
    if wider is not None:
        torch.testing.assert_close(wider.model(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("kind", sorted({*KINDS} - {"uneven", "scrambled"}))
def test_sizes_kept_in_attributes_follow(kind, once):
    model, x = build([(kind, "attribute")], once=once)
    groups = width_groups(trace(model, x))
    assert {g.frozen for g in groups if "last" not in g.producers} <= {None, "input x of the model"}


@pytest.mark.parametrize("kind", ["attention", "view", "layer_norm", "split"])
def test_sizes_that_are_literals_freeze_and_are_named(kind):
    model, x = build([(kind, "literal")])
    model.blocks[0].width = model.blocks[0].num_heads = None
    groups = width_groups(trace(model, x))
    inside = next(g for g in groups if any(p.startswith("blocks_0_up") for p in g.producers))
    word = {"attention": "view"}.get(kind, kind)
    assert word in inside.frozen or "reshape" in inside.frozen
    assert groups["first"].frozen is None


def test_pieces_that_a_run_gives_as_a_list_are_known():
    model, x = build([("chunk", "computed")])
    graph = trace(model, x)
    assert graph.method == "run"
    assert [g.name for g in width_groups(graph).free] == ["first", "blocks_0_up", "blocks_0_down"]


def test_a_model_that_cannot_be_copied_has_no_free_width_and_says_so():
    class Kept:
        def __deepcopy__(self, memo):
            raise TypeError("cannot copy a socket")

    model, x = build([("view", "computed")])
    model.kept = Kept()
    groups = width_groups(trace(model, x))
    assert groups.free == ()
    assert "cannot be copied (TypeError: cannot copy a socket)" in groups["first"].frozen


def test_trial_runs_leave_the_model_as_it_was():
    model, x = build([("batch_norm", "attribute"), ("attention", "attribute")])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    width_groups(trace(model, x))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert (model.blocks[0].width, model.blocks[1].num_heads) == (WIDTH, HEADS)
