"""A function at its site is the same function on quantised operands, and in place where it was."""

import math

import pytest
import torch
from many_cases import each
from torch import nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.formats import Integer, ScaledInteger, make
from paretobit.graph import trace
from paretobit.graph.operations import OPERATIONS, Operand
from paretobit.nn import QuantizedFunction, TensorCache, add_site, function_slots, layer_at
from paretobit.nn.functions import function_terms, read_site
from paretobit.passes.layers.quantizable import function_name

DATA, WEIGHT, BIAS, WIDE = Integer(8, 5), Integer(6, 4), Integer(5, 3), Integer(28, 20)


class Calls(nn.Module):
    """A model that calls one function."""

    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, *tensors):
        return self.call(*tensors)


UNARY = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "glu": F.glu,
    "sigmoid": torch.sigmoid,
    "tanh": lambda x: x.tanh(),
    "softplus": F.softplus,
    "softsign": F.softsign,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "log_sigmoid": F.logsigmoid,
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: F.log_softmax(x, dim=-1),
    "softmin": lambda x: F.softmin(x, -1),
    "threshold": lambda x: F.threshold(x, 0.2, -1.0),
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "tanhshrink": F.tanhshrink,
    "mean": lambda x: x.mean(-1),
    "avg_pool1d": lambda x: F.avg_pool1d(x, 2),
    "max_pool1d": lambda x: F.max_pool1d(x, 2),
    "adaptive_avg_pool1d": lambda x: F.adaptive_avg_pool1d(x, 2),
    "adaptive_max_pool1d": lambda x: F.adaptive_max_pool1d(x, 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "max_pool2d": lambda x: F.max_pool2d(x, 2, stride=1),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, (1, 2)),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 1),
}
VOLUMES = {
    "avg_pool3d": lambda x: F.avg_pool3d(x, 2),
    "max_pool3d": lambda x: F.max_pool3d(x, 2),
    "adaptive_avg_pool3d": lambda x: F.adaptive_avg_pool3d(x, 1),
    "adaptive_max_pool3d": lambda x: F.adaptive_max_pool3d(x, 1),
}
D, W, B = "data_in", "weight", "bias"
CALLS = {  # function: the call, shapes of what it takes, and the slot of each
    **{op: (call, [(3, 4, 6)], [D]) for op, call in UNARY.items()},
    **{op: (call, [(2, 4, 4, 6)], [D]) for op, call in VOLUMES.items()},
    "add": (lambda x, y: x + y, [(3, 4), (4,)], [D, D]),
    "sub": (lambda x, y: torch.sub(x, y, alpha=2), [(3, 4), (4,)], [D, D]),
    "mul": (lambda x, y: x * y, [(3, 4), (3, 4)], [D, D]),
    "matmul": (lambda x, y: x @ y, [(2, 3, 4), (4, 5)], [D, W]),
    "mm": (torch.mm, [(3, 4), (4, 5)], [D, W]),
    "bmm": (lambda x, y: torch.bmm(x, mat2=y), [(2, 3, 4), (2, 4, 5)], [D, W]),
    "mv": (torch.mv, [(3, 4), (4,)], [D, W]),
    "linear": (F.linear, [(3, 4), (5, 4), (5,)], [D, W, B]),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, 2, 1), [(2, 3, 8), (4, 3, 3), (4,)], [D, W, B]),
    "conv2d": (lambda x, w, b: F.conv2d(x, weight=w, bias=b), [(2, 3, 5, 6), (4, 3, 2, 3), (4,)], [D, W, B]),
    "conv3d": (F.conv3d, [(2, 3, 4, 4, 4), (4, 3, 2, 2, 2), (4,)], [D, W, B]),
    "dot": (torch.dot, [(9,), (9,)], [D, W]),
    "vdot": (torch.vdot, [(9,), (9,)], [D, W]),
    "inner": (torch.inner, [(3, 4), (5, 4)], [D, W]),
    "einsum": (lambda x, w: torch.einsum("b...d, hdk -> b...hk", x, w), [(2, 3, 4), (2, 4, 5)], [D, W]),
    "tensordot": (lambda x, w: torch.tensordot(x, w, 2), [(2, 3, 4), (3, 4, 5)], [D, W]),
    "bilinear": (F.bilinear, [(3, 4), (3, 5), (2, 4, 5), (2,)], [D, D, W, B]),
    "grouped_mm": (
        lambda x, w: F.grouped_mm(x, w, offs=torch.tensor([1, 6], dtype=torch.int32)),
        [(6, 8), (2, 8, 4)],
        [D, W],
    ),
    "conv_transpose1d": (lambda x, w, b: F.conv_transpose1d(x, w, b, 2), [(2, 3, 8), (3, 4, 3), (4,)], [D, W, B]),
    "conv_transpose2d": (lambda x, w: F.conv_transpose2d(x, w, groups=2), [(2, 4, 5, 6), (4, 3, 2, 3)], [D, W]),
    "conv_transpose3d": (F.conv_transpose3d, [(2, 3, 4, 4, 4), (3, 4, 2, 2, 2), (4,)], [D, W, B]),
    "addmv": (torch.addmv, [(3,), (3, 4), (4,)], [B, D, W]),
    "addbmm": (torch.addbmm, [(5,), (2, 3, 4), (2, 4, 5)], [B, D, W]),
    "multi_head_attention_forward": (
        lambda x, w, b, o, c: F.multi_head_attention_forward(
            x, x, x, 4, 2, w, b, None, None, False, 0.0, o, c, training=False
        )[0],
        [(5, 2, 4), (12, 4), (12,), (4, 4), (4,)],
        [D, W, B, W, B],
    ),
    "addmm": (torch.addmm, [(5,), (3, 4), (4, 5)], [B, D, W]),
    "baddbmm": (torch.baddbmm, [(5,), (2, 3, 4), (2, 4, 5)], [B, D, W]),
    "prelu": (F.prelu, [(3, 4), (4,)], [D, W]),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (4,), w, b), [(3, 4), (4,), (4,)], [D, W, B]),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), [(3, 4, 5), (4,), (4,)], [D, W, B]),
    "rms_norm": (lambda x, w: F.rms_norm(x, (4,), w), [(3, 4), (4,)], [D, W]),
    "instance_norm": (lambda x, w, b: F.instance_norm(x, weight=w, bias=b), [(3, 4, 5), (4,), (4,)], [D, W, B]),
    "batch_norm": (
        lambda x, w, b: F.batch_norm(x, torch.zeros(4), torch.ones(4), w, b),
        [(3, 4), (4,), (4,)],
        [D, W, B],
    ),
}
every_call = each("op", CALLS)


