"""Ways to count: what one node costs, given what it computes and the formats of its slots.

`standard`: per sample. FLOPs = 2 × MACs; BitOPs = MACs × data bits × weight bits; the backward pass
    takes twice the forward pass (a gradient for the data, one for the weights). Norms, activations,
    softmax, pooling and elementwise operations count in `other_flops` only.
`lab2`: the FLOPs and BitOPs table of the reports: a MAC counts one, the batch is counted, BatchNorm
    takes 4 per element and × data bits × weight bits, ReLU one per element and × data bits, the
    backward pass twice the forward pass for layers of MACs and once otherwise; parameters without
    the bias of those layers.
`lab3`: the formulas printed in the second report, the batch counted: a linear layer takes one per
    MAC; BatchNorm `8 × batch × features + 1` (mean, variance, denominator, and 4 per element); ReLU
    one per element; BitOPs only of linear layers, `(2 × terms − 1) × data bits × weight bits` and
    the bits of the bias for each output; bytes of parameters at the widths of their slots, and for
    a BatchNorm's statistics `data bits × (features + 1)` bits. It prints no backward pass, and
    nothing for layers of other kinds: convolutions and products count as linear layers do.

BOPs are those of Hawks et al. 2021 ("Ps and Qs: Quantization-aware pruning for efficient low latency
neural network inference") in every convention, per sample: each MAC takes
`(1 − f) × data bits × weight bits + data bits + weight bits + log2(terms)`, `f` the fraction of the
weights that is zero.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import nn

from paretobit.formats import FULL, Format
from paretobit.graph import Node
from paretobit.passes.analysis.cost.counting import Products
from paretobit.passes.analysis.layer_bits import LayerBits

Convention = Literal["standard", "lab2", "lab3"]
CONVENTIONS: tuple[str, ...] = get_args(Convention)
Slots = Mapping[str, Format]
NO_FORMATS: Slots = {}


@dataclass(frozen=True)
class NodeCost:
    """Cost of one node.

    Parameters, FLOPs and BitOPs are in the convention asked for; the rest is per sample in every
    convention. A tensor that several nodes use counts at the first. A node whose operation the
    counter does not know has `counted` False and no operations.

    Attributes:
        node: Its name.
        op: Its operation.
        parameters: Elements of its parameters.
        macs: Multiply-accumulates.
        forward_flops: Operations of the forward pass.
        backward_flops: Operations of the backward pass; None where the convention has no formula.
        forward_bitops: Bit operations of the forward pass.
        backward_bitops: Bit operations of the backward pass; None likewise.
        bops: Bit operations after Hawks et al. 2021, zero weights left out.
        other_flops: Operations that are no multiply-accumulates.
        activations: Elements of its results; 0 where they are views of its arguments.
        sparsity: Fraction of its weights that is exactly zero; None where nobody counted.
        bits: Elements and bits of its parameters, statistics and input.
        stored_bytes: Bytes of its parameters and running statistics.
        counted: Whether its operation is known.
    """

    node: str
    op: str
    parameters: int = 0
    macs: int = 0
    forward_flops: int = 0
    backward_flops: int | None = 0
    forward_bitops: int = 0
    backward_bitops: int | None = 0
    bops: float = 0.0
    other_flops: int = 0
    activations: int = 0
    sparsity: float | None = None
    bits: LayerBits = field(default_factory=LayerBits)
    stored_bytes: float = 0.0
    counted: bool = True

    @property
    def average_bitwidth(self) -> float | None:
        """Bits per element of its parameters and input; None where it has none that count."""
        return self.bits.average_width


@dataclass(frozen=True)
class Counts:
    """What a node computes, before any convention.

    Attributes:
        node: The call.
        module: The layer; None for a function.
        slots: Formats of its slots.
        products: Its matrix products.
        other: Operations that are no MACs, one sample.
        parameters: Elements of its parameters that count here.
        batch: Rows that `lab2` and `lab3` count.
    """

    node: Node
    module: nn.Module | None
    slots: Slots
    products: Products
    other: int
    parameters: int
    batch: int

    @property
    def macs(self) -> int:
        """Of one sample."""
        return sum(product.macs for product in self.products)

    def width(self, slot: str) -> int:
        """Bits of an element in a slot; 32 where no format is set."""
        return self.slots.get(slot, FULL).element_bits

    @property
    def width_product(self) -> int:
        """Data bits × weight bits."""
        return self.width("data_in") * self.width("weight")


@dataclass(frozen=True)
class Operations:
    """Operations of one node in one convention; None where the convention has no formula."""

    flops: int
    bitops: int
    backward_flops: int | None
    backward_bitops: int | None
    parameters: int


def standard(counts: Counts) -> Operations:
    """Two operations a MAC."""
    flops, bitops = 2 * counts.macs, counts.macs * counts.width_product
    return Operations(flops, bitops, 2 * flops, 2 * bitops, counts.parameters)


def lab2(counts: Counts) -> Operations:
    """The table of the reports."""
    parameters, backward = counts.parameters, 1
    if counts.products:
        flops, width, backward = counts.macs * counts.batch, counts.width_product, 2
        bias = getattr(counts.module, "bias", None)
        parameters -= bias.numel() if isinstance(bias, nn.Parameter) and parameters else 0
    elif counts.node.op.startswith("batch_norm"):
        flops, width = 4 * _inputs(counts), counts.width_product
    elif counts.node.op == "relu":
        flops, width = _inputs(counts), counts.width("data_in")
    else:
        flops, width = 0, 0
    bitops = flops * width
    return Operations(flops, bitops, backward * flops, backward * bitops, parameters)


def lab3(counts: Counts) -> Operations:
    """The formulas printed in the second report."""
    flops = bitops = 0
    if counts.products:
        flops, bitops = counts.macs * counts.batch, _lab3_bitops(counts) * counts.batch
    elif counts.node.op.startswith("batch_norm"):
        flops = 8 * _inputs(counts) + 1
    elif counts.node.op == "relu":
        flops = _inputs(counts)
    return Operations(flops, bitops, None, None, counts.parameters)


def _inputs(counts: Counts) -> int:
    return (counts.node.input_elements or 0) * counts.batch


def _lab3_bitops(counts: Counts) -> int:
    """`outputs × (terms × w + (terms − 1) × w + bias bits)` with `w` = data bits × weight bits."""
    outputs = sum(product.macs // product.terms for product in counts.products)
    bias = getattr(counts.module, "bias", None) is not None
    per_output = counts.width("bias") if bias else 0
    return (2 * counts.macs - outputs) * counts.width_product + outputs * per_output


def lab3_bytes(counts: Counts, bits: LayerBits) -> float:
    """The report's size of a model: statistics take the width of the data, and one value more."""
    statistics = 0
    if isinstance(counts.module, nn.modules.batchnorm._BatchNorm) and bits.statistics_bits:
        statistics = counts.width("data_in") * (int(counts.module.num_features) + 1)
    return (bits.weight_bits + statistics) / 8


def bops(counts: Counts, sparsity: float) -> float:
    """BOPs of Hawks et al. 2021, summed over the products of a node.

    >>> from paretobit.passes.analysis.cost.counting import MatrixProduct
    >>> node = Node("fc", "call_module", "linear", "fc")
    >>> bops(Counts(node, None, {}, (MatrixProduct(64 * 32, 64),), 0, 0, 1), 0.5)
    1191936.0
    """
    data, weight = counts.width("data_in"), counts.width("weight")
    dense = (1 - sparsity) * data * weight + data + weight
    return float(sum(p.macs * (dense + math.log2(p.terms)) for p in counts.products if p.macs))


OPERATIONS = {"standard": standard, "lab2": lab2, "lab3": lab3}
