"""Bits of a model's tensors under an assignment of formats: stored size and average bit widths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from paretobit.formats import FULL, Format
from paretobit.graph import ModelGraph, Node
from paretobit.nn import Stored, parameter_uses, slots_of

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


NO_BITS = LayerBits()


@dataclass(frozen=True)
class Owner:
    """What is stored, and read as data, under the formats of one layer or function.

    Attributes:
        path: Of the layer or site of the function; of another module for what no format reaches.
        stored: The parameters that count here.
        statistics_bits: Bits of running statistics.
        data_elements: Elements of its input, one sample; 0 where it has no slot for them.
    """

    path: str
    stored: tuple[Stored, ...] = ()
    statistics_bits: int = 0
    data_elements: int = 0

    def bits(self, slots: Mapping[str, Format]) -> LayerBits:
        """Elements and bits under these formats; what is missing counts 32 bits an element."""
        data_bits = self.data_elements * slots.get("data_in", FULL).element_bits
        elements = sum(stored.elements for stored in self.stored)
        bits = sum(stored.bits(slots) for stored in self.stored)
        return LayerBits(elements, bits, self.statistics_bits, self.data_elements, data_bits)


def owners(graph: ModelGraph) -> tuple[Owner, ...]:
    """Everything of a model that has bits, every parameter once: where its first reading sets its format."""
    stored: dict[str, list[Stored]] = {}
    for one in parameter_uses(graph).stored:
        stored.setdefault(one.home, []).append(one)
    calls = {node.owner: node for node in graph.layers}
    found = []
    for path, module in graph.model.named_modules():
        own = tuple(stored.pop(path, ())) if path else ()
        found.append(Owner(path, own, statistics_bits(module), data_elements(calls.get(path), module)))
    return (*found, *(Owner(site, tuple(own)) for site, own in stored.items()))


def statistics_bits(module: nn.Module) -> int:
    """Bits of the running statistics that a module itself owns, 32 each."""
    buffers = dict(module.named_buffers(recurse=False))
    return sum(FULL.bits(buffers[name].shape) for name in _STATISTICS if name in buffers)


def data_elements(node: Node | None, module: nn.Module) -> int:
    """Elements of a layer's input, one sample; 0 where it is not called, or has no slot for its data."""
    return (node.input_elements or 0) if node is not None and "data_in" in slots_of(module) else 0