def prepared(op, formats):
    """The plain model, one with a site, its inputs, and the slot of each input."""
    torch.manual_seed(0)
    call, shapes, slots = CALLS[op]
    plain, model = Calls(call), Calls(call)
    site = add_site(model, op, TensorCache(), function_name)
    site.set_slots(formats)
    return plain, model, [torch.randn(shape) for shape in shapes], slots


@every_call
@pytest.mark.parametrize("grad", [False, True])
def test_a_function_is_computed_on_quantised_operands(op, grad):
    formats = {D: DATA, W: WEIGHT, B: BIAS}
    plain, model, inputs, slots = prepared(op, {slot: formats[slot] for slot in set(CALLS[op][2])})
    quantized = [formats[slot].quantize(x) for slot, x in zip(slots, inputs, strict=True)]
    with torch.set_grad_enabled(grad):
        output = model(*inputs)
    assert torch.equal(output, plain(*quantized))
    assert not torch.equal(output, plain(*inputs))


@every_call
def test_each_slot_of_a_function_is_of_its_own_operand_alone(op):
    for slot in set(CALLS[op][2]):
        plain, model, inputs, slots = prepared(op, {slot: DATA})
        alone = [DATA.quantize(x) if s == slot else x for s, x in zip(slots, inputs, strict=True)]
        assert torch.equal(model(*inputs), plain(*alone))


@every_call
def test_wide_integers_come_close_to_float_and_no_format_is_float(op):
    plain, model, inputs, _ = prepared(op, dict.fromkeys(set(CALLS[op][2]), WIDE))
    expected = plain(*inputs)
    assert (model(*inputs) - expected).abs().max() <= 1e-4 * expected.abs().max()
    layer_at(model, op).set_slots({})
    assert torch.equal(model(*inputs), expected)


