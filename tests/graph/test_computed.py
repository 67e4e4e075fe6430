"""Weights that are computed from parameters only: each is one tensor, counted as the delivered model has it."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm
from torch.overrides import TorchFunctionMode

from paretobit.formats import FULL, parse
from paretobit.graph import trace
from paretobit.graph.computed import computed_weights
from paretobit.graph.copies import copy_of
from paretobit.models import load, save
from paretobit.nn import parameter_uses
from paretobit.passes.analysis import cost, owners
from paretobit.passes.layers.quantizable import unsupported
from paretobit.passes.layers.selection import path_of
from paretobit.passes.transform import QuantizeSettings, quantize
from paretobit.spaces.ties import shared_parameters

WIDTH = 8


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).mT


class Own(nn.Module):
    """A module that makes its weight of several parameters, and reads it by a function."""

    def __init__(self, how, *shapes):
        super().__init__()
        self.how, self.names = how, [f"p{i}" for i in range(len(shapes))]
        for i, shape in enumerate(shapes):
            self.register_parameter(f"p{i}", nn.Parameter(torch.randn(shape)))

    def forward(self, x):
        return self.how(x, *(getattr(self, name) for name in self.names))


def _standardised(x, w):
    weight = (w - w.mean(1, keepdim=True)) / (w.std(1, keepdim=True) + 1e-5)
    return F.linear(x, weight)


def _normalised(x, w):
    weight = F.batch_norm(w[None].reshape(1, WIDTH, -1), None, None, training=True, momentum=0.0)
    return F.linear(x, weight.reshape_as(w))


def _parametrised_own():
    own = Own(F.linear, (WIDTH, WIDTH))
    parametrize.register_parametrization(own, "p0", Symmetric())
    return own


def linear():
    return nn.Linear(WIDTH, WIDTH, bias=False)


SQUARE = (WIDTH, WIDTH)
BLOCKS = {
    "plain": linear,
    "weight norm": lambda: parametrizations.weight_norm(linear()),
    "spectral norm": lambda: parametrizations.spectral_norm(linear()),
    "orthogonal": lambda: parametrizations.orthogonal(linear()),
    "own parametrisation": lambda: (
        (made := linear()) and parametrize.register_parametrization(made, "weight", Symmetric())
    ),
    "own parametrised": _parametrised_own,
    "old weight norm": lambda: old_weight_norm(linear()),
    "old spectral norm": lambda: old_spectral_norm(linear()),
    "pruned": lambda: prune.l1_unstructured(linear(), "weight", 0.5),
    "pruned rows": lambda: prune.random_structured(linear(), "weight", 0.25, 0),
    "times scale": lambda: Own(lambda x, w, s: F.linear(x, w * s), SQUARE, (WIDTH, 1)),
    "standardised": lambda: Own(_standardised, SQUARE),
    "normalised": lambda: Own(_normalised, SQUARE),
    "low rank added": lambda: Own(lambda x, w, a, b: F.linear(x, w + 2 * (a @ b)), SQUARE, (WIDTH, 2), (2, WIDTH)),
    "joined": lambda: Own(lambda x, a, b: x @ torch.cat([a, b], 1), (WIDTH, 3), (WIDTH, WIDTH - 3)),
    "cut off": lambda: Own(lambda x, w: F.linear(x, F.softshrink(w.clamp(-1, 1), 0.5)), SQUARE),
}
FORMATS = ("scaled_integer(width=3, per=channel)", "ternary", "integer(width=5, frac_width=3)", "mxint8(block_size=4)")


class Captured(TorchFunctionMode):
    """The weights that products take during a run, outputs first."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is F.linear:
            self.weights.append(args[1].detach())
        elif getattr(func, "__name__", "") in ("matmul", "__matmul__") and args[0].dim() == 3:
            self.weights.append(args[1].detach().mT)
        return result


@pytest.mark.parametrize("seed", range(30))
def test_sizes_and_zeros_are_those_of_the_tensors_that_the_delivered_model_computes_with(seed, tmp_path):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    names = [draw.choice(sorted(BLOCKS)) for _ in range(draw.randint(1, 3))]
    model, x = nn.Sequential(*(BLOCKS[name]() for name in names)).eval(), torch.randn(2, 5, WIDTH)
    number_format = parse(draw.choice(FORMATS))
    graph = trace(model, x)
    assert unsupported(graph) == {}
    new, info = quantize(graph, QuantizeSettings(default={"weight": number_format}))
    assert len(info["assignment"]) == len(names)
    save(tmp_path / "saved", new.model)
    delivered = load(tmp_path / "saved", copy_of(model))
    assert torch.equal(delivered(x), new.model(x))
    with Captured() as captured, torch.no_grad():
        delivered(x)
    assert len(captured.weights) == len(names)
    bits = sum(number_format.bits(weight.shape) for weight in captured.weights)
    formats = {path: {"weight": number_format} for path in info["assignment"]}
    stored = [owner.bits(formats.get(owner.path, {})) for owner in owners(graph)]
    assert (sum(one.weight_bits for one in stored), sum(one.weight_elements for one in stored)) == (
        bits,
        sum(weight.numel() for weight in captured.weights),
    ), names
    report = cost(graph, sparsity="weights", formats=formats)
    assert report.total("stored_bytes") == bits / 8
    products = [row for node, row in zip(graph, report.rows, strict=True) if path_of(node) in formats]
    for row, weight in zip(products, captured.weights, strict=True):
        assert torch.equal(number_format.quantize(weight), weight) or not number_format.traits.idempotent
        assert row.sparsity == pytest.approx((weight == 0).double().mean().item(), abs=1e-6), (names, row.node)


