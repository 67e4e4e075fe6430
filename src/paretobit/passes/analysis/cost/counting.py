"""Multiply-accumulates of every operation that has some, for one sample."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from paretobit.errors import BadInput
from paretobit.graph import Node, Shape
from paretobit.graph.operations import OPERATIONS, row_of
from paretobit.passes.analysis.cost.operands import Operand, Operands


@dataclass(frozen=True)
class MatrixProduct:
    """A matrix product, or what costs like one.

    Attributes:
        macs: Multiply-accumulates of one sample.
        terms: Products that are added up for one number of the result.
    """

    macs: int
    terms: int


Products = tuple[MatrixProduct, ...]
_Count = Callable[[Node, nn.Module | None, Operands], Products | None]


def products(node: Node, module: nn.Module | None) -> Products | None:
    """The products that a node computes; None where its operation is none that is known to have some.

    Args:
        node: The call.
        module: The layer that is called; None for a function.

    Raises:
        BadInput: Nothing ran: shapes are unknown.
    """
    rule = row_of(node.op).cost
    count = PRODUCTS.get(rule) if isinstance(rule, str) else rule
    if not node.is_call or elements(node) is None:
        return None
    single = node.of_one_row
    found = None if count is None else count(single, module, Operands(single))
    return _by_torch(node) if found is None else found


def _by_torch(node: Node) -> Products | None:
    """What torch's own counter said when the model was traced."""
    macs = node.counted_macs
    if not macs:
        return None
    return (MatrixProduct(macs, max(1, macs // max(1, node.output_elements or 0))),)


def elements(node: Node) -> int | None:
    """Elements of a node's result for one sample; None where it has none that a run showed.

    Raises:
        BadInput: Nothing ran: shapes are unknown.
    """
    if node.output_shape is None and node.batch is None:
        raise BadInput(f"the shapes of layer '{node.name}' are unknown: costs need example inputs")
    return node.output_elements


def _one(node: Node, terms: int | None) -> Products | None:
    """A product with so many terms for each number of the result."""
    return None if terms is None else (MatrixProduct((node.output_elements or 0) * terms, terms),)


def _weight(module: nn.Module | None, operands: Operands) -> Shape | None:
    if module is None:
        return operands.shape(1, "weight")
    weight = getattr(module, "weight", None)
    return tuple(weight.shape) if isinstance(weight, Tensor) else None


def _linear(node: Node, module: nn.Module | None, operands: Operands) -> Products | None:
    weight = _weight(module, operands)
    if not weight:
        return None
    transposed = module is not None and not isinstance(module, nn.Linear)  # transformers' Conv1D
    return _one(node, weight[0 if transposed else -1])


def _conv(node: Node, module: nn.Module | None, operands: Operands) -> Products | None:
    weight = _weight(module, operands)
    return _one(node, math.prod(weight[1:])) if weight else None


def _conv_transpose(node: Node, module: nn.Module | None, operands: Operands) -> Products | None:
    """Every input meets the whole kernel of its group; the terms of an output are their average."""
    weight = _weight(module, operands)
    if not weight or node.input_elements is None:
        return None
    macs = node.input_elements * math.prod(weight[1:])
    return (MatrixProduct(macs, max(1, -(-macs // max(1, node.output_elements or 0)))),)


def _contraction(first: int, name: str) -> _Count:
    """A product whose terms run over the last axis of its data, where the row does not say so at a position."""

    def count(node: Node, module: nn.Module | None, operands: Operands) -> Products | None:
        place = next((o.position for o in OPERATIONS.operands(node.op) if o.slot == "data_in"), first)
        names = next((o.names for o in OPERATIONS.operands(node.op) if o.slot == "data_in"), (name,))
        shape = next((shape for name in names if (shape := operands.shape(place, name))), None)
        return _one(node, shape[-1]) if shape else None

    return count


def _addbmm(node: Node, module: nn.Module | None, operands: Operands) -> Products | None:
    shape = operands.shape(1, "batch1")
    return _one(node, shape[0] * shape[-1]) if shape else None


def _tensordot(node: Node, module: nn.Module | None, operands: Operands) -> Products | None:
    """With `M × K`, `K × N` and `M × N` elements, the product of all three is the square of the MACs."""
    shapes = [operands.shape(0, "a"), operands.shape(1, "b"), node.output_shape]
    known = [math.prod(shape) for shape in shapes if shape is not None]
    return _one(node, math.isqrt(math.prod(known)) // max(1, known[-1])) if len(known) == 3 else None


def _einsum(node: Node, module: nn.Module | None, operands: Operands) -> Products | None:
    """Of two tensors: one MAC for each combination of all indices."""
    equation, tensors = operands.get(0, "equation"), operands.rest(1)
    if not isinstance(equation, str):
        return None
    letters = [re.sub(r"\s", "", part) for part in equation.partition("->")[0].split(",")]
    if len(tensors) == 1:
        return ()
    if len(tensors) != 2 or any(tensor.shape is None for tensor in tensors):
        return None
    sizes: dict[str, int] = {}
    for indices, tensor in zip(letters, tensors, strict=True):
        _take_sizes(sizes, indices, tensor.shape or ())
    total, result = math.prod(sizes.values()), math.prod(node.output_shape or ())
    terms = total // max(1, result)
    return _one(node, terms) if terms > 1 else ()  # an outer product adds nothing up


def _take_sizes(sizes: dict[str, int], indices: str, shape: Shape) -> None:
    """Sizes of the indices of one tensor; axes under an ellipsis are counted from the right."""
    before, dots, after = indices.partition("...")
    hidden = len(shape) - len(before) - len(after) if dots else 0
    names = [*before, *(f"axis {i}" for i in range(hidden, 0, -1)), *after]
    for name, size in zip(names, shape, strict=True):
        sizes[name] = max(size, sizes.get(name, 1))


def _attention_product(node: Node, module: nn.Module | None, operands: Operands) -> Products | None:
    """`softmax(q kᵀ) v`: both products, masked or not."""
    q, k, v = operands.shape(0, "query"), operands.shape(1, "key"), operands.shape(2, "value")
    if not q or not k or not v:
        return None
    result = node.output_elements or 0
    return _two_products(result // max(1, v[-1]), k[-2], q[-1], v[-1])


def _two_products(queries: int, keys: int, size: int, value_size: int) -> Products:
    """Scores of `queries` (heads included) for `keys`, and the weighted sums of the values."""
    return MatrixProduct(queries * keys * size, size), MatrixProduct(queries * keys * value_size, keys)


def _multihead_attention(node: Node, module: nn.Module | None, operands: Operands) -> Products | None:
    """Projections of query, key and value, the two products of all heads, and the output projection."""
    if not isinstance(module, nn.MultiheadAttention):
        return None
    shapes = [operands.shape(i, name) for i, name in enumerate(("query", "key", "value"))]
    found = [math.prod(shape) for shape in shapes if shape]
    if len(found) != 3:
        return None
    size = int(module.embed_dim)
    queries, keys = found[0] // size, found[1] // int(module.kdim)
    extra = (module.bias_k is not None) + bool(module.add_zero_attn)
    head = size // int(module.num_heads)
    widths = (size, int(module.kdim), int(module.vdim))
    projections = (MatrixProduct(n * size, width) for n, width in zip(found, widths, strict=True))
    attention = _two_products(queries * int(module.num_heads), keys + extra, head, head)
    return (*projections, *attention, MatrixProduct(queries * size * size, size))


def _bilinear(node: Node, module: nn.Module | None, operands: Operands) -> Products | None:
    """`x₁ᵀ W x₂` for each output: the first input meets all weights, the second what comes of that."""
    shape = tuple(module.weight.shape) if isinstance(module, nn.Bilinear) else operands.shape(2, "weight")
    if not shape:
        return None
    outputs, first, second = node.output_elements or 0, *shape[1:]
    return MatrixProduct(outputs * first * second, first), MatrixProduct(outputs * second, second)


def _recurrent(node: Node, module: nn.Module | None, operands: Operands) -> Products | None:
    """Each step meets every weight of every layer and direction, of the input, the state and the projection.

    Of packed sequences, as many steps as the example has in the mean.
    """
    weights = _recurrent_weights(module, operands)
    if not weights or node.input_elements is None or not node.input_shape:
        return None
    lengths = operands.get(1, "batch_sizes")  # of the function; the layer is given all in one
    of_function = module is None and isinstance(lengths, Operand) and len(lengths.shape or ()) == 1
    packed = of_function or operands.shape(0, "input") is None
    steps, rows = (node.input_shape[0], node.batch or 1) if packed else (node.input_elements // weights[0][1], 1)
    return tuple(MatrixProduct(steps * outputs * terms // rows, terms) for outputs, terms in weights)


def _recurrent_weights(module: nn.Module | None, operands: Operands) -> list[Shape]:
    """Shapes of the matrices of a recurrent layer, cell or function."""
    if isinstance(module, nn.RNNCellBase):
        return [tuple(module.weight_ih.shape), tuple(module.weight_hh.shape)]
    if isinstance(module, nn.RNNBase):
        return [tuple(weight.shape) for own in module.all_weights for weight in own if weight.dim() == 2]
    return [one.shape for one in operands.rest(2) if one.shape is not None and len(one.shape) == 2]


PRODUCTS: dict[str, _Count] = {
    "linear": _linear,
    "convolution": _conv,
    "transposed convolution": _conv_transpose,
    "contraction": _contraction(0, "input"),
    "contraction of the second": _contraction(1, "mat"),
    "contraction of all": _addbmm,
    "bilinear": _bilinear,
    "tensordot": _tensordot,
    "einsum": _einsum,
    "attention": _attention_product,
    "attention layer": _multihead_attention,
    "recurrent": _recurrent,
}
"""How products are counted, by the word that a row of the table of operations says."""

_PER_OUTPUT = {"elementwise": 1, "comparison": 1, "norm": 4, "softmax": 3}
"""Operations per element of the result: one; a norm subtracts, divides, multiplies and adds; a softmax
exponentiates, adds and divides."""

_NOTHING = ("view", "copy", "make", "question")

WORDS = (*PRODUCTS, *_PER_OUTPUT, *_NOTHING, "reduction", "resampling")
"""Every way to count that is known."""


def other_operations(node: Node, module: nn.Module | None) -> int | None:
    """Operations of one sample besides multiply-accumulates; None where the operation is not known."""
    cost = row_of(node.op).cost
    if not node.is_call or not node.output_shapes or cost in _NOTHING:
        return 0
    if cost in _PER_OUTPUT:
        return _PER_OUTPUT[str(cost)] * (node.output_elements or 0)
    if cost == "reduction":  # per element of the argument
        return node.input_elements or 0
    return _resampling(node, module) if cost == "resampling" else None


def takes_no_time(node: Node) -> bool:
    """Whether a node neither computes nor moves anything: views, questions, inputs and outputs."""
    if not node.is_call or row_of(node.op).kind in ("view", "question"):
        return True
    return node.batch is not None and not node.output_shapes


_NEIGHBOURS = {"nearest": 1, "nearest-exact": 1, "linear": 2, "bilinear": 4, "bicubic": 16, "trilinear": 8}


def _resampling(node: Node, module: nn.Module | None) -> int | None:
    """A weighted mean of the neighbours for each number of the result; the nearest is a copy."""
    operands = Operands(node)
    mode = operands.get(3, "mode", "nearest") if module is None else getattr(module, "mode", None)
    if mode == "area":
        return node.input_elements
    neighbours = _NEIGHBOURS.get(str(mode))
    return None if neighbours is None else 2 * (neighbours - 1) * (node.output_elements or 0)
