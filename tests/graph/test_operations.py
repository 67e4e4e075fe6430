"""What a row of the table of operations claims is what torch does, for every function of that name."""

import functools
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.graph import axes_functions, axes_layers, trace, width_groups
from paretobit.graph.operations import OF_DATA, OPERATIONS, Operand, Operation, Switch
from paretobit.nn import LAYERS, Quantized
from paretobit.passes.analysis.cost import cost, counting

pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns of the odder calls
ROWS = {entry.name: entry.value for entry in OPERATIONS}
PLACES = (Tensor, torch, F, torch.linalg)


def _inputs():
    torch.manual_seed(0)
    square, row, batch = torch.rand(4, 4) + 0.1, torch.rand(4) + 0.1, torch.rand(2, 4, 4) + 0.1
    image, whole = torch.rand(2, 4, 6, 6) + 0.1, torch.arange(4)
    complex_, flags = torch.rand(4, 2, dtype=torch.complex64), torch.tensor([True, False, True, False])
    return square, batch, row, image, whole, complex_, flags, torch.rand(2, 4, 3, 3, 3), torch.rand(4, 2)


def _rests():
    square, batch, row, _, whole, _, flags, _, pairs = _inputs()
    index, table = torch.tensor([[0, 1], [1, 0], [0, 1], [1, 1]]), torch.rand(4, 4) + 0.1
    mean, variance, kernel = torch.zeros(4), torch.ones(4), torch.rand(4, 4, 3, 3)
    return (
        *((), (1,), (0, 1), (2,), (square.clone(),), (square.clone(), table), (batch.clone(),)),
        *((batch.clone(), batch.clone()), (row.clone(),), (row.clone(), row.clone()), (1, 2), ((1, 0),)),
        *(((2, 8),), (1, (2, 2)), (1, index), (1, index, square.clone()), (flags,), (flags, 0.5), ((1, 1),)),
        *((mean, variance), ((4,),), (0.5, False), (1, whole, 0.5), (1, whole, square.clone()), (torch.float64,)),
        *((0, 1, 2), (2, 1), (kernel,), (kernel[..., 0],), (kernel[0],), (4,), (0.5, 1, 2), (0.1, 0.3, False)),
        *((row.clone(), square.clone(), pairs[:, :2].clone()), (4, 4), ((4, 4), (4, 1)), (pairs,), (0, 1, 1, 1)),
        *((torch.rand(4, 4, 3, 3, 3),), (kernel, mean), (2, (0.5, 0.5)), ("ij,jk->ik", square), (4, 0.5)),
    )


def calls(name):
    """Calls of a function by any of its names that run: the function and its arguments."""
    row = ROWS[name]
    spellings = [getattr(place, own, None) for own in (name, *row.aliases) for place in PLACES]
    off = {
        key: None if key == "max_norm" else False
        for o in (row.random, row.writes)
        if isinstance(o, Switch)
        for key in o.names[:1]
    }
    for function in filter(callable, spellings):
        for named in (off, {}):
            found = next(filter(None, (_run(function, call, named) for call in _drawn(function))), None)
            if found is not None:
                yield function, *found
                break


def _drawn(function):
    square, *_ = _inputs()
    if function is torch.einsum:
        yield "ij,jk->ik", square, square.clone()
    for first, rest in itertools.product(_inputs(), _rests()):
        yield first, *rest
    yield from ((), (4,), (4, 4), ([square, square.clone()],), (square, [square]), ((4, 4), 0.5), ([1.0, 2.0],))
    yield from ((torch.arange(4), square), (0.0, 1.0, (4,)), (1.0,), (0, 4, 5), (0, 9, (4,)))


def _run(function, call, named):
    given = _copied(call)
    try:
        result = function(*given, **named)
    except Exception:  # whatever torch says of arguments that do not fit
        return None
    if result is NotImplemented:
        return None
    return _copied(call), named


def _copied(value):
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, value)


def tensors(value):
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def storages(value):
    return {t.untyped_storage().data_ptr() for t in tensors(value) if t.numel()}


@functools.cache
def drawn_of(name):
    """Drawn when first asked for."""
    return tuple(calls(name))


def drawn(*kinds, where=lambda row: True):
    return [(n, *call) for n in ROWS if ROWS[n].kind in kinds and where(ROWS[n]) for call in drawn_of(n)]


