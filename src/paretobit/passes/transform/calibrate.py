"""Fixed scales from data: one streaming pass for any number of candidate formats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput, under
from paretobit.formats import Format, Integer, ScaledInteger
from paretobit.formats.integer import MAX_FRAC_WIDTH
from paretobit.formats.scaled_integer import CLIPPINGS
from paretobit.graph import Example, ModelGraph, at_rest
from paretobit.graph.copies import copy_of
from paretobit.graph.operations import OPERATIONS
from paretobit.nn import Quantized
from paretobit.nn.functions import read_site
from paretobit.nn.quantized import shares_slots
from paretobit.passes.layers.assignment import NOT_KNOWN, Places, apply_assignment, assignment_of, instrument_layers
from paretobit.passes.registry import PASSES
from paretobit.passes.streaming import Magnitudes, Watched, call
from paretobit.passes.taking import takes

Candidates = Mapping[str, Mapping[str, Sequence[Format]]]
"""Path of a layer, or site of a function, to slot to formats."""
Calibrated = dict[str, dict[str, dict[Format, Format]]]
"""Path of a layer to slot to format to the same format with what the data fixes."""

_FINE, _COARSE = 10, 8  # bits of the histogram for one part, and for many


def calibrate(
    graph: ModelGraph | nn.Module, batches: Iterable[Example], candidates: Candidates, *, fit_integers: bool = False
) -> Calibrated:
    """Fix the scales of candidate formats by running data through a model once, in evaluation mode.

    Formats that need no data come back as they are: what is not a scaled integer, and what has its
    scale. Parameters are calibrated exactly. Of data, `max` is exact; `percentile` and `mse` look at
    a histogram: values are known to within 2^-11 of themselves for one scale a tensor, 2^-9 for one
    a channel. Memory does not depend on the number of batches: up to 4 MB a slot, 1 MB a channel,
    in practice a tenth of that; and one copy of the model.

    Args:
        graph: The model; it is left as it was, and runs with the formats that it carries.
        batches: Inputs as the model takes them; not read where only parameters are calibrated.
        candidates: What to calibrate.
        fit_integers: Also choose the `frac_width` of `integer` formats: as many fractional bits as
            the values seen leave room for.

    Raises:
        BadInput: No such layer or slot, no batch, a layer that did not run, or scales that data
            cannot fix: per row of a batch, or per group.
    """
    model = copy_of(graph.model if isinstance(graph, ModelGraph) else graph)
    layers = _layers(model, candidates, graph.places if isinstance(graph, ModelGraph) else NOT_KNOWN)
    streams: dict[tuple[str, str], dict[_Layout, _Stream]] = {}
    found: Calibrated = {}
    for path, slots in candidates.items():
        for slot, formats in slots.items():
            if isinstance(getattr(layers[path], slot, None), Tensor):
                tensor = layers[path].laid_out(slot, getattr(layers[path], slot).detach())
                fixed = {f: _of_parameter(f, tensor, fit_integers) for f in formats}
                found.setdefault(path, {})[slot] = fixed
            else:
                streams[path, slot] = _streams(path, slot, formats, fit_integers)
    if any(streams.values()):
        _run(model, layers, streams, batches)
    for (path, slot), by_layout in streams.items():
        found.setdefault(path, {})[slot] = {
            f: by_layout[_layout(f)].fit(f) if _needs_data(f, fit_integers) else f for f in candidates[path][slot]
        }
    return found


def freeze_scales(graph: ModelGraph, batches: Iterable[Example]) -> tuple[ModelGraph, dict[str, Any]]:
    """A copy of the graph whose scaled integers have the scales that these batches need, fixed.

    Where several parameters of a layer share a slot each keeps scales of its own, from its values.

    Returns:
        The new graph, and `{"assignment": ...}` with the formats that changed, as text.

    Raises:
        BadInput: As `calibrate`.
    """
    carried = assignment_of(graph.model)
    several = {path for path, module in graph.model.named_modules() if shares_slots(module)}
    candidates = {
        path: {s: [f] for s, f in slots.items() if _needs_data(f, False) and (s == "data_in" or path not in several)}
        for path, slots in carried.items()
    }
    fixed = calibrate(graph, batches, {path: slots for path, slots in candidates.items() if slots})
    model = copy_of(graph.model)
    frozen = {
        path: {**carried[path], **{slot: of[carried[path][slot]] for slot, of in slots.items()}}
        for path, slots in fixed.items()
    }
    apply_assignment(model, frozen)
    text = {path: {slot: str(frozen[path][slot]) for slot in slots} for path, slots in fixed.items()}
    return graph.with_model(model), {"assignment": text}


@PASSES.register("calibrate", summary="scales of scaled integers, fixed to what calibration data need")
@takes()
def calibrate_pass(
    graph: ModelGraph, table: Mapping[str, Any], batches: Iterable[Example] = ()
) -> tuple[ModelGraph, dict[str, Any]]:
    """`freeze_scales` as a pass; its table is empty."""
    return freeze_scales(graph, batches)


def fit_frac_width(number_format: Integer, low: float, high: float) -> Integer:
    """The format with the most fractional bits that still hold `low` to `high`, rounding included.

    Values that are all zero leave it as it is.

    >>> fit_frac_width(Integer(8), -0.5, 3.0).frac_width
    5
    """
    bottom, top = number_format.code_range
    sides = [(side, limit) for side, limit in ((low, bottom), (high, top)) if side * limit > 0]
    if not sides:
        return number_format
    if not all(math.isfinite(side) for side, _ in sides):
        raise BadInput("no frac_width holds values that are not finite", found=[low, high])
    most = min(math.floor(math.log2(abs(limit) + 0.5) - math.log2(abs(side))) for side, limit in sides) + 1
    while any(abs(round(math.ldexp(side, most))) > abs(limit) for side, limit in sides):
        most -= 1
    return replace(number_format, frac_width=max(-MAX_FRAC_WIDTH, min(most, MAX_FRAC_WIDTH)))


def _needs_data(number_format: Format, fit_integers: bool) -> bool:
    if isinstance(number_format, ScaledInteger):
        return number_format.scale is None
    return fit_integers and isinstance(number_format, Integer)


def _of_parameter(number_format: Format, tensor: Tensor, fit_integers: bool) -> Format:
    if isinstance(number_format, ScaledInteger) and number_format.scale is None:
        return number_format.calibrated(tensor)
    if isinstance(number_format, Integer) and fit_integers:
        return fit_frac_width(number_format, float(tensor.min()), float(tensor.max()))
    return number_format


def _layers(model: nn.Module, candidates: Candidates, places: Places) -> dict[str, Quantized]:
    """The layers by path, instrumented; those that carry formats keep them."""
    known = dict(model.named_modules())
    for path in candidates:
        if path not in known and not OPERATIONS.operands(read_site(path)[1]):
            raise BadInput("the model has no such layer", key="candidates", found=path, allowed=filter(None, known))
    layers = instrument_layers(model, tuple(candidates), places)
    for path, layer in layers.items():
        for slot in candidates[path]:
            if slot not in layer.available_slots():
                allowed = layer.available_slots()
                raise BadInput("the layer has no such slot", key=f"candidates.{path}", found=slot, allowed=allowed)
    return layers


_Layout = int | None
"""Axis of the channels that have a scale each; None for one scale a tensor."""


def _layout(number_format: Format) -> _Layout:
    if isinstance(number_format, ScaledInteger) and number_format.per == "channel":
        return number_format.axis if number_format.axis is not None else 0
    return None


def _streams(path: str, slot: str, formats: Sequence[Format], fit_integers: bool) -> dict[_Layout, _Stream]:
    """What to watch in one slot: once for all formats that share their scales along the same axis."""
    streams: dict[_Layout, _Stream] = {}
    for number_format in formats:
        if not _needs_data(number_format, fit_integers):
            continue
        layout = _layout(number_format)
        per = getattr(number_format, "per", "tensor")
        if per == "group" or layout == 0:
            raise BadInput(
                "data has no fixed scales per row or per group",
                key=f"{path}.{slot}",
                found=str(number_format),
                allowed="per = 'tensor', or per = 'channel' with another axis than 0",
            )
        stream = streams.setdefault(layout, _Stream(layout, f"{path}.{slot}"))
        stream.counts |= getattr(number_format, "calibration", "max") != "max"
    return streams


def _run(
    model: nn.Module,
    layers: Mapping[str, Quantized],
    streams: Mapping[tuple[str, str], dict[_Layout, _Stream]],
    batches: Iterable[Example],
) -> None:
    """Run the batches; each stream sees what goes through its slot."""
    for (path, slot), own in streams.items():
        carried = layers[path].slots
        layers[path].set_slots({**carried, slot: Watched(carried[slot], tuple(s.see for s in own.values()))})
    seen = False
    with at_rest(model), torch.no_grad():
        for batch in batches:
            call(model, batch)
            seen = True
    if not seen:
        raise BadInput("calibration needs data", key="batches", found="no batch")
    for own in streams.values():
        for stream in own.values():
            if not stream.seen:
                raise BadInput("the layer did not run on this data", key=stream.name)


class _Stream:
    """Range and histogram of the data in one slot, of each part that has a scale."""

    low: Tensor
    high: Tensor
    positive: Magnitudes
    negative: Magnitudes
    valid: Tensor

    def __init__(self, layout: _Layout, name: str) -> None:
        self.layout, self.name, self.counts, self.seen = layout, name, False, False

    def see(self, x: Tensor) -> None:
        """One batch's tensor."""
        rows = self._rows(x)
        if not self.seen:
            self._start(len(rows))
            self.seen = True
        elif len(rows) != len(self.low):
            raise BadInput("the number of channels changed", key=self.name, found=[len(self.low), len(rows)])
        if not rows.numel():
            return
        low, high = torch.aminmax(rows, dim=1)
        absent = torch.zeros(len(rows), dtype=torch.int64)
        if low.isnan().any():
            absent = rows.isnan().sum(1).cpu()
            low, high = torch.aminmax(rows.nan_to_num(0.0, math.inf, -math.inf), dim=1)
        self.low = torch.minimum(self.low, low.cpu().double())
        self.high = torch.maximum(self.high, high.cpu().double())
        if self.counts:
            self.positive.add(rows.clamp(min=0))
            self.negative.add(rows.clamp(max=0))
            self.valid += rows.shape[1] - absent

    def _rows(self, x: Tensor) -> Tensor:
        """One row a part."""
        if self.layout is None or x.ndim < 2:
            return x.reshape(1, -1)
        return x.movedim(self.layout, 0).flatten(1)

    def _start(self, parts: int) -> None:
        bits = _FINE if parts == 1 else _COARSE
        self.low = torch.zeros(parts, dtype=torch.float64)  # zero is always in the range
        self.high = torch.zeros(parts, dtype=torch.float64)
        self.positive, self.negative = Magnitudes(parts, bits), Magnitudes(parts, bits)
        self.valid = torch.zeros(parts, dtype=torch.int64)

    def fit(self, number_format: Format) -> Format:
        """The format with the scales that what was seen needs.

        Raises:
            BadInput: None holds it: infinity, or values close to the largest of float32.
        """
        with under(self.name):
            return self._fit(number_format)

    def _fit(self, number_format: Format) -> Format:
        if isinstance(number_format, Integer):
            return fit_frac_width(number_format, float(self.low.min()), float(self.high.max()))
        assert isinstance(number_format, ScaledInteger)
        by_part = replace(number_format, per="channel", axis=0, calibration="max")
        ends = torch.stack([self.low, self.high], 1)
        if number_format.calibration == "percentile":
            ends = self._percentiles(number_format)
        elif number_format.calibration == "mse":
            ends = ends * self._best_clipping(by_part, ends)
        fixed = by_part.calibrated(ends)
        return replace(number_format, scale=fixed.scale, zero_point=fixed.zero_point)

    def _percentiles(self, number_format: ScaledInteger) -> Tensor:
        """Both ends of the range, `(parts, 2)`."""
        percent = number_format.percentile
        rank = (self.valid * torch.tensor(percent / 100, dtype=torch.float64)).ceil().long().clamp(min=1)
        if not (number_format.symmetric and number_format.signed):
            lowest = self.valid * torch.tensor((100 - percent) / 100, dtype=torch.float64)
            ends = [self._ranked(lowest.ceil().long().clamp(min=1)), self._ranked(rank)]
            return torch.stack(ends, 1)
        magnitude = self._magnitude(rank)
        return torch.stack([-magnitude, magnitude], 1)

    def _ranked(self, rank: Tensor) -> Tensor:
        """The values of this rank in ascending order, rank 1 the smallest."""
        below, above = self.negative.total, self.positive.total
        zeros = self.valid - below - above
        value = self.positive.ranked(rank - below - zeros) - self.negative.ranked(below + 1 - rank)
        return value.clamp(min=self.low, max=self.high)

    def _magnitude(self, rank: Tensor) -> Tensor:
        """The magnitude of this rank, of values of both signs."""
        both = Magnitudes.merged(self.positive, self.negative)
        zeros = self.valid - both.total
        return both.ranked(rank - zeros).clamp(max=torch.maximum(-self.low, self.high))

    def _best_clipping(self, by_part: ScaledInteger, ends: Tensor) -> Tensor:
        """The share of the range with the smallest squared error, `(parts, 1)`, as the format searches it."""
        values = torch.cat([-self.negative.values, self.positive.values])
        counts = torch.cat([self.negative.counts, self.positive.counts], 1)
        if not values.numel():  # zeros alone
            return torch.ones(len(ends), 1, dtype=torch.float64)
        taken = counts.any(0)
        counts, values = counts[:, taken].double(), values[taken].expand(len(counts), -1).contiguous()
        best = torch.ones(len(ends), 1, dtype=torch.float64)
        smallest = torch.full_like(best, math.inf)
        for clipping in range(CLIPPINGS, 0, -1):
            scales = by_part.scales(ends * (clipping / CLIPPINGS))
            wrong = (by_part.with_scales(values, scales) - values).square_().mul_(counts).sum(1, keepdim=True)
            best = best.where(wrong >= smallest, clipping / CLIPPINGS)
            smallest = torch.minimum(smallest, wrong)
        return best