def test_a_graph_of_one_run_finds_the_same_weights():
    class Branches(nn.Sequential):
        def forward(self, x):
            return super().forward(x if x.sum() < 1e9 else -x)

    for name, make in BLOCKS.items():
        torch.manual_seed(0)
        plain = nn.Sequential(make()).eval()
        branching = Branches(*copy_of(plain)).eval()
        graphs = [trace(model, torch.randn(2, 5, WIDTH)) for model in (plain, branching)]
        assert graphs[1].method == "run"
        one, other = ([(u.path, u.site, u.slot, u.shape) for u in parameter_uses(graph)] for graph in graphs)
        assert one == other, name


def uses_of(how, *shapes):
    graph = trace(nn.Sequential(Own(how, *shapes)), torch.randn(2, 5, WIDTH))
    return graph, {one.path: one for one in parameter_uses(graph).stored}


@pytest.mark.parametrize(
    "how",
    [
        lambda x, w: F.linear(x, w * 2) + F.linear(x, w),  # also read as it is
        lambda x, w: F.linear(x, w * 2) + F.linear(x, w.exp()),  # two weights
        lambda x, w: F.linear(x, w[torch.tensor([0, 1])]),  # some rows of a table
        lambda x, w: F.linear(x, torch.cat([w, w])),  # more than what is stored
    ],
)
def test_parameters_that_no_one_weight_can_stand_for_are_stored_as_they_are(how):
    graph, stored = uses_of(how, SQUARE)
    assert not computed_weights(graph).roots
    formats = {node.site: {"weight": parse("ternary")} for node in graph if node.op == "linear"}
    assert stored["0.p0"].elements == WIDTH * WIDTH
    assert cost(graph, formats=formats).total("stored_bytes") == 4 * WIDTH * WIDTH


def test_scales_of_two_layouts_cannot_be_shared_by_one_stored_tensor():
    _graph, stored = uses_of(lambda x, w: F.linear(F.linear(x, w), w.t()), SQUARE)
    one = stored["0.p0"]
    for text, bits in (("scaled_integer(width=4, per=channel)", 32), ("integer(width=4, frac_width=2)", 4)):
        slots = {"weight": parse(text)}
        assert one.bits(slots) == bits * WIDTH * WIDTH
        assert (one.why_float_in(slots) is None) == (bits == 4)
    assert "one stored tensor" in one.why_float_in({"weight": parse("ternary")})
    assert one.format({}) is FULL


class Tied(nn.Module):
    """A layer whose weight is read again, as it is made or as its original."""

    def __init__(self, original):
        super().__init__()
        self.layer, self.original = parametrizations.weight_norm(linear()), original

    def forward(self, x):
        original = self.layer.parametrizations.weight.original1
        return self.layer(x) @ (original if self.original else self.layer.weight).T


@pytest.mark.parametrize("original", [False, True])
def test_a_computed_weight_that_is_read_again_is_one_tied_tensor_and_its_original_is_another(original):
    torch.manual_seed(0)
    model, x = Tied(original).eval(), torch.randn(2, 5, WIDTH)
    graph, number_format = trace(model, x), parse("scaled_integer(width=3, per=channel)")
    new, info = quantize(graph, QuantizeSettings(default={"weight": number_format}))
    assert set(info["assignment"]) == {"layer", "matmul"}
    formats = {path: {"weight": number_format} for path in info["assignment"]}
    first = parameter_uses(graph).stored[0]
    weight = number_format.quantize(model.layer.weight)
    if original:
        assert "what is computed from it" in first.why_float_in(formats["layer"])
    else:
        assert torch.equal(new.model(x), F.linear(x, weight) @ weight.T)
        assert shared_parameters(graph)[0].keys() == {("layer", "weight"), ("matmul", "weight")}
        assert cost(graph, formats=formats).total("stored_bytes") == number_format.bits(weight.shape) / 8