def test_most_functions_of_torch_that_have_a_row_are_drawn():
    functions = [n for n in ROWS if any(callable(getattr(place, n, None)) for place in PLACES)]
    missed = [name for name in functions if not drawn_of(name)]
    assert len(functions) > 380
    assert len(missed) < 0.1 * len(functions), missed


def test_a_view_shares_the_memory_of_its_first_argument():
    calls = drawn("view", where=lambda row: row.writes is not True)
    wrong = [
        name
        for name, function, args, named in calls
        if tensors(args) and not storages(function(*args, **named)) <= storages(args)
    ]
    assert wrong == []
    assert len({name for name, *_ in calls}) > 45


SEVERAL = ("meshgrid", "broadcast_tensors")  # views of several arguments, each of its own


def test_what_is_no_view_has_memory_of_its_own_or_is_the_argument_itself():
    wrong, kinds = [], ("copy", "elementwise", "norm", "softmax", "reduction", "product", "make")
    for name, function, args, named in drawn(*kinds):
        given = tensors(args)
        new = [t for t in tensors(function(*args, **named)) if all(t is not one for one in given)]
        if storages(new) & storages(given) and name not in SEVERAL and function is not Tensor.unfold:
            wrong.append((name, function))
    assert wrong == []


def test_views_that_restore_the_order_of_memory_share_it_only_where_it_is_in_order():
    ordered, x = torch.rand(4, 6), torch.rand(6, 4).t()
    rests = {"reshape": (24,), "reshape_as": (torch.rand(24),)}
    for name in (name for name, row in ROWS.items() if row.order == "restores"):
        function, rest = getattr(Tensor, name), rests.get(name, ())
        assert storages(function(ordered, *rest)) == storages(ordered)
        assert storages(function(x, *rest)) != storages(x), name


def _state():
    return torch.get_rng_state()


UNWRITTEN = ("empty", "new_empty")


def test_what_is_random_draws_and_nothing_else_does():
    still, moving = [], []
    for name, function, args, named in drawn(*{row.kind for row in ROWS.values()}):
        if name.startswith(UNWRITTEN) or name == "manual_seed":
            continue
        before = _state()
        function(*_copied(args), **named)
        drew = not torch.equal(before, _state())
        if ROWS[name].random is True and not drew:
            still.append(name)
        if ROWS[name].is_pure(args, named) and drew:
            moving.append(name)
    assert (still, moving) == ([], [])


def test_what_is_switched_draws_where_it_is_on_alone():
    x = torch.rand(2, 4, 6) - 0.5
    switched = [n for n, row in ROWS.items() if isinstance(row.random, Switch) and hasattr(F, n)]
    for name in switched:
        function = getattr(F, name)
        rest = (x, x) if name == "scaled_dot_product_attention" else ()
        key = ROWS[name].random.names[0]
        for value in (False, True):
            named = {key: 0.5 * value if key == "dropout_p" else value}
            before = _state()
            function(x, *rest, **named)
            assert torch.equal(before, _state()) is ROWS[name].is_pure((x, *rest), named) is not value
        default = _state()
        function(x, *rest)
        assert torch.equal(default, _state()) is ROWS[name].is_pure((x, *rest), {})
    assert len(switched) >= 8


def _alike(one, two):
    return bool((torch.view_as_real(one.cfloat()) if one.is_complex() else one).isnan().any()) or (
        one.shape == two.shape and bool((one == two).all())
    )


def test_pure_functions_give_the_same_again_and_leave_their_arguments_alone():
    wrong = []
    for name, function, args, named in drawn(*{row.kind for row in ROWS.values()}):
        if not ROWS[name].is_pure(args, named):
            continue
        versions = [t._version for t in tensors(args)]
        one = tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, function(*args, **named))
        two = function(*args, **named)
        same = all(map(_alike, tensors(one), tensors(two)))
        in_place = "_" in str(getattr(function, "__name__", ""))[-1:]
        if not same or (versions != [t._version for t in tensors(args)] and not in_place):
            wrong.append(name)
    assert wrong == []


def test_a_norm_that_keeps_statistics_is_not_pure():
    mean, variance, x = torch.zeros(4), torch.ones(4), torch.rand(3, 4, 5) + 1
    for function, key in ((F.batch_norm, "training"), (F.instance_norm, "use_input_stats")):
        row = OPERATIONS[function.__name__]
        for value in (False, True):
            before = mean.clone()
            function(x, mean, variance, **{key: value})
            assert torch.equal(before, mean) is row.is_pure((x, mean, variance), {key: value}) is not value


