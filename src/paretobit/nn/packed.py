"""Linear layers that keep their weight packed as MXINT8 and unpack it at every call.

A block of 32 weights of one output is 32 bytes of elements and one byte of scale (E8M0, the exponent
plus 127), as in section 5 of the OCP Microscaling Formats Specification 1.0: 8.25 bits a weight.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.formats import FULL, MXINT8, Format
from paretobit.graph.copies import copy_of
from paretobit.nn.linear import QuantizedLinear
from paretobit.nn.quantized import Quantized

_BLOCK, _BIAS, _FRACTION_BITS, _MANTISSA_BITS = 32, 127, 6, 23
_FORMAT = MXINT8(block_size=_BLOCK)


class PackedLinear(nn.Module):
    """`nn.Linear` whose weight is stored as MXINT8; its output is that of `mxint8` in the weight slot.

    Args:
        layer: A linear layer, quantised or not. The format of its data is kept, and its bias as it is
            in the format it has; the layer is not changed.

    Raises:
        BadInput: The weight carries another format, or has values that MXINT8 cannot hold: NaN, infinite.
    """

    elements: Tensor
    """Codes, int8 `(out, blocks, 32)`; the last block is filled up with zeros."""
    scales: Tensor
    """E8M0, uint8 `(out, blocks, 1)`."""
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        slots = layer.slots if isinstance(layer, Quantized) else {}
        given = slots.get("weight", FULL)
        if given not in (FULL, _FORMAT):
            problem = "a weight of another format cannot be packed"
            raise BadInput(problem, found=str(given), allowed=f"full precision or {_FORMAT}")
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.data_in: Format = slots.get("data_in", FULL)
        self._dtype = layer.weight.dtype
        with torch.no_grad():
            elements, scales = pack(layer.weight)
            given_bias: Tensor | None = layer.bias
            bias = None if given_bias is None else slots.get("bias", FULL).quantize(given_bias).clone()
        self.register_buffer("elements", elements)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", bias)

    @property
    def weight(self) -> Tensor:
        """The weight `(out, in)`, unpacked now."""
        return unpack(self.elements, self.scales, self.in_features).to(self._dtype)

    def forward(self, input: Tensor) -> Tensor:
        """`(..., in_features)` to `(..., out_features)`."""
        data = input if self.data_in is FULL else self.data_in.quantize(input)
        return F.linear(data, self.weight, self.bias)

    def extra_repr(self) -> str:
        """As `nn.Linear`'s, with the format of the data where there is one."""
        data = "" if self.data_in is FULL else f", data_in={self.data_in}"
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}{data}"


def pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight `(out, in)` as MXINT8: elements, int8 `(out, blocks, 32)`, and scales, uint8 `(out, blocks, 1)`.

    Raises:
        BadInput: NaN, infinite, or values whose codes do not fit.
    """
    if not torch.isfinite(weight).all():
        raise BadInput("a weight that is NaN or infinite cannot be packed")
    gap = -weight.shape[1] % _BLOCK
    exact, shape = weight.detach(), (len(weight), -1, _BLOCK)
    blocks, quantised = (F.pad(w, (0, gap)).double().view(shape) for w in (exact, _FORMAT.quantize(exact)))
    largest = blocks.abs().amax(-1, keepdim=True)
    exponent = (torch.frexp(largest).exponent - 1).clamp(-_BIAS, _BIAS)  # frexp's mantissa is in [0.5, 1)
    codes = torch.ldexp(quantised, _FRACTION_BITS - exponent)
    elements = codes.to(torch.int8)
    if not torch.equal(elements.double(), codes):
        raise BadInput(f"{_FORMAT} gives this weight values that are no codes", found=str(weight.dtype))
    return elements, (exponent + _BIAS).to(torch.uint8)


def unpack(elements: Tensor, scales: Tensor, width: int) -> Tensor:
    """The weight `(out, width)` in float32, exactly: what `pack` stored.

    The scale's byte is the exponent field of a float32; only 2^-127, byte 0, is a subnormal number.
    """
    scale = scales.int().bitwise_left_shift(_MANTISSA_BITS).clamp_(min=1 << (_MANTISSA_BITS - 1))
    step = scale.view(torch.float32) * 2.0**-_FRACTION_BITS
    return (elements * step).flatten(1)[:, :width]


def pack_linears(model: nn.Module) -> tuple[nn.Module, tuple[str, ...], dict[str, str]]:
    """A copy of a model whose linear layers keep their weights packed.

    Only layers that are exactly `nn.Linear`, quantised or not: a subclass may read its weight in its own
    way. A weight that is tied to another layer's is packed here and stays as it is there.

    Returns:
        The copy; the paths of the layers that are packed; the paths of the linear layers that are not, with
        the reason.
    """
    copied = copy_of(model)
    made: dict[int, PackedLinear] = {}
    packed, left = [], {}
    for path, module in list(copied.named_modules(remove_duplicate=False)):
        if not isinstance(module, nn.Linear):
            continue
        if type(module) not in (nn.Linear, QuantizedLinear):
            left[path] = f"a {type(module).__name__} is not packed"
            continue
        try:
            replacement = made.get(id(module)) or PackedLinear(module)
        except BadInput as error:
            left[path] = str(error)
            continue
        made[id(module)] = replacement
        packed.append(path)
        if not path:
            return replacement, ("",), {}
        parent, _, name = path.rpartition(".")
        setattr(copied.get_submodule(parent), name, replacement)
    return copied, tuple(packed), left
