"""Quantised layers: one class per operation, with slots that take any format.

Setting the slots *is* applying a configuration. A slot at full precision leaves the operation
exactly as torch computes it.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.graph import op_name
from paretobit.nn.activation import WITHOUT_WEIGHTS, QuantizedPReLU, QuantizedReLU
from paretobit.nn.attention import QuantizedMultiheadAttention
from paretobit.nn.cache import TensorCache
from paretobit.nn.convolution import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, transposed_convolution
from paretobit.nn.embedding import QuantizedEmbedding, QuantizedEmbeddingBag
from paretobit.nn.linear import QuantizedBilinear, QuantizedLinear, is_conv1d, quantized_conv1d
from paretobit.nn.normalization import NORMALIZATIONS
from paretobit.nn.quantized import Quantized, present_slots, stands_for, swap_channels
from paretobit.nn.recurrent import RECURRENT
from paretobit.nn.subclass import quantized_subclass
from paretobit.registry import Registry


class Layers(Registry[type[Quantized]]):
    """Quantised layers by the word of their operation, found by the layer type that they stand for."""

    def __init__(self) -> None:
        super().__init__("quantised layer")
        self._by_type: dict[type[nn.Module], type[Quantized]] = {}

    def register(self, name: str, *, summary: str = "") -> Callable[[type[Quantized]], type[Quantized]]:
        """Decorator of a subclass of `Quantized` and of the layer type that it quantises."""
        file = super().register(name, summary=summary)

        def take(layer: type[Quantized]) -> type[Quantized]:
            self._by_type[stands_for(layer)] = file(layer)
            return layer

        return take

    def remove(self, name: str) -> None:
        """Take a class out again."""
        del self._by_type[stands_for(self[name])], self._entries[name]

    def of_type(self, kind: type[nn.Module]) -> type[Quantized] | None:
        """The class for layers of exactly this type; None where there is none."""
        return self._by_type.get(kind)

    @property
    def types(self) -> tuple[type[nn.Module], ...]:
        """The layer types that can be quantised."""
        return tuple(self._by_type)


LAYERS = Layers()
"""Every layer that can be quantised, and the class that does it; of functions the table of operations tells."""
_PRODUCTS = (QuantizedLinear, QuantizedBilinear, QuantizedMultiheadAttention)
_TABLES = (QuantizedEmbedding, QuantizedEmbeddingBag)
_ACTIVATIONS = (QuantizedReLU, QuantizedPReLU, *WITHOUT_WEIGHTS)
_ALL: tuple[type[Quantized], ...] = (
    *(*_PRODUCTS, *CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS),
    *(*RECURRENT, *NORMALIZATIONS, *_TABLES, *_ACTIVATIONS),
)
for _layer in _ALL:
    LAYERS.register(op_name(stands_for(_layer).__name__))(_layer)

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def layer_for(kind: type[nn.Module]) -> type[Quantized] | None:
    """The class that quantises layers of this type, or of a type whose `forward` it keeps; None without any."""
    return _exactly(kind) or quantized_subclass(kind, _exactly)


def _exactly(kind: type[nn.Module]) -> type[Quantized] | None:
    return quantized_conv1d(kind) if is_conv1d(kind) else LAYERS.of_type(kind)


def possible_slots(module: nn.Module) -> tuple[str, ...]:
    """Slots of the operation, whether or not this layer has the parameter; empty where it is not supported."""
    if isinstance(module, Quantized):
        return module.slot_names
    layer = layer_for(type(module))
    return layer.slot_names if layer is not None else ()


def slots_of(module: nn.Module) -> tuple[str, ...]:
    """Slots that `module` has or would have once quantised; empty where its type is not supported."""
    if isinstance(module, Quantized):
        return module.available_slots()
    return present_slots(possible_slots(module), module)


def weight_rows(module: nn.Module, weight: Tensor) -> Tensor | None:
    """A weight of a layer that is a dot product as `(outputs, terms)`; None where it is none.

    A transposed convolution adds up at most the terms of a row: with a stride, fewer.
    """
    if isinstance(module, (nn.Linear, *_CONVS)):
        return weight.flatten(1)
    if isinstance(module, _TRANSPOSED):
        return swap_channels(weight, module.groups).flatten(1)
    return weight.t() if _is_conv1d(module) else None


def dot_terms(module: nn.Module) -> int | None:
    """How many products a layer adds up for one output, at most; None where it is no dot product."""
    weight = getattr(module, "weight", None)
    rows = weight_rows(module, weight) if isinstance(weight, Tensor) else None
    return None if rows is None else rows.shape[1]


def dot_product(module: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What a layer that is a dot product computes on these operands, whatever its slots say.

    Raises:
        BadInput: It is none.
    """
    if isinstance(module, nn.Linear):
        return F.linear(x, weight, bias)
    if isinstance(module, _CONVS):
        result: Tensor = module._conv_forward(x, weight, bias)
        return result
    if isinstance(module, _TRANSPOSED):
        return transposed_convolution(module, x, weight, bias)
    if _is_conv1d(module):
        return F.linear(x, weight.t(), bias)
    raise BadInput("this layer is no dot product", found=type(module).__name__)


def lies_transposed(module: nn.Module) -> bool:
    """Whether the weight of a layer lies as `(in, out / groups, ...)`."""
    layer = type(module) if isinstance(module, Quantized) else layer_for(type(module))
    return layer.transposed if layer is not None else isinstance(module, _TRANSPOSED) or _is_conv1d(module)


def _is_conv1d(module: nn.Module) -> bool:
    return any(is_conv1d(base) for base in type(module).__mro__)


def instrument(module: nn.Module, cache: TensorCache) -> Quantized:
    """Turn `module`, in place, into its quantised layer with every slot at full precision.

    Parameters, buffers, hooks and identity stay: shared layers remain shared.

    Raises:
        BadInput: No quantised layer exists for this type.
    """
    if isinstance(module, Quantized):
        return module
    layer = layer_for(type(module))
    if layer is None:
        raise BadInput(
            "this layer type cannot be quantised",
            found=type(module).__name__,
            allowed=[known.__name__ for known in LAYERS.types],
        )
    module.__class__ = layer
    assert isinstance(module, Quantized)
    module._cache = cache
    module.set_slots({})
    return module
