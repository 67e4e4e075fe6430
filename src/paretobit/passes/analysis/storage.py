"""Bits of a model's tensors under an assignment of formats: stored size and average bit widths."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from torch import nn

from paretobit.formats import FULL, Format
from paretobit.graph import Node
from paretobit.nn import slot_of_parameter, slots_of

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class LayerBits:
    """Elements and bits of one layer.

    Attributes:
        weight_elements: Elements of its parameters (weights and biases).
        weight_bits: Bits that storing them takes.
        statistics_bits: Bits of its running statistics, 32 each.
        data_elements: Elements of its input, one sample; 0 for a layer that has no data slot.
        data_bits: Width times elements of that input.
    """

    weight_elements: int = 0
    weight_bits: int = 0
    statistics_bits: int = 0
    data_elements: int = 0
    data_bits: int = 0

    def __add__(self, other: LayerBits) -> LayerBits:
        return LayerBits(
            self.weight_elements + other.weight_elements,
            self.weight_bits + other.weight_bits,
            self.statistics_bits + other.statistics_bits,
            self.data_elements + other.data_elements,
            self.data_bits + other.data_bits,
        )

    @property
    def stored_bytes(self) -> float:
        """Bytes of parameters and running statistics."""
        return (self.weight_bits + self.statistics_bits) / 8

    @property
    def average_width(self) -> float | None:
        """Bits per element of parameters and input; None where there are none."""
        elements = self.weight_elements + self.data_elements
        return (self.weight_bits + self.data_bits) / elements if elements else None


def layer_bits(
    node: Node | None, module: nn.Module, slots: Mapping[str, Format], elsewhere: Container[int] = ()
) -> LayerBits:
    """Bits of the tensors that `module` itself owns (not its children), and of its input.

    Args:
        node: The layer's call, for the shape of its input; None for a module that is not called.
        module: The layer.
        slots: Formats of its slots; what is missing counts 32 bits an element.
        elsewhere: `id` of parameters that count at another layer.
    """
    elements = bits = 0
    for name, parameter in module.named_parameters(recurse=False):
        if id(parameter) not in elsewhere:
            elements += parameter.numel()
            bits += slots.get(slot_of_parameter(name), FULL).bits(parameter.shape)
    statistics = sum(
        FULL.bits(buffer.shape) for name, buffer in module.named_buffers(recurse=False) if name in _STATISTICS
    )
    data = (node.input_elements or 0) if node is not None and "data_in" in slots_of(module) else 0
    return LayerBits(elements, bits, statistics, data, data * slots.get("data_in", FULL).element_bits)