def test_comparisons_give_no_floats_and_questions_no_tensors():
    answers = [(n, t.dtype) for n, f, a, k in drawn("comparison") for t in tensors(f(*a, **k))]
    asked = {name for name, dtype in answers if dtype.is_floating_point or dtype.is_complex}
    assert asked <= {"histc", "histogram", "lshift", "rshift"}  # counts, and numbers shifted
    assert [n for n, f, a, k in drawn("question") if n != "grad" and tensors(f(*_copied(a), **k))] == []


def test_operands_lie_where_the_row_says():
    wrong = [
        (name, operand)
        for name, _, args, _ in drawn(*{row.kind for row in ROWS.values()})
        for operand in ROWS[name].operands
        if operand.slot != "bias"
        and operand.position < len(args)
        and not isinstance(operand.find(args, {}), Tensor)
        and operand.find(args, {}) is not None
        and name not in ("add", "sub", "mul", "div")
    ]
    assert wrong == []


class Call(nn.Module):
    def __init__(self, function, args, named):
        super().__init__()
        self.function, self.args, self.named = function, args, named

    def forward(self, given):
        """The first tensor is given, rows first; the others are constants."""
        first = next(i for i, arg in enumerate(self.args) if isinstance(arg, Tensor))
        return self.function(*self.args[:first], given, *self.args[first + 1 :], **self.named)