@every_call
def test_gradients_flow_to_every_operand_of_a_function(op):
    _, model, inputs, _ = prepared(op, dict.fromkeys(set(CALLS[op][2]), WIDE))
    for x in inputs:
        x.requires_grad_()
    (model(*inputs) * torch.linspace(0.5, 1.5, model(*inputs).numel()).view_as(model(*inputs))).sum().backward()
    assert all(x.grad.isfinite().all() and x.grad.abs().max() > 0 for x in inputs)


@every_call
def test_the_graph_knows_a_function_by_the_name_it_is_intercepted_by(op):
    plain, _, inputs, slots = prepared(op, {})
    example = [x.clone() for x in inputs]
    node = next(node for node in trace(plain, example) if node.op == op)
    assert node.site == op
    assert set(function_slots(op, node.args, node.kwargs)) == set(slots)


def test_every_function_is_tested():
    elsewhere = {"scaled_dot_product_attention", "embedding", "embedding_bag", "div", "rrelu"}
    assert CALLS.keys() | elsewhere == {entry.name for entry in OPERATIONS if entry.value.operands}


def test_a_function_that_is_not_known_is_refused():
    with pytest.raises(BadInput, match=r"cannot be quantised: found 'matmull'.*did you mean 'matmul'"):
        QuantizedFunction("matmull", 0, "", TensorCache())


def test_a_number_an_index_and_a_mask_are_no_operands_to_quantise():
    add = QuantizedFunction("add", 0, "", TensorCache())
    add.set_slots({D: Integer(2, 0)})
    x = torch.tensor([0.6, 5.0])
    assert add(x, 3.7, function=torch.add).tolist() == pytest.approx([4.7, 4.7])
    assert add(torch.tensor([7]), torch.tensor([9]), function=torch.add).tolist() == [16]


def test_a_table_is_looked_up_in_quantised_form():
    table, site = nn.Parameter(torch.randn(5, 3)), QuantizedFunction("embedding", 0, "", TensorCache())
    site.set_slots({W: WEIGHT})
    indices = torch.tensor([4, 1])
    assert torch.equal(site(indices, table, function=F.embedding), WEIGHT.quantize(table)[indices])
    bag = QuantizedFunction("embedding_bag", 0, "", TensorCache())
    bag.set_slots({W: WEIGHT})
    assert torch.equal(bag(indices[None], table, function=F.embedding_bag)[0], WEIGHT.quantize(table)[indices].mean(0))


def test_a_division_is_of_quantised_numbers():
    site = QuantizedFunction("div", 0, "", TensorCache())
    site.set_slots({D: DATA})
    x, y = torch.randn(9), torch.rand(9) + 1
    assert torch.equal(site(x, y, function=torch.div), DATA.quantize(x) / DATA.quantize(y))


@torch.no_grad()
def test_operands_that_are_parameters_are_quantised_once():
    layer, site = nn.Linear(3, 2), QuantizedFunction("linear", 0, "", TensorCache())
    site.set_slots({W: WEIGHT})
    weight = Operand(W, 1, ())
    assert site.operand(weight, layer.weight) is site.operand(weight, layer.weight)
    layer.weight.fill_(0.7)
    assert site.operand(weight, layer.weight).unique().tolist() == [0.6875]


IN_PLACE = {
    "relu": (lambda x: F.relu(x, inplace=True), 1),
    "relu of the tensor": (lambda x: x.relu_(), 1),
    "silu": (lambda x: F.silu(x, inplace=True), 1),
    "add": (lambda x, y: x.add_(y), 2),
    "add and assign": (lambda x, y: x.__iadd__(y), 2),
    "mul": (lambda x, y: x.mul_(y), 2),
}


@pytest.mark.parametrize("number_format", [DATA, ScaledInteger(8), make("mxint8")], ids=str)  # some return views
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("case", IN_PLACE)
def test_a_function_in_place_writes_into_the_tensor_it_was_given(case, grad, number_format):
    call, operands = IN_PLACE[case]
    model = Calls(call)
    add_site(model, case.split()[0], TensorCache(), function_name).set_slots({D: number_format})
    inputs = [torch.randn(20) for _ in range(operands)]
    expected = call(*(number_format.quantize(x) for x in inputs))
    with torch.set_grad_enabled(grad):
        given = inputs[0].clone().requires_grad_(grad) * 1.0
        output = model(given, *inputs[1:])
    assert output is given
    assert torch.equal(given, expected)


