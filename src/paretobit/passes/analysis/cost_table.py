"""Costs that somebody measured or synthesised: a table of operation and formats to numbers per MAC.

The file is CSV: columns `op`, `data_format`, `weight_format`, and one column per quantity.

    op,data_format,weight_format,energy,luts
    linear,"integer(width=8*","integer(width=4*",0.2,31
    *,float,float,4.6,700

A format is written as it prints, with `*` for any text, or as a family's bare name. The first row
that fits counts.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paretobit.errors import BadInput
from paretobit.formats import FULL, Format
from paretobit.graph import ModelGraph
from paretobit.passes.analysis.cost.conventions import NO_FORMATS
from paretobit.passes.analysis.cost.counting import products
from paretobit.passes.layers.assignment import Assignment, carried_formats
from paretobit.passes.layers.selection import path_of

KEYS = ("op", "data_format", "weight_format")


@dataclass(frozen=True)
class Line:
    """One row: three patterns, and what one MAC costs."""

    op: str
    data_format: str
    weight_format: str
    per_mac: Mapping[str, float]

    def fits(self, op: str, data: Format, weight: Format) -> bool:
        """Whether an operation on these formats is meant."""
        pairs = ((self.data_format, data), (self.weight_format, weight))
        return _matches(self.op, op) and all(_names(pattern, f) for pattern, f in pairs)


@dataclass(frozen=True)
class CostTable:
    """A table of costs per MAC.

    Attributes:
        source: The file.
        quantities: Names of its numeric columns.
        lines: Its rows.
    """

    source: str
    quantities: tuple[str, ...]
    lines: tuple[Line, ...]

    @classmethod
    def read(cls, path: str | Path) -> CostTable:
        """Read a file.

        Raises:
            BadInput: The file cannot be read, a column is missing or without a name, there is no
                row, or a cell holds no finite number of 0 or more; the line is named.
        """
        try:
            with open(path, encoding="utf-8", newline="") as file:
                reader = csv.reader(file, strict=True)
                rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
        except OSError as error:
            raise BadInput(f"cannot read the cost table: {error.strerror}", found=str(path)) from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise BadInput(f"not CSV text: {error}", source=path) from None
        if len(rows) < 2:
            raise BadInput("an empty cost table", source=path, allowed="a header line and at least one row")
        header = [name.strip() for name in rows[0][1]]
        quantities = _quantities(header, path)
        lines = tuple(_line(header, row, path, number) for number, row in rows[1:])
        return cls(str(path), quantities, lines)

    def per_mac(self, op: str, data: Format, weight: Format) -> Mapping[str, float]:
        """What one MAC of an operation costs.

        Raises:
            BadInput: No row fits; operation and formats are named.
        """
        for line in self.lines:
            if line.fits(op, data, weight):
                return line.per_mac
        raise BadInput(
            f"the cost table has no row for the operation '{op}' on data in '{data}' and weights in '{weight}'",
            source=self.source,
            allowed=list(dict.fromkeys(f"{x.op}, {x.data_format}, {x.weight_format}" for x in self.lines)),
        )

    def total(self, graph: ModelGraph, formats: Assignment | None = None) -> dict[str, float]:
        """Every quantity of one sample: the sum over all nodes of MACs × cost per MAC.

        Args:
            graph: Traced with example inputs.
            formats: Assignment by path or site, in place of those the model's layers carry.

        Raises:
            BadInput: No row fits a node, or shapes are unknown.
        """
        given = carried_formats(graph) if formats is None else formats
        sums = dict.fromkeys(self.quantities, 0.0)
        for op, site, macs in macs_of(graph):
            slots = given.get(site, NO_FORMATS)
            costs = self.per_mac(op, slots.get("data_in", FULL), slots.get("weight", FULL))
            for name in sums:
                sums[name] += macs * costs[name]
        return sums


def macs_of(graph: ModelGraph) -> tuple[tuple[str, str, int], ...]:
    """Operation, path or site, and MACs of one sample of every node that has some."""
    found = []
    for node in graph:
        module = graph.module(node) if node.kind == "call_module" else None
        macs = sum(product.macs for product in products(node, module) or ())
        if macs:
            found.append((node.op, path_of(node), macs))
    return tuple(found)


def _quantities(header: list[str], path: str | Path) -> tuple[str, ...]:
    for key in KEYS:
        if key not in header:
            raise BadInput("the cost table lacks a column", source=path, line=1, found=header, allowed=KEYS)
    quantities = tuple(name for name in header if name not in KEYS)
    if not quantities or "" in header or len(set(header)) < len(header):
        problem = "the columns of a cost table need names of their own"
        allowed = [*KEYS, "and one column per quantity: energy, luts, cycles"]
        raise BadInput(problem, source=path, line=1, found=header, allowed=allowed)
    return quantities


def _line(header: list[str], row: list[str], path: str | Path, number: int) -> Line:
    if len(row) != len(header):
        raise BadInput("a row of another length than the header", source=path, line=number, found=row)
    cells = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
    per_mac = {}
    for name, text in cells.items():
        if name not in KEYS:
            try:
                per_mac[name] = float(text)
            except ValueError:
                per_mac[name] = math.nan
            if not (math.isfinite(per_mac[name]) and per_mac[name] >= 0):
                raise BadInput(
                    "not a cost", source=path, line=number, key=name, found=text, allowed="0 or more per MAC"
                )
    return Line(cells["op"], cells["data_format"], cells["weight_format"], per_mac)


def _names(pattern: str, number_format: Format) -> bool:
    return pattern == number_format.name or _matches(pattern, str(number_format))


def _matches(pattern: str, text: str) -> bool:
    """Whether a pattern with `*` for any text is the whole text."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None