def test_what_torch_counts_is_a_product_and_counted_as_torch_counts_it():
    products, wrong = set(), []
    for name, function, args, named in drawn(*{row.kind for row in ROWS.values()}):
        if name in ("matmul", "imatmul") and function is getattr(torch.linalg, "matmul", None):
            continue
        with (
            FlopCounterMode(display=False) as counter,
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        ):
            function(*_copied(args), **named)
        flops = counter.get_total_flops()
        if not flops:
            continue
        products.add(name)
        given = tensors(list(args))
        if not ROWS[name].is_product:
            wrong.append((name, "is no product"))
        elif ROWS[name].cost != "unknown" and all(isinstance(a, Tensor) for a in tensors(args)):
            report = cost(trace(Call(function, args, named), given[0]))
            rows = report.total("forward_flops") * len(given[0])
            if rows != flops and report.total("forward_flops") != flops:
                wrong.append((name, function, rows, flops, [tuple(t.shape) for t in given]))
    assert wrong == []
    assert {"linear", "conv2d", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum"} <= products


def test_no_row_contradicts_itself():
    known = {*counting.WORDS, "unknown"}
    widths = {*axes_functions.RULES, *axes_layers.RULES}
    for name, row in ROWS.items():
        assert row.cost in known, name
        assert row.widths is None or row.widths in widths, name
        assert row.order == "same" or row.is_view, name
        assert not (row.moves_only and row.cost in ("elementwise", "norm", "softmax")), name
        assert not (row.is_product and (row.nothing_to_quantize or row.passes_on)), name
        assert not (row.passes_on and not row.nothing_to_quantize), name
        assert row.is_product or row.cost not in counting.PRODUCTS, name
        assert not (row.is_view and row.operands), name
        slots = [operand.slot for operand in row.operands]
        assert set(slots) <= {"data_in", "weight", "bias"}, name
        assert not (row.is_product and slots) or {"data_in", "weight"} <= set(slots), name


def test_every_name_leads_to_one_row():
    names = [alias for name, row in ROWS.items() for alias in (name, *row.aliases)]
    assert len(names) == len(set(names))
    assert all(OPERATIONS.find(alias) is ROWS[name] for name, row in ROWS.items() for alias in row.aliases)


@pytest.mark.parametrize("name", ["moveaxis", "swapdims", "ravel", "hsplit", "swapaxes", "diagonal", "atleast_2d"])
def test_no_spelling_of_a_view_is_said_to_be_unquantisable(name):
    from paretobit.passes.layers.quantizable import unsupported

    rest = {"moveaxis": (1, 2), "swapdims": (1, 2), "swapaxes": (1, 2), "hsplit": (2,)}.get(name, ())

    class View(nn.Module):
        def forward(self, x):
            return getattr(torch, name)(x, *rest)

    graph = trace(View(), torch.zeros(2, 4, 6))
    assert unsupported(graph) == {}
    assert cost(graph).uncounted == ()


@pytest.fixture
def registered():
    names = []

    def register(name, row):
        OPERATIONS.register(name)(row)
        names.append(name)

    yield register
    for name in names:
        OPERATIONS.remove(name)


def test_a_function_of_torchs_that_has_no_row_is_unknown_until_it_gets_one(registered):
    from paretobit.formats import Integer
    from paretobit.passes.layers.assignment import apply_assignment
    from paretobit.passes.layers.quantizable import unsupported

    class Bessel(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.last(torch.special.bessel_j1(self.first(x)))

    torch.manual_seed(0)
    model, x = Bessel(), torch.rand(3, 4)
    graph = trace(model, x)
    assert cost(graph).uncounted_ops == {"special_bessel_j1": ("special_bessel_j1",)}
    assert list(unsupported(graph)) == ["special_bessel_j1"]
    assert "special_bessel_j1" in width_groups(graph)["first"].frozen
    registered("special_bessel_j1", Operation("elementwise", OF_DATA))
    graph = trace(model, x)
    assert cost(graph).uncounted_ops == {} == unsupported(graph)
    assert cost(graph).total("other_flops") == 6
    assert width_groups(graph)["first"].frozen is None
    data = Integer(4, 2)
    apply_assignment(model, {"special_bessel_j1": {"data_in": data}})
    with torch.no_grad():
        expected = model.last(torch.special.bessel_j1(data.quantize(model.first(x))))
        assert torch.equal(model(x), expected)


class Scaled(nn.Module):
    """A layer type that nobody else knows: a linear layer with one factor for all its outputs."""

    def __init__(self, takes, gives):
        super().__init__()
        self.weight, self.factor = nn.Parameter(torch.randn(gives, takes)), 0.5

    def forward(self, x):
        return self.factor * F.linear(x, self.weight)


class QuantizedScaled(Quantized, Scaled):
    slot_names = ("data_in", "weight")

    def forward(self, x):
        return self.factor * F.linear(self.data("data_in", x), self.parameter("weight"))


def scaled_cost(node, module, operands):
    takes = module.weight.shape[1]
    return (counting.MatrixProduct(node.output_elements * takes, takes),)


def scaled_widths(walk, node, module, x):
    gives = walk.produced(node, len(module.weight))
    walk.own(node, weight_summed_1=(gives, x.dims[-1]))
    walk.layer(node, x.dims[-1], gives)
    return x.replaced(-1, gives)


def test_a_layer_type_of_ones_own_is_a_row_and_a_class(registered):
    torch.manual_seed(0)
    model, x = nn.Sequential(Scaled(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval(), torch.rand(3, 4)
    assert [node.op for node in trace(model, x) if node.is_call][:2] == ["linear", "mul"]
    registered("scaled", Operation("product", cost=scaled_cost, widths=scaled_widths, layer=Scaled))
    LAYERS.register("scaled")(QuantizedScaled)
    try:
        graph = trace(model, x)
        assert [node.op for node in graph.layers] == ["scaled", "relu", "linear"]
        assert cost(graph).total("macs") == 4 * 6 + 6 * 2
        assert width_groups(graph)["0"].frozen is None
        study = pb.search(
            model,
            evaluate=lambda m: {"error": (m(x) - model(x)).norm().item()},
            example=x,
            space=pb.Quantize(by="type", seed={"scaled": {"name": "scaled_integer", "weight_width": [2, 8]}}),
            minimize=["error", "model_size"],
            n_trials=2,
        )
        sizes = {t.config["0.weight_width"]: t.metrics["model_size"] for t in study.trials}
        assert sizes == {w: (24 * w + 32) / 8 + 4 * 14 for w in (2, 8)}
        number_format = study.trials[0].model()[0].slots["weight"]
        found = next(t for t in study.trials).model()
        expected = model[2](model[1](0.5 * F.linear(x, number_format.quantize(model[0].weight))))
        assert torch.allclose(found(x), expected)
    finally:
        LAYERS.remove("scaled")


def test_a_name_that_is_taken_is_refused(registered):
    with pytest.raises(BadInput, match="the operation 'div' has this name already: found 'truediv'"):
        registered("mine", Operation("elementwise", OF_DATA, aliases=("truediv",)))
    assert "mine" not in OPERATIONS
    with pytest.raises(BadInput, match="unknown kind of operation"):
        Operation("elementwize", (Operand("data_in", 0, ("input",)),))
