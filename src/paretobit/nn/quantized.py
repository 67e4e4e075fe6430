"""What every quantised layer has: slots that take any format, and quantised parameters kept in a cache."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor, is_grad_enabled, nn

from paretobit.errors import BadInput
from paretobit.formats import FULL, Format
from paretobit.nn.cache import TensorCache


class Quantized(nn.Module):
    """Mixin of every quantised layer: the slots and the cache of quantised parameters."""

    slot_names: tuple[str, ...] = ("data_in", "weight", "bias")
    """Those of most layers; others say theirs."""
    slots: dict[str, Format]
    _cache: TensorCache
    transposed: ClassVar[bool] = False
    """Whether the weight lies as `(in, out / groups, ...)`."""
    quantizes_input: ClassVar[bool] = False
    """Whether all that `data_in` goes through is the layer's one input, as it is given, once."""

    def available_slots(self) -> tuple[str, ...]:
        """Slots this layer really has: no `bias` where there is no bias."""
        return present_slots(self.slot_names, self)

    def set_slots(self, formats: Mapping[str, Format]) -> None:
        """Set every slot: those not named return to full precision.

        Raises:
            BadInput: A slot this operation does not have.
        """
        for name in formats:
            if name not in self.slot_names:
                raise BadInput(f"{self._operation()} has no such slot", found=name, allowed=self.slot_names)
        self.__dict__["slots"] = {name: formats.get(name, FULL) for name in self.slot_names}

    def data(self, slot: str, x: Tensor) -> Tensor:
        """A data tensor through the format of its slot."""
        number_format = self.slots[slot]
        return x if number_format is FULL else number_format.quantize(x)

    def parameter(self, slot: str) -> Any:
        """A parameter through the format of its slot; None where the layer has none."""
        return self.stored(slot, getattr(self, slot))

    @property
    def carries_formats(self) -> bool:
        """Whether any slot carries a format."""
        return any(number_format is not FULL for number_format in self.slots.values())

    def stored(self, slot: str, value: Tensor | None, part: int = 0) -> Any:
        """A parameter's value through the format of its slot: from the cache where nothing changed.

        Args:
            slot: The slot.
            value: The parameter.
            part: Tells apart parameters that share the slot.
        """
        number_format = self.slots[slot]
        if value is None or number_format is FULL:
            return value
        quantize = self._quantizer(slot)
        if not number_format.traits.deterministic or (is_grad_enabled() and value.requires_grad):
            return quantize(value)
        return self._cache.get((id(self), slot, part, number_format, self.training), value, quantize)

    def _quantizer(self, slot: str) -> Callable[[Tensor], Tensor]:
        """What a parameter goes through, in the layout in which it is quantised."""
        number_format = self.slots[slot]
        quantize = number_format.quantize_latent if self.training else number_format.quantize
        if not self.transposed:
            return quantize
        return lambda w: self.laid_out(slot, quantize(self.laid_out(slot, w)))

    def laid_out(self, slot: str, value: Tensor) -> Tensor:
        """A parameter in the layout in which its format sees it, outputs first; twice, and it is as before."""
        return as_quantised(self, type(self), slot, value)

    def _operation(self) -> str:
        """The class of torch's that this layer stands for."""
        return stands_for(type(self)).__name__

    def _get_name(self) -> str:
        formats = [self.slots[name] for name in ("weight", *self.slot_names) if name in self.slots]
        family = next((type(f).__name__ for f in formats if f is not FULL), "")
        return self._operation() + family


def as_quantised(module: nn.Module, layer: type[Quantized], slot: str, value: Tensor) -> Tensor:
    """A parameter of a module, in the layout in which this quantised layer would quantise it."""
    if slot != "weight" or not layer.transposed:
        return value
    return swap_channels(value, int(getattr(module, "groups", 1)))


def classes_for(
    base: type[Quantized], kinds: Iterable[type[nn.Module]], module: dict[str, Any]
) -> tuple[type[Quantized], ...]:
    """A quantised class for each of torch's layer types.

    Args:
        base: What they share: slots and `forward`.
        kinds: The layer types.
        module: `globals()` of a module, which gets the classes under their names: pickle looks there.
    """
    made = []
    for kind in kinds:
        name, about = f"Quantized{kind.__name__}", f"`nn.{kind.__name__}` with slots."
        module[name] = type(name, (base, kind), {"__module__": module["__name__"], "__doc__": about})
        made.append(module[name])
    return tuple(made)


def stands_for(layer: type[Quantized]) -> type[nn.Module]:
    """The layer type that a quantised layer takes the place of."""
    own = (base for base in layer.__mro__ if issubclass(base, nn.Module))
    return next(base for base in own if not issubclass(base, Quantized))


_REPRESENTED: dict[type[nn.Module], dict[str, str]] = {
    nn.MultiheadAttention: {"weight": "out_proj", "bias": "in_proj_bias"},
    nn.RNNBase: {"weight": "weight_ih_l0", "bias": "bias_ih_l0"},
    nn.RNNCellBase: {"weight": "weight_ih", "bias": "bias_ih"},
}
"""Where several parameters share a slot: one that is there if any is."""


def formats_of(model: nn.Module, every_path: bool = False) -> dict[str, dict[str, Format]]:
    """The formats that the quantised layers and functions of a model carry, by path.

    Args:
        model: Any module.
        every_path: A module that stands at several paths is named at each of them, not only the first.
    """
    modules = model.named_modules(remove_duplicate=not every_path)
    return {path: dict(module.slots) for path, module in modules if isinstance(module, Quantized)}


def present_slots(names: tuple[str, ...], module: nn.Module) -> tuple[str, ...]:
    """Those of the slots whose operand a module has: its data always, a parameter where it is not None."""
    one = next((own for kind, own in _REPRESENTED.items() if isinstance(module, kind)), {})
    return tuple(s for s in names if s == "data_in" or getattr(module, one.get(s, s), None) is not None)


def shares_slots(module: nn.Module) -> bool:
    """Whether several parameters of a layer go through one slot."""
    return isinstance(module, tuple(_REPRESENTED))


_OF_A_GATE = re.compile(r"_(ih|hh|hr)(_l\d+(_reverse)?)?$")


def slot_of_parameter(name: str) -> str:
    """The slot that a parameter of a layer goes through.

    >>> slot_of_parameter("weight"), slot_of_parameter("in_proj_bias"), slot_of_parameter("weight_hh_l0_reverse")
    ('weight', 'bias', 'weight')
    """
    return _OF_A_GATE.sub("", name.rpartition("proj_")[2])


def swap_channels(weight: Tensor, groups: int = 1) -> Tensor:
    """A weight `(in, out / groups, ...)` as `(out, in / groups, ...)`; twice, and it is as before.

    Formats that share a scale along the first axis, or blocks along the others, then mean the same
    for it as for the weight of any other layer: the first axis is the outputs.
    """
    by_group = weight.reshape(groups, -1, *weight.shape[1:])
    return by_group.transpose(1, 2).flatten(0, 1)
