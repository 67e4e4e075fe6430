"""Roofline latency: how long a described device takes, bound by its arithmetic or by its memory.

Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model": an
operation takes the longer of computing and moving its data,
`max(2 × MACs / peak, bytes / bandwidth) + overhead`, and operations follow each other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from paretobit.document import Document, validate
from paretobit.errors import BadInput
from paretobit.formats import FULL
from paretobit.graph import ModelGraph, Node
from paretobit.graph.operations import row_of
from paretobit.nn import parameter_uses
from paretobit.passes.analysis.cost.conventions import NO_FORMATS
from paretobit.passes.analysis.cost.counting import products, takes_no_time
from paretobit.passes.analysis.cost.operands import reads
from paretobit.passes.analysis.layer_bits import statistics_bits
from paretobit.passes.analysis.memory import Activation, Lifetimes, result_elements
from paretobit.passes.layers.assignment import Assignment, carried_formats, width_of
from paretobit.passes.layers.selection import path_of

_PAIR = re.compile(r"([1-9]\d*)x([1-9]\d*)")


class Device(BaseModel):
    """A device; in a TOML file the keys are the same.

    Attributes:
        name: What it is called.
        bandwidth: Bytes per second between it and its memory.
        overhead: Seconds that starting one operation takes.
        peak: Operations per second (two a MAC) for each pair of data and weight width, `"8x4"`. A
            pair that is not listed runs as the next wider one: of those at least as wide in both,
            the one with the smallest product of widths, of equal ones the fastest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = ""
    bandwidth: float = Field(gt=0)
    overhead: float = Field(0.0, ge=0)
    peak: dict[str, float] = Field(min_length=1)

    @field_validator("peak")
    @classmethod
    def _pairs(cls, peak: dict[str, float]) -> dict[str, float]:
        for pair, value in peak.items():
            if not _PAIR.fullmatch(pair):
                raise BadInput(
                    "not a pair of widths", key=f"peak.{pair}", found=pair, allowed="data x weight bits: 8x4"
                )
            if value <= 0:
                raise BadInput("not a speed", key=f"peak.{pair}", found=value, allowed="operations per second above 0")
        return peak

    @classmethod
    def read(cls, path: str | Path) -> Device:
        """The device that a TOML file describes.

        Raises:
            BadInput: The file is missing or no TOML, or a key is missing, unknown or out of range.
        """
        document = Document.read(path)
        return validate(cls, document.data, document)

    def peak_for(self, data: int, weight: int) -> float:
        """Operations per second with operands of these widths.

        Raises:
            BadInput: No pair that is listed is wide enough.

        >>> Device(bandwidth=1e9, peak={"8x8": 4e9, "16x16": 1e9}).peak_for(8, 9)
        1000000000.0
        """
        fitting = [(d * w, -speed) for d, w, speed in self._pairs_listed if d >= data and w >= weight]
        if not fitting:
            problem = "the device has no pair of widths that is wide enough"
            raise BadInput(problem, key="peak", found=f"{data}x{weight}", allowed=list(self.peak))
        return -min(fitting)[1]

    @cached_property
    def _pairs_listed(self) -> list[tuple[int, int, float]]:
        found = [(_PAIR.fullmatch(pair), speed) for pair, speed in self.peak.items()]
        return [(int(match[1]), int(match[2]), speed) for match, speed in found if match]


@dataclass(frozen=True)
class NodeTime:
    """How long one node takes, in seconds; all zero for views and what computes nothing.

    `compute` and `memory` overlap: the longer counts.
    """

    node: str
    op: str
    compute: float = 0.0
    memory: float = 0.0
    overhead: float = 0.0

    @property
    def seconds(self) -> float:
        """In all."""
        return max(self.compute, self.memory) + self.overhead


@dataclass(frozen=True)
class _Work:
    """What is known of a node before the formats are.

    `free` is what takes no time. `moved` lists what it reads and writes, in elements of one sample;
    `stored` the elements of parameters and buffers it takes, and their slots; `gathered` elements
    of a sample come from a table of weights.
    """

    node: Node
    site: str
    free: bool
    macs: int
    moved: tuple[tuple[int, Activation], ...]
    stored: tuple[tuple[int, str | None], ...]
    gathered: int