def attention_inputs(heads=2, shared=1):
    torch.manual_seed(1)
    key = (3, heads // shared, 5, 8)
    return torch.randn(3, heads, 4, 8), torch.randn(key), torch.randn(key)


MASK = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
ATTENTION = {
    "plain": {},
    "booleans mask": {"attn_mask": MASK},
    "a mask is added": {"attn_mask": torch.randn(3, 1, 4, 5)},
    "infinity masks": {"attn_mask": torch.zeros(4, 5).masked_fill(~MASK, -math.inf)},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.7, "attn_mask": MASK},
    "heads share keys": {"enable_gqa": True},
}


def attention(q, k, v, **options):
    """By hand: softmax(q kᵀ / √d + mask) v, a row without keys giving zero."""
    shared = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(shared, 1) for x in (k, v))
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * options.get("scale", q.shape[-1] ** -0.5)
    mask = options.get("attn_mask", torch.zeros(()))
    if options.get("is_causal"):
        mask = torch.arange(4)[:, None] >= torch.arange(5)
    mask = torch.zeros(()).masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else mask
    weights = torch.exp(scores + mask - scores.max())
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-30)
    return weights, v


@pytest.mark.parametrize("case", ATTENTION)
def test_attention_is_softmax_of_quantised_products(case):
    options = ATTENTION[case]
    q, k, v = attention_inputs(4, 2) if "enable_gqa" in options else attention_inputs()
    site = QuantizedFunction("scaled_dot_product_attention", 0, "", TensorCache())
    exact = F.scaled_dot_product_attention(q, k, v, **options)
    site.set_slots({D: WIDE, W: WIDE})
    output = site(q, k, v, function=F.scaled_dot_product_attention, **options)
    assert (output - exact).abs().max() <= 1e-4 * exact.abs().max()
    site.set_slots({D: DATA, W: WEIGHT})
    output = site(q, k, v, function=F.scaled_dot_product_attention, **options)
    probabilities, value = attention(DATA.quantize(q), WEIGHT.quantize(k), WEIGHT.quantize(v), **options)
    assert (output - DATA.quantize(probabilities) @ value).abs().max() <= 2**-4  # a tie may fall otherwise
    assert (output - exact).abs().max() > 1e-3


def test_attention_drops_probabilities_and_trains():
    q, k, v = (x.requires_grad_() for x in attention_inputs())
    site = QuantizedFunction("scaled_dot_product_attention", 0, "", TensorCache())
    site.set_slots({D: WIDE, W: WIDE})
    torch.manual_seed(0)
    site(q, k, v, MASK, 0.5, function=None).sum().backward()
    assert all(x.grad.isfinite().all() and x.grad.abs().max() > 0 for x in (q, k, v))
    ones = torch.ones_like(v)
    with torch.no_grad():
        sums = torch.stack([site(q, k, ones, dropout_p=0.5, function=None) for _ in range(200)])
    assert sums.std() > 0.1
    assert abs(sums.mean() - 1) < 0.05
    with pytest.raises(RuntimeError, match="either attn_mask or is_causal"):
        site(q, k, v, MASK, is_causal=True, function=None)


def test_terms_of_products_are_those_that_are_added_up():
    assert function_terms("linear", {D: (3, 4), W: (5, 4)}) == 4
    assert function_terms("matmul", {D: (2, 3, 7), W: (7, 5)}) == 7
    assert function_terms("conv2d", {D: (2, 3, 8, 8), W: (4, 3, 2, 5)}) == 30
    assert function_terms("add", {D: (2, 3)}) is None
    assert function_terms("conv2d", {D: (2, 3, 8, 8)}) is None


def test_a_site_is_read_as_it_is_written():
    assert read_site("a.b.matmul_12") == ("a.b", "matmul", 12)
    assert read_site("conv2d") == ("", "conv2d", 0)
    assert read_site("log_softmax_1") == ("", "log_softmax", 1)
    assert read_site("x.adaptive_avg_pool2d") == ("x", "adaptive_avg_pool2d", 0)


def test_a_function_is_printed_in_the_words_of_the_field():
    site = QuantizedFunction("scaled_dot_product_attention", 0, "", TensorCache())
    assert repr(site) == "ScaledDotProductAttention()"
    site.set_slots({W: WEIGHT})
    assert repr(site) == "ScaledDotProductAttentionInteger()"
    assert list(site.state_dict()) == []