class Observed:
    """What data flows through the slots of a model: formats are given their scales one by one.

    The batches run through the float model once for each axis along which formats share scales, when
    the first of them asks.

    Args:
        graph: The model; it is left as it was.
        batches: Inputs as the model takes them.
        slots: Path of a layer, or site of a function, to the data slots to watch.
    """

    def __init__(self, graph: ModelGraph, batches: Sequence[Example], slots: Mapping[str, Sequence[str]]) -> None:
        self._graph, self._batches, self._slots = graph, batches, slots
        self._seen: dict[_Layout, dict[tuple[str, str], _Stream]] = {}

    def fixed(self, path: str, slot: str, number_format: Format) -> Format:
        """The format with the scale that the data needs; as it is where data fixes none.

        Scales per row of a batch, or per group, stay computed from each batch.

        Raises:
            BadInput: The layer did not run, or no scale holds what was seen.
        """
        if not isinstance(number_format, ScaledInteger) or number_format.scale is not None:
            return number_format
        layout = _layout(number_format)
        if number_format.per == "group" or layout == 0:
            return number_format
        if layout not in self._seen:
            self._seen[layout] = self._watched(layout)
        return self._seen[layout][path, slot].fit(number_format)

    def _watched(self, layout: _Layout) -> dict[tuple[str, str], _Stream]:
        model = copy_of(self._graph.model)
        slots = {path: dict.fromkeys(slots, ()) for path, slots in self._slots.items()}
        layers = _layers(model, slots, self._graph.places)
        streams = {(p, s): _Stream(layout, f"{p}.{s}") for p, slots in self._slots.items() for s in slots}
        for stream in streams.values():
            stream.counts = True
        _run(model, layers, {key: {layout: stream} for key, stream in streams.items()}, self._batches)
        return streams