class Roofline:
    """The time of a graph on a device, for any formats.

    Reads and writes are those of activations at the width in which they are kept (`memory.Activation`), of
    parameters in their format, once a batch, and of the rows that an embedding looks up. An operation
    that nobody can count takes the time of its bytes.

    Args:
        graph: Traced with example inputs.
        device: Where it runs.
        batch: Samples that run together.

    Raises:
        BadInput: Nothing ran: shapes are unknown.
    """

    def __init__(self, graph: ModelGraph, device: Device, batch: int = 1) -> None:
        self._graph, self._device, self._batch = graph, device, batch
        self._lifetimes = lifetimes = Lifetimes(graph)
        self._uses = parameter_uses(graph)
        self._work = tuple(self._work_of(node, lifetimes) for node in graph)

    def times(self, formats: Assignment | None = None) -> tuple[NodeTime, ...]:
        """The time of every node.

        Args:
            formats: Assignment by path or site, in place of those the model's layers carry.

        Raises:
            BadInput: The device lists no pair of widths that is wide enough for a node.
        """
        given = carried_formats(self._graph) if formats is None else formats
        widths = self._lifetimes.widths(given)
        return tuple(self._time(work, given, widths) for work in self._work)

    def seconds(self, formats: Assignment | None = None) -> float:
        """The time of all nodes, one after the other."""
        return math.fsum(time.seconds for time in self.times(formats))

    def _work_of(self, node: Node, lifetimes: Lifetimes) -> _Work:
        path = path_of(node)
        in_another_order = row_of(node.op).order == "restores" and lifetimes.makes(node)
        if takes_no_time(node) and not in_another_order:
            return _Work(node, path, True, 0, (), (), 0)
        module = self._graph.module(node) if node.kind == "call_module" else None
        gathered = (node.output_elements or 0) if row_of(node.op).looks_up else 0
        moved, stored = [], []
        for operand, slot in reads(self._graph, node.of_one_row):
            if operand.shape is None:
                continue
            elements = math.prod(operand.shape)
            if operand.node in lifetimes.of:
                moved.append((elements, lifetimes.of[operand.node]))
            elif not gathered:  # of a parameter or buffer
                stored.append((elements, slot))
        if node.name in lifetimes.of:
            moved.append((result_elements(node), lifetimes.of[node.name]))
        macs = sum(product.macs for product in products(node, module) or ())
        return _Work(node, path, False, macs, tuple(moved), tuple(stored), gathered)

    def _time(self, work: _Work, formats: Assignment, widths: Mapping[int, int]) -> NodeTime:
        node = work.node
        if work.free:
            return NodeTime(node.name, node.op)
        weight = width_of(formats, work.site, "weight")
        bits = sum(elements * widths[id(kept)] for elements, kept in work.moved) + work.gathered * weight
        stored = sum(elements * width_of(formats, work.site, slot) for elements, slot in work.stored)
        bits = self._batch * bits + stored + self._weights(work, formats)
        compute = 0.0
        if work.macs:
            data = width_of(formats, work.site, "data_in")
            try:
                peak = self._device.peak_for(data, weight)
            except BadInput as error:
                error.problem += f" for '{node.name}' ({node.op})"
                raise
            compute = 2 * work.macs * self._batch / peak
        memory = bits / 8 / self._device.bandwidth
        return NodeTime(node.name, node.op, compute, memory, self._device.overhead)

    def _weights(self, work: _Work, formats: Assignment) -> int:
        """Bits of the parameters that a layer reads; an embedding reads what it looks up."""
        if work.node.kind != "call_module" or work.gathered:
            return 0
        slots = formats.get(work.site, NO_FORMATS)
        read = sum(slots.get(use.slot, FULL).bits(use.shape) for use in self._uses.at(work.site))
        return read + sum(statistics_bits(part) for part in self._graph.module(work.node).modules())


def roofline(
    graph: ModelGraph, device: Device, *, formats: Assignment | None = None, batch: int = 1
) -> tuple[NodeTime, ...]:
    """The time of every node of a graph on a device; see `Roofline`."""
    return Roofline(graph, device, batch).times(formats)
